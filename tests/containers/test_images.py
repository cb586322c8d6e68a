import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from harness.containers.images import CPU, GPU, Recipe, copied
from harness.errors import HarnessError
from tests.documents import ROOT

RECIPES = [CPU, GPU]


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
    recipe = Recipe("cpu", checkout)
    names = ["Dockerfile.cpu", "harness/__init__.py", "harness/errors.py", "harness/room/one.py"]
    assert [file.as_posix() for file in recipe.files] == [*names, "requirements/bench-1.txt"]
    assert recipe.runtimes == ["1"]
    with tarfile.open(fileobj=io.BytesIO(recipe.context())) as tar:
        assert tar.getnames() == [file.as_posix() for file in recipe.files]


def test_the_same_files_are_the_same_context_whenever_and_by_whom_they_were_written(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("elsewhere") / "checkout"
    shutil.copytree(checkout, other, copy_function=shutil.copyfile)
    for file in other.rglob("*.py"):
        file.chmod(0o600)
    assert Recipe("cpu", checkout).context() == Recipe("cpu", other).context()


@pytest.mark.parametrize("changed", ["harness/room/one.py", "requirements/bench-1.txt", "Dockerfile.cpu"])
def test_what_goes_into_an_image_decides_whether_it_is_built(checkout: Path, changed: str) -> None:
    recipe = Recipe("cpu", checkout)
    before = recipe.content(None)
    (checkout / "harness/beside.txt").write_text("of no concern")
    (checkout / "harness/room/__pycache__/one.pyc").write_text("neither")
    assert recipe.content(None) == before
    assert recipe.content("another-base") != before
    (checkout / changed).write_text((checkout / changed).read_text() + "# changed\n")
    assert recipe.content(None) != before


def test_a_dockerfile_that_copies_what_is_not_there_is_an_error(checkout: Path) -> None:
    shutil.rmtree(checkout / "harness/room")
    with pytest.raises(HarnessError, match=r"Dockerfile.cpu: COPY harness/room: no such file"):
        Recipe("cpu", checkout).content(None)


def test_sources_of_copy_lines() -> None:
    text = "COPY a b /there/\nRUN cp x y\nCOPY --from=packages /opt /opt\n# COPY no no\nCOPY \\\n  c \\\n  /d\n"
    assert list(copied(text)) == ["a", "b", "c"]


# --- The project's own ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("recipe", "module"), [(CPU, "harness.bench"), (GPU, "harness")], ids=["cpu", "gpu"])
def test_an_images_rooms_are_all_that_it_needs(recipe: Recipe, module: str, tmp_path: Path) -> None:
    """Its files alone, in a folder of their own, run the command of its entry point."""
    with tarfile.open(fileobj=io.BytesIO(recipe.context())) as tar:
        tar.extractall(tmp_path, filter="data")
    python = ROOT / ".venvs/bench-1.16.0/bin/python" if recipe is CPU else Path(sys.executable)
    if not python.is_file():
        pytest.skip("no .venvs/bench-1.16.0: `make setup` makes it")
    script = f"import {module}.__main__" if recipe is CPU else IMPORT_ALL_OF_TRAINING
    command = [str(python), "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# what `train-matrix --runner local` imports when it is called
IMPORT_ALL_OF_TRAINING = """
import harness.cli, harness.commands.budget, harness.store.chain, harness.cli.training_display, harness.store.paths
import harness.training.pipeline, harness.training.data, harness.training.device
"""


def test_the_bench_image_has_no_torch_and_no_other_room() -> None:
    names = {file.as_posix() for file in CPU.files}
    assert not [name for name in names if name.startswith(("harness/training", "harness/launching", "harness/cli"))]
    assert CPU.runtimes == ["1.16.0", "current"]
    for file in CPU.requirements:
        assert not re.search(r"^torch", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("recipe", RECIPES, ids=["cpu", "gpu"])
def test_dockerfiles_pin_what_they_stand_on(recipe: Recipe) -> None:
    text = recipe.dockerfile.read_text()
    (base,) = set(re.findall(r"^ARG BASE_IMAGE=(\S+)$", text, re.MULTILINE))
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}", base)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE_IMAGE}"}
    assert text.count("--require-hashes") >= 1
    for file in recipe.requirements:
        pinned = [line for line in (ROOT / file).read_text().splitlines() if re.match(r"[a-z0-9-]+==", line)]
        assert pinned and (ROOT / file).read_text().count("--hash=sha256:") >= len(pinned)
    # what the classic builder of old engines cannot do
    assert not re.search(r"^# ?syntax=|^RUN.*<<|^RUN --mount", text, re.MULTILINE)
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)


def test_both_images_stand_on_the_same_base() -> None:
    first, second = (re.search(r"BASE_IMAGE=(\S+)", recipe.dockerfile.read_text()) for recipe in RECIPES)
    assert first and second and first[1] == second[1]


def test_docker_build_by_hand_gets_all_that_the_dockerfiles_copy() -> None:
    """.dockerignore leaves everything out but what it names."""
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for recipe in RECIPES:
        for source in copied(recipe.dockerfile.read_text()):
            assert any(Path(source).match(name) or source.startswith(f"{name}/") for name in let_in), source
