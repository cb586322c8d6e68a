import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import onnx
import pytest

from harness.bench.bench_run import run
from harness.bench.engines import Engine, load_engine, open_model, runtime_of
from harness.bench.job import Job
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.settings import condition_name, engine_environment, engine_names, engine_version
from harness.store.records import AccuracyRecord, LatencyRecord, load, record_path
from tests.bench_kit import OLD_PYTHON, SETTINGS, Workshop, model_file
from tests.documents import ROOT

CURRENT_PYTHON = ROOT / ".venvs/bench-current/bin/python"
REQUIREMENTS = ROOT / "requirements"


@pytest.mark.parametrize("name", engine_names())
def test_every_variant_is_the_version_that_its_environment_pins(name: str) -> None:
    plugin = name.partition("-")[0]
    pins = (REQUIREMENTS / f"{engine_environment(name)}.txt").read_text(encoding="utf-8")
    assert re.search(rf"^{plugin}==(\S+)", pins, re.MULTILINE)[1] == engine_version(name).split()[1]  # type: ignore[index]


def test_every_bench_environment_is_some_variant_s() -> None:
    environments = {path.stem for path in REQUIREMENTS.glob("bench-*.txt")}
    assert {engine_environment(name) for name in engine_names()} == environments


def test_an_engine_is_named_with_the_version_that_is_installed() -> None:
    assert runtime_of("onnxruntime-current") == engine_version("onnxruntime-current")
    assert isinstance(load_engine("onnxruntime-current"), Engine)


def test_a_variant_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(HarnessError, match=r"engine 'onnxruntime' has no variant '9'; allowed: 1\.16\.0, current"):
        engine_version("onnxruntime-9")


# --- Opening a file --------------------------------------------------------------------------------------------------


@pytest.fixture
def engine() -> Engine:
    return load_engine("onnxruntime-current")


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_truncated_file_is_not_the_one_of_the_job(workshop: Workshop, engine: Engine, keep: int) -> None:
    model = workshop.model("student")
    model.onnx.write_bytes(model.onnx.read_bytes()[:keep])
    with pytest.raises(HarnessError, match=r"student\.onnx: sha256 is .*export student again"):
        open_model(engine, model, 1)


def test_a_file_that_the_engine_cannot_load_is_named_with_its_version(workshop: Workshop, engine: Engine) -> None:
    model = workshop.model("student")
    model.onnx.write_bytes(model.onnx.read_bytes()[:100])
    damaged = model_file("student", model.onnx, file_sha256(model.onnx))
    said = rf"student\.onnx: version {re.escape(engine.version())} of the engine cannot load it \(.*export the model"
    with pytest.raises(HarnessError, match=said):
        open_model(engine, damaged, 1)


def test_running_out_of_memory_is_not_taken_for_a_bad_file(workshop: Workshop) -> None:
    class Hungry(type(load_engine("onnxruntime-current"))):  # type: ignore[misc]
        def open(self, model: bytes, threads: int) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        open_model(Hungry(), workshop.model("student"), 1)


# --- A new engine is one file ----------------------------------------------------------------------------------------

# onnx's own reference implementation: slow, and in every environment that has onnx.
REFERENCE = dedent(
    f"""
    import onnx
    from onnx.reference import ReferenceEvaluator

    from harness.bench.engines import INPUT, OUTPUT, Engine

    TITLE = "ONNX reference"
    VARIANTS = {{"slow": {{"version": "{onnx.__version__}", "environment": "bench-current"}}}}


    class Reference(Engine):
        def version(self):
            return onnx.__version__

        def options(self, threads):
            return {{"threads": threads}}

        def open(self, model, threads):
            evaluator = ReferenceEvaluator(onnx.load_model_from_string(model))
            return lambda images: evaluator.run([OUTPUT], {{INPUT: images}})[0]

        def facts(self, model, threads):
            return {{"nodes": len(onnx.load_model_from_string(model).graph.node)}}


    ENGINE = Reference()
    """
)


# What `harness bench` does with a job.
RUN_BENCH = """
import sys
from pathlib import Path
from harness.bench.job import Job, read
from harness.commands.bench_job import bench_pythons, run_bench
job = read(Path(sys.argv[1]), Job)
sys.exit(run_bench(job.model_copy(update={"pythons": bench_pythons(job.settings.engines)})))
"""


def files(folder: Path) -> dict[str, bytes]:
    """The package's source files, by their place in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.py")}


def reference_job(workshop: Workshop, engine: str, **changes: Any) -> Job:
    """A job for two models of which one is the teacher, as JSON that only a harness with that engine can read."""
    workshop.testset(count=30, wrong=3)
    condition = [condition_name(engine, 1)]
    files = [workshop.model("teacher", teacher=True), workshop.model("student", weight=2.0)]
    models = [model_file(one.cell, one.onnx, one.onnx_sha256, one.is_teacher, condition) for one in files]
    return workshop.job(*models, settings={**SETTINGS, "engines": [engine]}, **changes)


def check_records(results: Path, condition: str) -> None:
    """Both models have a latency under the condition and an accuracy, measured with the reference engine."""
    for cell in ("teacher", "student"):
        latency = load(record_path(results, "quick", "latency", cell, condition), LatencyRecord)
        accuracy = load(record_path(results, "quick", "accuracy", cell), AccuracyRecord)
        assert latency.latency_ms is not None and latency.ratio_to_teacher is not None
        assert latency.session == accuracy.environment["session"] == {"threads": 1}
        assert latency.runtime == accuracy.runtime == f"reference {onnx.__version__}"
        assert (accuracy.correct, accuracy.images) == (27, 30)
        assert (accuracy.convolutions, accuracy.environment["engine_facts"]) == (None, {"nodes": 3})


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package: a file in this one's folder of engines would be there for all other tests as well."""
    shutil.copytree(ROOT / "harness", tmp_path / "checkout/harness", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "checkout/.venvs").symlink_to(ROOT / ".venvs")
    return tmp_path / "checkout"


@pytest.mark.skipif(not CURRENT_PYTHON.is_file(), reason="no .venvs/bench-current: `make setup` makes it")
def test_a_file_dropped_into_the_folder_is_an_engine_that_can_be_measured(checkout: Path, workshop: Workshop) -> None:
    before = files(checkout / "harness")
    (checkout / "harness/bench/engines/reference.py").write_text(REFERENCE)
    after = files(checkout / "harness")
    assert [name for name in after if after[name] != before.get(name)] == ["bench/engines/reference.py"]

    condition = "reference-slow-threads-1"
    text = reference_job(workshop, "onnxruntime-current").model_dump_json()
    text = text.replace('"onnxruntime-current"', '"reference-slow"').replace("onnxruntime-current-threads-1", condition)
    (workshop.folder / "job.json").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", RUN_BENCH, str(workshop.folder / "job.json")],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"reference {onnx.__version__}, 1 thread\n" in done.stdout
    check_records(workshop.folder / "results", condition)


def test_an_engine_of_another_package_can_be_measured(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere/mine").mkdir(parents=True)
    (tmp_path / "elsewhere/mine/__init__.py").touch()
    text = REFERENCE.replace("ENGINE = Reference()", "reference = Reference()")
    (tmp_path / "elsewhere/mine/slow.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    job = reference_job(workshop, "mine.slow:reference-slow")
    assert job.settings.conditions == ["reference-slow-threads-1"]
    assert run(job) == 0
    check_records(job.results, "reference-slow-threads-1")


@pytest.mark.skipif(not OLD_PYTHON.is_file(), reason="no .venvs/bench-1.16.0: `make setup` makes it")
def test_an_environment_needs_nothing_of_the_others_to_ask_its_engine() -> None:
    command = [str(OLD_PYTHON), "-m", "harness.bench.ask", "onnxruntime-1.16.0", "1", "2"]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["runtime"] == "onnxruntime 1.16.0"
    assert [options["intra_op_num_threads"] for options in said["options"]] == [1, 2]
