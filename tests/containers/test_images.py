import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from harness.containers.images import CPU, GPU, ImageSpec, copied
from harness.errors import HarnessError
from harness.plan.bench_settings import engine_environment, engine_names
from harness.store.records import AccuracyRecord, load, record_path
from tests.bench_kit import OLD_ENGINE, OLD_PYTHON, SETTINGS, Workshop
from tests.documents import ROOT

SPECS = [CPU, GPU]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as an image needs."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/bench-1.txt").write_text("package==1 --hash=sha256:00\n")
    (tmp_path / "harness/room/__pycache__").mkdir(parents=True)
    for name in ("harness/__init__.py", "harness/errors.py", "harness/room/one.py", "harness/room/__pycache__/one.pyc"):
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / "Dockerfile.cpu").write_text(
        "ARG BASE_IMAGE=debian\nFROM ${BASE_IMAGE} AS packages\nCOPY requirements/bench-1.txt /requirements/\n"
        "FROM ${BASE_IMAGE}\nCOPY --from=packages /opt /opt\nCOPY harness/*.py \\\n     /harness/harness/\n"
        "COPY harness/room /harness/harness/room\n"
    )
    return tmp_path


def test_an_image_contains_what_its_dockerfile_copies_and_nothing_else(checkout: Path) -> None:
    (checkout / "harness/other").mkdir()
    (checkout / "harness/other/two.py").touch()
    spec = ImageSpec("cpu", checkout)
    names = ["Dockerfile.cpu", "harness/__init__.py", "harness/errors.py", "harness/room/one.py"]
    assert [file.as_posix() for file in spec.files] == [*names, "requirements/bench-1.txt"]
    assert spec.environments == ["bench-1"]
    with tarfile.open(fileobj=io.BytesIO(spec.context())) as tar:
        assert tar.getnames() == [file.as_posix() for file in spec.files]


def test_the_build_context_does_not_depend_on_dates_and_owners(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("elsewhere") / "checkout"
    shutil.copytree(checkout, other, copy_function=shutil.copyfile)
    for file in other.rglob("*.py"):
        file.chmod(0o600)
    assert ImageSpec("cpu", checkout).context() == ImageSpec("cpu", other).context()


@pytest.mark.parametrize("changed", ["harness/room/one.py", "requirements/bench-1.txt", "Dockerfile.cpu"])
def test_an_image_is_built_again_when_and_only_when_its_content_changes(checkout: Path, changed: str) -> None:
    spec = ImageSpec("cpu", checkout)
    before = spec.content(None)
    (checkout / "harness/beside.txt").write_text("of no concern")
    (checkout / "harness/room/__pycache__/one.pyc").write_text("neither")
    assert spec.content(None) == before
    assert spec.content("another-base") != before
    (checkout / changed).write_text((checkout / changed).read_text() + "# changed\n")
    assert spec.content(None) != before


def test_a_dockerfile_that_copies_what_is_not_there_is_an_error(checkout: Path) -> None:
    shutil.rmtree(checkout / "harness/room")
    with pytest.raises(HarnessError, match=r"Dockerfile.cpu: COPY harness/room: no such file"):
        ImageSpec("cpu", checkout).content(None)


def test_the_sources_of_copy_lines_are_read() -> None:
    text = "COPY a b /there/\nRUN cp x y\nCOPY --from=packages /opt /opt\n# COPY no no\nCOPY \\\n  c \\\n  /d\n"
    assert list(copied(text)) == ["a", "b", "c"]


# --- The project's own ------------------------------------------------------------------------------------------------


def unpacked(spec: ImageSpec, folder: Path) -> dict[str, str]:
    """An image's files alone, in a folder of their own; the variables with which Python finds them and no others."""
    with tarfile.open(fileobj=io.BytesIO(spec.context())) as tar:
        tar.extractall(folder, filter="data")
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1", "HOME": str(folder)}


@pytest.mark.skipif(not OLD_PYTHON.is_file(), reason="no .venvs/bench-1.16.0: `make setup` makes it")
def test_the_files_of_the_bench_image_are_all_that_a_job_needs(workshop: Workshop, tmp_path: Path) -> None:
    settings = {**SETTINGS, "engines": [OLD_ENGINE]}
    job = workshop.job(workshop.model("student"), settings=settings)
    (workshop.folder / "job.json").write_text(job.model_dump_json())
    command = [str(OLD_PYTHON), "-m", "harness.cli.in_image", "job", str(workshop.folder / "job.json")]
    variables = unpacked(CPU, tmp_path / "image")
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = load(record_path(job.results, job.profile, "accuracy", "student"), AccuracyRecord)
    assert (record.accuracy_pct, record.runtime, record.convolutions) == (100, "onnxruntime 1.16.0", 1)


@pytest.mark.skipif(not OLD_PYTHON.is_file(), reason="no .venvs/bench-1.16.0: `make setup` makes it")
def test_the_files_of_the_bench_image_are_all_that_comparing_files_needs(workshop: Workshop, tmp_path: Path) -> None:
    model = workshop.model("student")
    command = [str(OLD_PYTHON), "-m", "harness.cli.in_image", "latency", str(model.onnx), "--minutes", "0.0001"]
    variables = unpacked(CPU, tmp_path / "image")
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 thread, onnxruntime 1.16.0, on " in done.stdout.splitlines()[-1]


# What `train-matrix --runner local` imports and reads when it is called.
TRAIN = """
import sys
from pathlib import Path
import harness.cli, harness.cli.training_display, harness.commands.train_matrix, harness.containers.runner
import harness.datasets, harness.training.allocation, harness.training.pipeline, harness.training.workers
import harness.training.worker
from harness.commands.scope import Scope
from harness.plan import registry
from harness.plan.specs import code_of
scope = Scope.of(Path(sys.argv[1]), "quick", Path("results"), Path("artifacts"))
plan = scope.plan()
for cell in plan.cells:
    code_of(cell.spec), code_of(plan.latency(cell, plan.settings.bench.conditions[0])), code_of(plan.accuracy(cell))
for kind in ("architecture", "dataset", "criterion", "method"):
    for name in registry.names(kind):
        registry.load(kind, name)
"""


def test_the_files_of_the_training_image_are_all_that_training_imports(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAIN, str(ROOT / "matrix.toml")]
    variables = unpacked(GPU, tmp_path / "image")
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    help_ = [sys.executable, "-m", "harness", "train-matrix", "--help"]
    subprocess.run(help_, cwd=tmp_path, env=variables, capture_output=True, check=True)


def test_the_bench_image_has_no_torch_and_only_the_rooms_that_measure() -> None:
    rooms = {file.parts[1] for file in CPU.files if file.parts[0] == "harness" and len(file.parts) > 2}
    assert rooms == {"bench", "cli", "commands", "host", "model_files", "plan", "store"}
    assert CPU.environments == ["bench-1.16.0", "bench-current"]
    assert {engine_environment(name) for name in engine_names()} == set(CPU.environments)
    for file in CPU.requirements:
        assert not re.search(r"^torch", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("spec", SPECS, ids=["cpu", "gpu"])
def test_dockerfiles_pin_their_base_and_their_packages(spec: ImageSpec) -> None:
    text = spec.dockerfile.read_text()
    (base,) = set(re.findall(r"^ARG BASE_IMAGE=(\S+)$", text, re.MULTILINE))
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}", base)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE_IMAGE}"}
    assert text.count("--require-hashes") >= 1
    for file in spec.requirements:
        pinned = [line for line in (ROOT / file).read_text().splitlines() if re.match(r"[a-z0-9-]+==", line)]
        assert pinned and (ROOT / file).read_text().count("--hash=sha256:") >= len(pinned)
    # what the classic builder of old engines cannot build
    assert not re.search(r"^# ?syntax=|^RUN.*<<|^RUN --mount", text, re.MULTILINE)
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)


def test_both_images_have_the_same_base() -> None:
    first, second = (re.search(r"BASE_IMAGE=(\S+)", spec.dockerfile.read_text()) for spec in SPECS)
    assert first and second and first[1] == second[1]


def test_a_docker_build_by_hand_gets_all_that_the_dockerfiles_copy() -> None:
    """.dockerignore leaves out everything that it does not name."""
    named = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for spec in SPECS:
        for source in copied(spec.dockerfile.read_text()):
            assert any(Path(source).match(name) or source.startswith(f"{name}/") for name in named), source
