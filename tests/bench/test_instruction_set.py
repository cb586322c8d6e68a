"""The instruction set in real processes of the bench: shown, proven and on record, or no figure at all."""

import ctypes
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.bench import bench_run
from harness.bench.bench_run import run
from harness.bench.engines import load_engine
from harness.bench.instruction_set import evidence, require_shown
from harness.bench.job import Assignment, Job
from harness.bench.model_input import model_input
from harness.bench.process import measure
from harness.errors import HarnessError
from harness.host.isa.copies import LIBRARY
from harness.host.isa.shown import HOST, Shown, host_flags, masked, show
from harness.plan.cpu_table import find_cpu
from harness.store.records import AccuracyRecord, Failure, InstructionSet, LatencyRecord, load, record_path
from tests.bench_kit import OLD_ENGINE, SETTINGS, Workshop
from tests.shown_kit import like_target, on_x86_64, with_compiler

pytestmark = [on_x86_64, with_compiler]
TARGET = find_cpu("i9-9900K")
CPU = min(os.sched_getaffinity(0))


def measured(
    workshop: Workshop, python: Path, shown: Shown, suite: str = "latency_suite.py"
) -> dict[str, Any] | Failure:
    """What one process of the bench gives that is started so."""
    job = workshop.job(workshop.model("student"))
    given = Assignment(
        model=job.models[0],
        input=model_input(job.models[0]),
        testset=job.testset,
        settings=job.settings,
        harness_revision="abc",
        engine=OLD_ENGINE,
        shown=shown,
        threads=1,
        cpus=[CPU],
        failure=workshop.folder / "failure.json",
    )
    return measure(suite, given, workshop.folder / "out.json", 120, python)


@pytest.fixture
def python(environments: Path) -> Path:
    return environments / "bench-1.16.0/bin/python"


@like_target
@pytest.mark.parametrize("suite", ["latency_suite.py", "accuracy_suite.py"])
def test_a_process_that_is_shown_the_target_proves_it(workshop: Workshop, python: Path, suite: str) -> None:
    shown = show("target", TARGET, OLD_ENGINE, python)
    found = measured(workshop, python, shown, suite)
    assert isinstance(found, dict), found
    seen = InstructionSet.model_validate(found["extra_info"]["instruction_set"])
    assert (seen.way, seen.cpuid) == (shown.way, sorted(TARGET.features))
    assert seen.engine == {"nchwc_block": 8, "exact_byte_sums": False}
    assert "AVX2" in seen.numpy and not any(name.startswith("AVX512") for name in seen.numpy)


def test_a_process_that_is_shown_nothing_sees_the_host(workshop: Workshop, python: Path) -> None:
    found = measured(workshop, python, HOST)
    assert isinstance(found, dict), found
    seen = InstructionSet.model_validate(found["extra_info"]["instruction_set"])
    assert (seen.way, seen.cpuid) == ("none", sorted(host_flags()))


def test_with_the_library_loaded_and_nothing_masked_the_engine_sees_the_host(workshop: Workshop, python: Path) -> None:
    found = measured(workshop, python, masked(OLD_ENGINE, python, None))
    assert isinstance(found, dict), found
    plain = measured(workshop, python, HOST)
    assert isinstance(plain, dict)
    one, other = (InstructionSet.model_validate(each["extra_info"]["instruction_set"]) for each in (found, plain))
    assert (one.cpuid, one.engine) == (other.cpuid, other.engine)
    assert one.way != "none"


@like_target
def test_a_process_that_does_not_get_what_it_asked_for_measures_nothing(workshop: Workshop, python: Path) -> None:
    shown = masked(OLD_ENGINE, python, TARGET.features)
    # as where the loader ignores LD_PRELOAD
    unloaded = {name: value for name, value in shown.variables.items() if name != "LD_PRELOAD"}
    found = measured(workshop, python, replace(shown, variables=unloaded, path=()))
    assert isinstance(found, Failure) and "the library that answers CPUID was not preloaded" in found.message
    # the library masks nothing, and the target was wanted
    found = measured(workshop, python, replace(shown, variables={**shown.variables, "HARNESS_CPUID_KEEP": ""}))
    if host_flags() - TARGET.features:
        assert isinstance(found, Failure) and "CPUID shows " in found.message and "the target lacks" in found.message
    # the library cannot do what it is asked for
    found = measured(workshop, python, replace(shown, variables={**shown.variables, "HARNESS_CPUID_WAY": "magic"}))
    assert isinstance(found, Failure)
    assert "the instruction set that was asked for is not shown; see " in found.message
    assert 'HARNESS_CPUID_WAY is "magic"' in (workshop.folder / "out.log").read_text()
    assert not (workshop.folder / "out.json").exists()


def test_a_process_of_a_cpu_that_it_is_not_shown_is_refused_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process nothing is preloaded."""
    wanted = Shown("target", "patched", TARGET.features)
    if hasattr(ctypes.CDLL(None), "harness_cpuid"):
        pytest.skip("the tests themselves are shown an instruction set")
    with pytest.raises(HarnessError, match="was not preloaded; is this Python linked statically"):
        require_shown(wanted)
    require_shown(HOST)
    engine = load_engine("onnxruntime-current")
    monkeypatch.setattr(type(engine), "kernels", lambda *_: {"nchwc_block": 4})
    with pytest.raises(
        HarnessError, match="not the instruction set that was asked for: the engine blocks channels by 4"
    ):
        evidence(HOST, engine, 1)


# --- A whole run -----------------------------------------------------------------------------------------------------


def job(workshop: Workshop, python: Path, isa: list[str]) -> Job:
    settings = {**SETTINGS, "engines": [OLD_ENGINE], "isa": isa}
    return workshop.job(workshop.model("student"), settings=settings, pythons={OLD_ENGINE: str(python)})


@like_target
def test_target_and_host_are_measured_side_by_side_and_accuracy_under_the_headlines(
    workshop: Workshop, python: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = job(workshop, python, ["target", "host"])
    assert run(asked) == 0
    found = {}
    for name in asked.settings.conditions:
        record = load(record_path(asked.results, "quick", "latency", "student", name), LatencyRecord)
        assert record.instruction_set
        found[name] = record.instruction_set.way
        assert record.key == asked.models[0].latency[name].key
        assert "isa_obstacle" not in record.environment or record.environment["isa_obstacle"] is None
    assert list(found) == [f"{OLD_ENGINE}-target-threads-1", f"{OLD_ENGINE}-host-threads-1"]
    assert found[f"{OLD_ENGINE}-target-threads-1"] in ("faulting", "patched")
    assert found[f"{OLD_ENGINE}-host-threads-1"] == "none"
    accuracy = load(record_path(asked.results, "quick", "accuracy", "student"), AccuracyRecord)
    assert accuracy.instruction_set and accuracy.instruction_set.way != "none"
    assert accuracy.key == asked.models[0].accuracy["target"].key
    capsys.readouterr()
    assert run(asked) == 0
    assert "Nothing to bench" in capsys.readouterr().out


def test_where_the_target_cannot_be_shown_a_line_says_so_and_figures_are_the_hosts(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str], python: Path
) -> None:
    # an environment without what `make setup` makes
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "bench-1.16.0").symlink_to(python.parents[1])
    bare = tmp_path / "bare/bench-1.16.0/bin/python"
    assert run(job(workshop, bare, ["target"])) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "instruction set of this machine" in line]
    assert line.startswith("Measured under the instruction set of this machine, not the Intel Core i9-9900K's: ")
    assert LIBRARY in line or "lacks" in line
    asked = job(workshop, bare, ["target"])
    assert not record_path(asked.results, "quick", "latency", "student", f"{OLD_ENGINE}-target-threads-1").exists()
    host = f"{OLD_ENGINE}-host-threads-1"
    record = load(record_path(asked.results, "quick", "latency", "student", host), LatencyRecord)
    assert record.instruction_set and record.instruction_set.way == "none"
    assert record.key == asked.models[0].latency[host].key
    assert line.endswith(record.environment["isa_obstacle"])
    accuracy = load(record_path(asked.results, "quick", "accuracy", "student"), AccuracyRecord)
    assert accuracy.key == asked.models[0].accuracy["host"].key


def test_processes_that_see_different_things_give_no_figure(
    workshop: Workshop, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a container is moved to another host in the middle of a run."""
    calls = [0]

    def other_from_the_second_on(*arguments: Any) -> dict[str, Any] | Failure:
        entry = measure(*arguments)
        calls[0] += 1
        if isinstance(entry, dict) and calls[0] > 1:
            entry["extra_info"]["instruction_set"]["cpuid"].append("avx512f")
        return entry

    monkeypatch.setattr("harness.bench.latency.measure", other_from_the_second_on)
    asked = job(workshop, python, ["host"])
    assert bench_run.run(asked) == 1
    record = load(
        record_path(asked.results, "quick", "latency", "student", f"{OLD_ENGINE}-host-threads-1"), LatencyRecord
    )
    assert record.failure and "another instruction set than in earlier processes" in record.failure.message
