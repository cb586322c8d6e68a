from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from harness.bench import latency, latency_records
from harness.bench.blocks import conditions
from harness.bench.context import Context, Limits
from harness.bench.job import Assignment, Job
from harness.bench.latency import BESIDE_EVERY, LEAST_BESIDE, to_process
from harness.bench.latency_records import measure_latencies
from harness.bench.model_input import model_input
from harness.bench.process import EngineAnswer
from harness.host.facts import activity
from harness.host.isa.shown import HOST
from harness.intervals import estimate, percentile, undisturbed
from harness.store.records import Failure, Interval, LatencyRecord, Process, load, record_path
from tests.bench_kit import HEADLINE, SETTINGS, Workshop, machine

BESIDE = "onnxruntime-current-host-threads-2"
TIMEOUT = Failure(kind="timeout", message="no result within 600 s")


SEEN: dict[str, Any] = {"way": "none", "cpuid": ["avx2"], "numpy": [], "engine": {"nchwc_block": 8}}


def entry(samples: list[float], rounds: int, seen: dict[str, Any] = SEEN) -> dict[str, Any]:
    info = {"first_inference_ms": 3.0, "warmup_rounds": 2, "cpus": [1], "peak_rss_bytes": 5, "involuntary_switches": 6}
    info |= {"rounds": rounds, "distinct_inputs": min(rounds, 256), "output_shapes": [[1, 3]], "instruction_set": seen}
    return {"stats": {"data": samples}, "extra_info": info, "said": []}


# --- One process -----------------------------------------------------------------------------------------------------


def test_seconds_become_milliseconds_and_samples_become_a_few_figures() -> None:
    samples = [0.001 * (index % 7 + 1) for index in range(64)]
    found = to_process(entry(samples, 64), block=2, order=9, source=Path("x"))
    assert isinstance(found, Process)
    in_ms = [1000 * sample for sample in samples]
    assert (found.low_ms, found.median_ms, found.p90_ms) == (
        undisturbed(in_ms),
        percentile(in_ms, 50),
        percentile(in_ms, 90),
    )
    assert 1 <= found.low_ms <= 1.1
    assert (found.block, found.order, found.rounds, found.cpus, found.involuntary_switches) == (2, 9, 64, [1], 6)


def test_a_high_percentile_of_few_samples_is_not_made_up() -> None:
    found = to_process(entry([0.001] * 63, 63), 0, 0, Path("x"))
    assert isinstance(found, Process)
    assert found.median_ms == pytest.approx(1)
    assert found.p90_ms is None


@pytest.mark.parametrize(("count", "rounds"), [(10, 10), (10, 11), (12, 11), (0, 11)])
def test_too_few_or_too_many_samples_are_a_failure(count: int, rounds: int) -> None:
    found = to_process(entry([0.001] * count, rounds), 0, 0, Path("raw.json"))
    assert found == Failure(kind="error", message=f"raw.json: {count} samples where {rounds} were timed")


# --- A whole run, with processes that only say that they measured ----------------------------------------------------


def steady(one: str, block: int) -> float:
    """The teacher takes 2 ms, every other model 1 ms; two threads halve it; some blocks are slow throughout."""
    alone = 2.0 if one.startswith("teacher") else 1.0
    return alone * (1.5 if block % 4 == 1 else 1.0) / (2 if one.endswith(BESIDE) else 1)


@dataclass
class Machine:
    """Answers for the processes: how many ms, or what went wrong. Each of them takes a second."""

    folder: Path
    took: Callable[[str, int], float | Failure] = steady
    clock: float = 0.0
    calls: list[tuple[int, str]] = field(default_factory=list)
    pythons: set[Path | None] = field(default_factory=set)

    def measure(self, _: str, given: Assignment, output: Path, __: float, python: Path | None) -> Any:
        one = output.stem.removeprefix(f"latency-block{given.block:03d}-")
        self.calls.append((given.block, one))
        self.pythons.add(python)
        self.clock += 1
        took = self.took(one, given.block)
        return took if isinstance(took, Failure) else entry([took / 1000] * 64, 64)

    def blocks(self, one: str) -> list[int]:
        """The blocks that had this model (or its control) under the headline, or under the condition that is named."""
        return [block for block, called in self.calls if called == (one if "." in one else f"{one}.{HEADLINE}")]

    def run(self, *cells: str, **settings: Any) -> "Ran":
        """A run of these cells from beginning to end."""
        workshop = Workshop(self.folder)
        models = [workshop.model(cell, teacher=cell == "teacher") for cell in cells]
        fields = {
            "settings": {**SETTINGS, "minutes_per_model": 2.0, **settings},
            "pythons": {"onnxruntime-current": "/opt/python"},
        }
        job = workshop.job(*models, **fields)
        context = Context(
            job=job,
            limits=Limits(),
            conditions=conditions(job.settings, machine([[0], [1], [2]])),
            engines={"onnxruntime-current": EngineAnswer("onnxruntime 9.9", {1: {"threads": 1}, 2: {"threads": 2}})},
            shown={("onnxruntime-current", "host"): HOST},
            inputs={model.cell: model_input(model) for model in models},
            testset_sha256="",
            environment={"run": "r1", "harness_revision": "unknown"},
            scratch=self.folder,
        )
        measure_latencies(context, models)
        return Ran(job)


@dataclass
class Ran:
    job: Job

    def record(self, cell: str, condition: str = HEADLINE) -> LatencyRecord:
        return load(record_path(self.job.results, self.job.profile, "latency", cell, condition), LatencyRecord)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    bench = Machine(tmp_path)
    monkeypatch.setattr(latency, "measure", bench.measure)
    monkeypatch.setattr(latency, "time", SimpleNamespace(monotonic=lambda: bench.clock))
    return bench


def noisy(*ones: str) -> Callable[[str, int], float]:
    """Steady, except for these: each of their processes takes up to twice as long, at random."""

    def took(one: str, block: int) -> float:
        noise = Random(f"{one} {block}").random() if one.removesuffix(f".{HEADLINE}") in ones else 0.0
        return steady(one, block) * (1 + noise)

    return took


def test_a_run_ends_when_everything_is_precise_twice_in_a_row(
    bench: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = bench.run("teacher", "student", blocks=5, precision_pct=1.0)
    everything = sorted(f"{one}.{HEADLINE}" for one in ("teacher", "teacher-control", "student"))
    for block in range(6):
        assert sorted(one for where, one in bench.calls if where == block) == everything
    assert len(bench.calls) == 6 * 3
    lines = capsys.readouterr().err.splitlines()
    # an interval from one block or two is none
    assert [line.split(", ")[2] for line in lines[:2]] == ["no intervals from so few blocks"] * 2
    assert not [line for line in lines[:2] if "±" in line]
    assert lines[-1].startswith("latency: block 6 done, 2 of 2 settled, widest ±0.00 % (")
    assert not [line for line in lines if "time is up" in line]
    assert ran.record("student").status == "done"
    assert bench.pythons == {Path("/opt/python")}


def test_a_record_is_what_its_processes_say(bench: Machine) -> None:
    ran = bench.run("teacher", "student")
    teacher, student = ran.record("teacher"), ran.record("student")
    for record in (teacher, student):
        observed = [process.low_ms for process in record.processes]
        assert record.latency_ms is not None
        assert record.latency_ms.value == estimate(observed)
        assert (record.condition, record.threads, record.runtime) == (HEADLINE, 1, "onnxruntime 9.9")
        assert (record.environment["measured_cpus"], record.environment["run"]) == ([1], "r1")
        assert (record.key, record.session) == (f"latency-{record.cell}-{HEADLINE}", {"threads": 1})
        assert record.spec and record.code
        assert record.median_ms == percentile(observed * 11, 50)
        assert record.p90_ms == record.median_ms
    assert teacher.ratio_to_teacher is not None
    assert student.ratio_to_teacher is not None
    assert (teacher.ratio_to_teacher.value, student.ratio_to_teacher.value) == (1, 0.5)
    orders = [process.order for record in (teacher, student) for process in record.processes]
    orders += [process.order for process in teacher.control]
    assert sorted(orders) == list(range(len(bench.calls)))


def test_the_teachers_record_holds_the_control(bench: Machine) -> None:
    bench.took = lambda one, block: steady(one, block) * (1.02 if "control" in one else 1)
    ran = bench.run("teacher", "student")
    teacher, student = ran.record("teacher"), ran.record("student")
    assert teacher.control_ratio is not None
    assert teacher.control_ratio.value == pytest.approx(1.02)
    assert [one.block for one in teacher.control] == [one.block for one in teacher.processes]
    assert (student.control_ratio, student.control) == (None, [])


def test_what_has_settled_rests_while_the_others_and_their_teacher_are_measured_on(bench: Machine) -> None:
    bench.took = noisy("late")
    bench.run("teacher", "early", "late", precision_pct=1.0, minutes_per_model=1.0)
    assert bench.blocks("early") == [0, 1, 2, 3]
    assert len(bench.blocks("late")) > 10
    assert bench.blocks("late") == bench.blocks("teacher") == bench.blocks("teacher-control")


def test_a_noisy_control_keeps_the_run_going_as_well(bench: Machine) -> None:
    bench.took = noisy("teacher-control")
    bench.run("teacher", "student", precision_pct=1.0, minutes_per_model=0.5)
    assert len(bench.blocks("student")) == 4
    assert len(bench.blocks("teacher-control")) > 4


def test_the_time_limit_is_kept_and_what_is_still_imprecise_is_reported(
    bench: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.took = noisy("late", "later")
    ran = bench.run("teacher", "early", "late", "later", precision_pct=1.0, minutes_per_model=0.5)
    limit_s, block_s = 4 * 30, 4
    assert limit_s - 2 * block_s < bench.clock <= limit_s
    *_, block, last = capsys.readouterr().err.splitlines()
    widest = block[block.index("widest") :].partition(", ")[0]
    said = f"the time is up with 2 of 4 not known to ±1 %, {widest}; "
    assert last == f"latency: {said}raise bench.minutes_per_model (0.5) or use a quieter machine"
    assert ran.record("late").status == "done"


@pytest.mark.parametrize("students", [["student"], ["one", "two", "three", "four", "five", "six", "seven"]])
def test_what_is_precise_is_not_reported_as_imprecise_for_not_having_settled(
    bench: Machine, capsys: pytest.CaptureFixture[str], students: list[str]
) -> None:
    """The time is up after three blocks, when every ratio has been precise once and would settle with a fourth."""
    ran = bench.run("teacher", *students, blocks=3, precision_pct=10.0, minutes_per_model=0.01)
    assert bench.blocks("teacher") == [0, 1, 2]
    (*_, last) = capsys.readouterr().err.splitlines()
    assert last.startswith(f"latency: block 3 done, 0 of {1 + len(students)} settled, widest ±0.00 % (")
    assert ran.record(students[0]).status == "done"


def test_one_imprecise_model_among_precise_ones_is_counted_and_named(
    bench: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.took = noisy("late")
    bench.run("teacher", "early", "late", blocks=3, precision_pct=1.0, minutes_per_model=0.01)
    (*_, last) = capsys.readouterr().err.splitlines()
    assert last.startswith("latency: the time is up with 1 of 3 not known to ±1 %, widest ±")
    assert " % (LATE); raise " in last


def test_a_latency_from_too_few_processes_has_no_interval(bench: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    record = bench.run("model", blocks=3, precision_pct=10.0, minutes_per_model=0.01).record("model")
    assert record.latency_ms == Interval(value=1.0)
    said = "the time is up with 1 of 1 not known to ±10 %, no intervals from so few blocks; "
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"latency: {said}")


def test_the_fewest_blocks_are_measured_however_long_they_take(bench: Machine) -> None:
    bench.took = noisy("student")
    bench.run("teacher", "student", blocks=5, precision_pct=1.0, minutes_per_model=1e-6)
    assert bench.blocks("student") == [0, 1, 2, 3, 4]


def test_without_a_teacher_the_latency_itself_has_to_be_precise(bench: Machine) -> None:
    bench.took = lambda one, block: noisy("restless")(one, 0 if one.startswith("calm") else block)
    ran = bench.run("calm", "restless", precision_pct=1.0, minutes_per_model=0.5)
    # six processes are the fewest that a latency's own interval is given from
    assert bench.blocks("calm") == list(range(7))
    assert len(bench.blocks("restless")) > 10
    record = ran.record("restless")
    assert (record.ratio_to_teacher, record.control_ratio, record.latency_ms is None) == (None, None, False)
    assert not any("teacher" in warning for warning in record.warnings)


def test_a_model_that_fails_is_left_out_and_the_others_are_measured_on(
    bench: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.took = lambda one, block: TIMEOUT if (one, block) == (f"bad.{HEADLINE}", 1) else steady(one, block)
    ran = bench.run("teacher", "good", "bad")
    assert bench.blocks("bad") == [0, 1]
    assert bench.blocks("good") == [0, 1, 2, 3]
    record = ran.record("bad")
    assert (record.status, record.failure, record.latency_ms, record.processes) == ("failed", TIMEOUT, None, [])
    assert record.condition == HEADLINE
    assert ran.record("good").ratio_to_teacher is not None
    assert "latency: BAD failed (timeout): no result within 600 s" in capsys.readouterr().err


def test_where_the_teacher_fails_during_the_run_students_have_latencies_and_no_ratios(bench: Machine) -> None:
    bench.took = lambda one, block: TIMEOUT if (one, block) == (f"teacher.{HEADLINE}", 2) else steady(one, block)
    ran = bench.run("teacher", "student")
    assert ran.record("teacher").failure == TIMEOUT
    record = ran.record("student")
    assert record.latency_ms is not None
    assert record.ratio_to_teacher is None
    assert "no ratio: the teacher's latency could not be measured" in record.warnings


def test_where_the_control_fails_the_record_has_no_control(bench: Machine) -> None:
    bench.took = lambda one, block: TIMEOUT if "control" in one else steady(one, block)
    ran = bench.run("teacher", "student")
    assert ran.record("teacher").control_ratio is None
    assert ran.record("teacher").status == "done"
    assert ran.record("student").ratio_to_teacher is not None


def test_conditions_beside_the_headline_are_in_some_blocks_and_do_not_prolong_the_run(
    bench: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.took = lambda one, block: steady(one, block) * (1 + (block % 8 == 0) * one.endswith(BESIDE))
    ran = bench.run("teacher", "student", threads=[1, 2], blocks=9, precision_pct=1.0)
    assert bench.blocks("student") == list(range(10))
    assert "block 10 done, 2 of 2 settled" in capsys.readouterr().err
    beside = [block for block in range(10) if block < LEAST_BESIDE or block % BESIDE_EVERY == 0]
    for one in ("teacher", "teacher-control", "student"):
        assert bench.blocks(f"{one}.{BESIDE}") == beside
    record = ran.record("student", BESIDE)
    assert (record.condition, record.threads, record.environment["measured_cpus"]) == (BESIDE, 2, [1, 2])
    assert len(record.processes) == len(beside)
    assert record.ratio_to_teacher is not None
    assert record.ratio_to_teacher.value == 0.5
    assert ran.record("teacher", BESIDE).control_ratio is not None


def test_each_block_is_shuffled_and_has_everything_once(bench: Machine) -> None:
    bench.run("teacher", "a", "b", "c", threads=[1, 2], blocks=9)
    orders = [[one for where, one in bench.calls if where == block] for block in range(10)]
    assert all(max(Counter(order).values()) == 1 for order in orders)
    assert len({tuple(order) for order in orders if len(order) == 5}) > 3
    # conditions take turns as well
    mixed = [one.endswith(BESIDE) for one in orders[0]]
    assert mixed not in (sorted(mixed), sorted(mixed, reverse=True))


def test_raw_files_of_an_earlier_run_are_removed(bench: Machine) -> None:
    old = bench.folder / "raw" / "latency-block099-student.onnxruntime-current-host-threads-1.json"
    old.parent.mkdir()
    old.write_text("{}")
    bench.run("student")
    assert not old.exists()


def test_what_the_machine_did_during_the_run_is_on_record(bench: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict.fromkeys(activity(), 0.0)
    after = before | {"ticks": 1000.0, "stolen_ticks": 50.0, "throttled": 3.0, "cpu_pressure_us": 2e6, "khz": 3e6}
    found = iter([before, after])
    monkeypatch.setattr(latency_records, "activity", lambda: next(found))
    record = bench.run("student").record("student")
    facts = {"steal_pct": 5, "nr_throttled": 3, "cpu_pressure_s": 2, "mhz_before": None, "mhz_after": 3000}
    assert facts.items() <= record.environment.items()
    assert any("the hypervisor gave 5.0 % of the CPU time to others" in warning for warning in record.warnings)


def test_warnings_about_processes_far_apart_are_worded_alike_for_all_rows(bench: Machine) -> None:
    bench.took = lambda one, block: 1 + block % 2 * (0.3 if one.startswith("one") else 0.4)
    ran = bench.run("one", "two")
    first, second = ran.record("one").warnings, ran.record("two").warnings
    assert first == second != []
