import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import helper

from harness.bench import process
from harness.bench.engines import runtime_of
from harness.bench.job import Assignment
from harness.bench.model_input import model_input
from harness.bench.process import EngineAnswer, ask_engine, describe, measure, own_environment
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.host.memory_limit import machine_bytes
from harness.plan.bench_settings import Bench
from harness.store.records import Failure
from tests.bench_kit import OLD_ENGINE, OLD_PYTHON, SETTINGS, Workshop

CPU = min(os.sched_getaffinity(0))
CURRENT = "onnxruntime-current"


def assignment(workshop: Workshop, **changes: object) -> Assignment:
    job = workshop.job(workshop.model("student"))
    made = Assignment(
        model=job.models[0],
        input=model_input(job.models[0]),
        testset=job.testset,
        settings=job.settings,
        harness_revision="abc",
        run="run-1",
        engine=CURRENT,
        threads=1,
        cpus=[CPU],
        failure=workshop.folder / "failure.json",
    )
    return made.model_copy(update=changes)


def planted(workshop: Workshop, body: str) -> str:
    """A suite that goes wrong in some way; an absolute path, which is taken as it is."""
    path = workshop.folder / "planted_suite.py"
    path.write_text(f"import os, signal, time\ndef test_it():\n    {body}\n")
    return str(path)


def failing(workshop: Workshop, suite: str, timeout_s: float = 60) -> Failure:
    output = workshop.folder / "out.json"
    found = measure(suite, assignment(workshop), output, timeout_s)
    assert isinstance(found, Failure)
    assert output.with_suffix(".log").exists()
    return found


def test_the_latency_suite_measures_in_a_fresh_pinned_process(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    found = measure("latency_suite.py", assignment(workshop, block=1), workshop.folder / "out.json", 60)
    assert isinstance(found, dict)
    info = found["extra_info"]
    assert len(found["stats"]["data"]) == info["rounds"] >= 11
    assert (info["cell"], info["block"], info["cpus"], info["warmup_rounds"]) == ("student", 1, [CPU], 2)
    assert info["runtime"] == runtime_of(CURRENT)
    assert info["session"]["intra_op_num_threads"] == 1
    assert info["distinct_inputs"] == min(info["rounds"], 120), "no image is timed again before all others are"
    assert info["first_inference_ms"] > 0
    assert 10 << 20 < info["peak_rss_bytes"] < 2 << 30
    assert not (workshop.folder / "out.log").exists()
    assert not (here / ".benchmarks").exists(), "the working directory may be read-only"


def test_a_process_on_other_cpus_than_the_chosen_ones_fails(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The launcher gets other CPUs than the suite.
    other = max(os.sched_getaffinity(0))
    if other == CPU:
        pytest.skip("one CPU: there is no wrong one to be on")
    real = process._command
    monkeypatch.setattr(process, "_command", lambda python, suite, _, *rest: real(python, suite, [other], *rest))
    assert "not on the chosen" in failing(workshop, "latency_suite.py").message


@pytest.mark.parametrize("name", ["work [gpu]", "$HOME and *"])
def test_a_checkout_may_have_any_name(workshop: Workshop, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """pytest takes a bracket for that of a test's parameters, and a dollar for a variable."""
    checkout = workshop.folder / name
    shutil.copytree(process.ROOT / "harness", checkout / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(process, "ROOT", checkout)
    monkeypatch.setattr(process, "SUITES", checkout / "harness/bench")
    found = measure("latency_suite.py", assignment(workshop), checkout / "out.json", 60)
    assert isinstance(found, dict), found
    assert found["extra_info"]["cell"] == "student"


def test_a_process_is_warmed_up_and_sampled_by_time_as_well_as_by_count(workshop: Workshop) -> None:
    settings = Bench.model_validate(SETTINGS | {"warmup_s": 0.2, "sampling_s": 0.2})
    found = measure("latency_suite.py", assignment(workshop, settings=settings), workshop.folder / "out.json", 60)
    assert isinstance(found, dict)
    assert found["extra_info"]["warmup_rounds"] > 2
    assert len(found["stats"]["data"]) == found["extra_info"]["rounds"] > 11


def test_what_the_engine_prints_is_kept(workshop: Workshop) -> None:
    given = assignment(workshop)
    path = given.model.onnx
    network = onnx.load(path)
    kernel = network.graph.initializer[0]
    network.graph.input.append(helper.make_tensor_value_info(kernel.name, kernel.data_type, kernel.dims))
    onnx.save(network, path)
    given = given.model_copy(update={"model": given.model.model_copy(update={"onnx_sha256": file_sha256(path)})})
    found = measure("latency_suite.py", given, workshop.folder / "out.json", 60)
    assert isinstance(found, dict)
    assert [line for line in found["said"] if "Initializer kernel appears in graph inputs" in line] == found["said"]
    assert len(found["said"]) == 1


def test_a_process_may_take_no_more_memory_than_there_is(workshop: Workshop) -> None:
    script = "import resource; print(*resource.getrlimit(resource.RLIMIT_DATA))"
    command = [sys.executable, "-m", "harness.bench.pinned", str(CPU), "-c", script]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(process.ROOT)}, capture_output=True, text=True, check=True
    )
    soft, hard = map(int, done.stdout.split())
    assert 0 < soft == hard <= machine_bytes()


def test_an_error_keeps_its_own_words(workshop: Workshop) -> None:
    suite_input = assignment(workshop)
    suite_input.model.onnx.write_bytes(b"no model")
    found = measure("accuracy_suite.py", suite_input, workshop.folder / "out.json", 60)
    assert isinstance(found, Failure)
    assert found.kind == "error"
    assert "student.onnx: sha256 is" in found.message


def test_a_process_that_hangs_is_ended(workshop: Workshop) -> None:
    started = time.monotonic()
    found = failing(workshop, planted(workshop, "time.sleep(100)"), timeout_s=1)
    assert (found.kind, time.monotonic() - started < 20) == ("timeout", True)
    assert "within 1 s" in found.message


def test_a_killed_process_is_called_killed(workshop: Workshop) -> None:
    found = failing(workshop, planted(workshop, "os.kill(os.getpid(), signal.SIGKILL)"))
    assert (found.kind, "SIGKILL" in found.message) == ("killed", True)


def test_a_process_that_the_kernel_killed_for_memory(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = iter([3, 4])
    monkeypatch.setattr(process, "oom_kills", lambda: next(kills))
    assert failing(workshop, planted(workshop, "os.kill(os.getpid(), signal.SIGKILL)")).kind == "out-of-memory"


@pytest.mark.parametrize(("body", "said"), [("pass", "no single benchmark"), ("os._exit(3)", "exit code 3")])
def test_a_process_without_a_result_is_an_error(workshop: Workshop, body: str, said: str) -> None:
    found = failing(workshop, planted(workshop, body))
    assert (found.kind, said in found.message) == ("error", True)


def test_an_earlier_result_is_not_taken_for_this_one(workshop: Workshop) -> None:
    (workshop.folder / "out.json").write_text('{"benchmarks": [{"stats": {}}]}')
    (workshop.folder / "failure.json").write_text('{"kind": "timeout", "message": "old"}')
    assert "exit code 3" in failing(workshop, planted(workshop, "os._exit(3)")).message


def test_the_measuring_process_dies_with_a_killed_parent(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(100)"
    command = [sys.executable, "-m", "harness.bench.pinned", str(CPU), "-c", child]
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({command!r}, start_new_session=True)"],
        env={**os.environ, "PYTHONPATH": str(process.ROOT)},
    )
    _wait_for(lambda: mark.exists() and mark.read_text() != "")
    pid = int(mark.read_text())
    assert os.sched_getaffinity(pid) == {CPU}
    parent.kill()
    parent.wait()
    _wait_for(lambda: not _runs(pid))


# --- The engine's own environment ------------------------------------------------------------------------------------


def test_an_engine_says_its_version_and_its_options() -> None:
    found = ask_engine(CURRENT, None, [1, 2])
    assert found == ask_engine(CURRENT, Path(sys.executable), [1, 2])
    assert isinstance(found, EngineAnswer)
    assert found.runtime == runtime_of(CURRENT)
    assert {threads: options["intra_op_num_threads"] for threads, options in found.options.items()} == {1: 1, 2: 2}


def isolated(folder: Path) -> Path:
    """A Python that finds no packages."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(0o755)
    return python


def test_a_python_without_the_engine_is_named_with_its_key(tmp_path: Path) -> None:
    said = r"bench\.engines: onnxruntime-1\.16\.0: .*/python cannot import it \(.*No module named.*\); run: make setup"
    with pytest.raises(HarnessError, match=said):
        ask_engine(OLD_ENGINE, isolated(tmp_path), [1])


def test_a_python_that_is_not_there_is_named_with_its_key(tmp_path: Path) -> None:
    said = r"bench\.engines: onnxruntime-1\.16\.0: .*/none: No such file or directory; run: make setup"
    with pytest.raises(HarnessError, match=said):
        ask_engine(OLD_ENGINE, tmp_path / "none", [1])


def test_an_environment_with_another_version_than_the_variant_s_is_refused() -> None:
    said = rf"bench\.engines: {OLD_ENGINE}: {sys.executable} has {runtime_of(CURRENT)}, not onnxruntime 1\.16\.0; run"
    with pytest.raises(HarnessError, match=said):
        ask_engine(OLD_ENGINE, None, [1])


@pytest.mark.skipif(not OLD_PYTHON.is_file(), reason="no .venvs/bench-1.16.0: `make setup` makes it")
def test_a_suite_runs_where_its_engine_is(workshop: Workshop) -> None:
    there = assignment(workshop, engine=OLD_ENGINE)
    found = measure("latency_suite.py", there, workshop.folder / "out.json", 60, OLD_PYTHON)
    assert isinstance(found, dict)
    assert found["extra_info"]["runtime"] == ask_engine(OLD_ENGINE, OLD_PYTHON, [1]).runtime == "onnxruntime 1.16.0"


IMPOSTOR = """
__version__ = "0.0"
raise SystemExit("the wrong onnxruntime")
"""


def test_the_caller_s_variables_do_not_reach_a_measuring_process(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PYTHONTRACEMALLOC alone makes inference half as slow again, and PYTHONPATH can swap the engine for another."""
    (tmp_path / "onnxruntime.py").write_text(IMPOSTOR)
    monkeypatch.chdir(tmp_path)
    foreign = {"PYTHONPATH": str(tmp_path), "PYTHONTRACEMALLOC": "5", "PYTHONOPTIMIZE": "2", "PYTHONMALLOC": "debug"}
    foreign |= {"PYTEST_ADDOPTS": "--nonsense", "OMP_NUM_THREADS": "7", "MALLOC_ARENA_MAX": "1"}
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    assert ask_engine(CURRENT, None, [1]).runtime == runtime_of(CURRENT)
    found = measure("latency_suite.py", assignment(workshop), workshop.folder / "out.json", 60)
    assert isinstance(found, dict), found
    assert found["extra_info"]["runtime"] == runtime_of(CURRENT)


def test_a_measuring_process_has_the_variables_that_it_is_given_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONTRACEMALLOC", "5")
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    variables = own_environment([CURRENT])
    assert variables["PYTHONPATH"] == str(process.ROOT)
    assert not {"PYTHONTRACEMALLOC", "SOMETHING_ELSE"} & variables.keys()
    assert {"PATH", "OMP_NUM_THREADS"} <= variables.keys()
    shown = subprocess.run(
        [sys.executable, "-c", "import os, tracemalloc; print(tracemalloc.is_tracing(), *sorted(os.environ))"],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    tracing, *names = shown.stdout.split()
    assert tracing == "False"
    assert set(names) - {"LC_CTYPE"} == set(variables)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(true: object) -> None:
    until = time.monotonic() + 20
    while not true():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (HarnessError("x.onnx: bad"), Failure(kind="error", message="x.onnx: bad")),
        (ValueError("a\nb"), Failure(kind="error", message="ValueError: a b")),
        (MemoryError(), Failure(kind="out-of-memory", message="MemoryError: ")),
        (RuntimeError("std::bad_alloc"), Failure(kind="out-of-memory", message="RuntimeError: std::bad_alloc")),
    ],
)
def test_exceptions_become_failures(error: BaseException, failure: Failure) -> None:
    assert describe(error) == failure
