import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.bench.bench_run import run
from harness.bench.engines import Engine, load_engine, open_model, runtime_of
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.bench_settings import engine_environment, engine_names, engine_version
from tests.bench_kit import OLD_PYTHON, SETTINGS, Workshop, model_file
from tests.documents import ROOT
from tests.engine_drop_in import CONDITION, REFERENCE, check_records, reference_job, walk

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
    said = rf"student\.onnx: version {re.escape(engine.version())} of the engine cannot load it \(.*export student"
    with pytest.raises(HarnessError, match=said):
        open_model(engine, damaged, 1)


def test_running_out_of_memory_is_not_taken_for_a_bad_file(workshop: Workshop) -> None:
    class Hungry(type(load_engine("onnxruntime-current"))):  # type: ignore[misc]
        def open(self, model: bytes, threads: int) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        open_model(Hungry(), workshop.model("student"), 1)


# --- A new engine is one file ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not CURRENT_PYTHON.is_file(), reason="no .venvs/bench-current: `make setup` makes it")
def test_one_file_dropped_into_the_folder_is_an_engine_that_can_be_measured(tmp_path: Path) -> None:
    assert walk(tmp_path) == 1


def test_an_engine_of_another_package_can_be_measured(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere/mine").mkdir(parents=True)
    (tmp_path / "elsewhere/mine/__init__.py").touch()
    text = REFERENCE.replace("ENGINE = Reference()", "reference = Reference()")
    (tmp_path / "elsewhere/mine/slow.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    job = reference_job(workshop, "mine.slow:reference-slow")
    assert job.settings.conditions == [CONDITION]
    assert run(job) == 0
    check_records(job.results)


def test_an_engine_of_a_package_that_is_not_on_python_s_path_says_what_to_do(workshop: Workshop) -> None:
    with pytest.raises(ValueError, match=r"there is no module mine\.fast on Python's path; set PYTHONPATH"):
        workshop.job(workshop.model("student"), settings={**SETTINGS, "engines": ["mine.fast:ENGINE-1"]})


@pytest.mark.skipif(not OLD_PYTHON.is_file(), reason="no .venvs/bench-1.16.0: `make setup` makes it")
def test_an_environment_needs_nothing_of_the_others_to_ask_its_engine() -> None:
    command = [str(OLD_PYTHON), "-m", "harness.bench.ask", "onnxruntime-1.16.0", "1", "2"]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["runtime"] == "onnxruntime 1.16.0"
    assert [options["intra_op_num_threads"] for options in said["options"]] == [1, 2]
