from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench.blocks import (
    Settling,
    Subject,
    accuracy_is_current,
    block_order,
    conditions,
    latencies_are_current,
    subjects,
)
from harness.bench.job import ModelFile
from harness.errors import HarnessError
from harness.host.cpus import Topology
from harness.plan.bench_settings import Bench
from harness.store.records import AccuracyRecord, Failure, Interval, LatencyRecord
from tests.bench_kit import HEADLINE, SETTINGS, machine, model_file

MODELS = [model_file(cell, Path("x"), "0" * 64, cell == "teacher") for cell in ("teacher", "student")]


def bench(**changes: Any) -> Bench:
    return Bench.model_validate(SETTINGS | changes)


# --- Under which conditions ------------------------------------------------------------------------------------------

ONE_CORE, NO_SMT = machine([[0]]), machine([[0], [1], [2], [3]])
TEN_CORES = machine([[cpu, cpu + 10] for cpu in range(10)])
SOCKETS = machine([[cpu] for cpu in range(8)], nodes=[0] * 4 + [1] * 4)
HYBRID = machine([[0, 1], [2, 3], *([cpu] for cpu in range(4, 12))], speeds=[5] * 2 + [3] * 8)


@pytest.mark.parametrize(
    ("picture", "cpus"),
    [
        (ONE_CORE, (0,)),
        (NO_SMT, (0, 1, 2, 3)),
        # no more than the eight that the target has
        (TEN_CORES, (1, 2, 3, 4, 5, 6, 7, 8)),
        # a session over two nodes or two kinds of cores would measure their differences
        (SOCKETS, (0, 1, 2, 3)),
        (HYBRID, (0, 2)),
        (machine([[0, 4], [1, 5]], {1, 5}), (1,)),
    ],
)
def test_all_threads_are_those_of_the_target_or_of_this_machine(picture: Topology, cpus: tuple[int, ...]) -> None:
    (found,) = conditions(bench(threads=["all"]), picture)
    assert (found.name, found.threads, found.cpus, found.warnings) == (
        "onnxruntime-current-host-threads-all",
        len(cpus),
        cpus,
        (),
    )


def test_every_engine_is_combined_with_every_number_of_threads_the_headline_first() -> None:
    engines = ["onnxruntime-1.16.0", "onnxruntime-current"]
    settings = bench(engines=engines, threads=[1, 2, "all"])
    found = conditions(settings, NO_SMT)
    assert [condition.name for condition in found] == settings.conditions
    assert [(condition.engine, condition.threads) for condition in found] == [
        (engine, threads) for engine in engines for threads in (1, 2, 4)
    ]
    assert found[0].name == "onnxruntime-1.16.0-host-threads-1"
    assert all(len(condition.cpus) == condition.threads for condition in found)


def test_each_condition_has_the_warnings_about_its_own_cpus() -> None:
    one, two = conditions(bench(threads=[1, 2]), machine([[0, 4], [1, 5]], {0, 1, 5}))
    assert one.warnings == ()
    assert "CPU 0 shares its physical core" in " ".join(two.warnings)


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(HarnessError, match=r"bench\.threads is 5, .* 4 physical cores"):
        conditions(bench(threads=[1, 5]), NO_SMT)


def test_the_teacher_is_measured_twice_under_each_condition() -> None:
    names = ["onnxruntime-current-host-threads-1", "onnxruntime-current-threads-all"]
    found = subjects(["teacher", "student"], "teacher", names)
    for name in names:
        here = [(one.model, one.control) for one in found if one.condition == name]
        assert sorted(here) == [("student", False), ("teacher", False), ("teacher", True)]
    assert len({one.id for one in found}) == len(found) == 6
    assert not any(one.control for one in subjects(["student"], None, names))


# --- In which order --------------------------------------------------------------------------------------------------

names = st.lists(st.text("abc0.-", min_size=1), min_size=1, max_size=10, unique=True)


@given(names, st.integers(0, 50), st.integers(0, 5))
def test_every_block_has_every_model_once(cells: list[str], block: int, seed: int) -> None:
    order = block_order(cells, block, seed)
    assert sorted(order) == sorted(cells)
    assert block_order(cells[::-1], block, seed) == order


def test_orders_differ_between_blocks_and_seeds() -> None:
    cells = [f"cell-{index}" for index in range(10)]
    orders = {tuple(block_order(cells, block, seed)) for block in range(5) for seed in range(5)}
    assert len(orders) == 25


def test_no_model_always_goes_first() -> None:
    first = [block_order(["a", "b", "c"], block, 0)[0] for block in range(60)]
    assert all(10 <= first.count(name) <= 30 for name in "abc")


# --- For how long ----------------------------------------------------------------------------------------------------

ONE, OTHER = Subject("student", "x"), Subject("teacher", "x", control=True)
PRECISE, WIDE = Interval(value=0.5, low=0.499, high=0.501), Interval(value=0.5, low=0.4, high=0.6)
UNKNOWN = Interval(value=0.5)


def settled(known: list[Interval], blocks: int = 3) -> list[bool]:
    """Whether the one subject rests after each block, given the interval that was known after it."""
    settling, found = Settling.start(bench(blocks=blocks, precision_pct=1.0)), []
    for done, interval in enumerate(known, start=1):
        settling.note({ONE: interval}, done)
        found.append(settling.rests(ONE))
    return found


def test_a_subject_rests_when_it_was_precise_twice_in_a_row() -> None:
    assert settled([PRECISE] * 5) == [False, False, False, True, True]
    assert settled([WIDE] * 3 + [PRECISE, WIDE, PRECISE, PRECISE]) == [False] * 6 + [True]


def test_a_figure_without_an_interval_is_not_precise() -> None:
    assert settled([UNKNOWN] * 5 + [PRECISE, PRECISE]) == [False] * 6 + [True]


def test_a_wide_interval_afterwards_ends_its_rest() -> None:
    assert settled([PRECISE] * 4 + [WIDE, PRECISE, PRECISE]) == [False] * 3 + [True, False, False, True]


@given(st.lists(st.booleans(), max_size=30), st.integers(3, 12))
def test_it_rests_exactly_after_two_precise_blocks_none_of_them_too_early(precise: list[bool], blocks: int) -> None:
    found = settled([PRECISE if one else WIDE for one in precise], blocks)
    for done, rests in enumerate(found, start=1):
        assert rests == (done > blocks and all(precise[done - 2 : done]))


@given(st.floats(0.1, 10), st.floats(0.01, 100))
def test_precise_is_half_an_interval_in_percent_of_its_value(value: float, precision: float) -> None:
    for factor, rests in ((0.99, True), (1.01, False)):
        half = value * precision * factor / 100
        settling = Settling.start(bench(precision_pct=precision))
        for blocks in (3, 4):
            settling.note({ONE: Interval(value=value, low=value - half, high=value + half)}, blocks)
        assert settling.rests(ONE) is rests


def test_each_subject_settles_by_itself() -> None:
    settling = Settling.start(bench(precision_pct=1.0))
    for blocks in (3, 4):
        settling.note({ONE: PRECISE, OTHER: WIDE}, blocks)
    assert (settling.rests(ONE), settling.rests(OTHER), settling.rests(Subject("unknown", "x"))) == (True, False, False)
    # what was not judged stays as it was
    settling.note({OTHER: WIDE}, 5)
    assert settling.rests(ONE)


# --- What is up to date ----------------------------------------------------------------------------------------------

SESSION = {"intra_op_num_threads": 1}
RUNTIME = "onnxruntime 1.16.0"


def common(model: ModelFile, key: str) -> dict[str, Any]:
    return {
        "cell": model.cell,
        "title": model.title,
        "profile": "quick",
        "key": key,
        "spec": {},
        "onnx_sha256": model.onnx_sha256,
        "status": "done",
        "finished_at": "2026-01-02T03:04:05+00:00",
        "seconds": 1,
        "runtime": RUNTIME,
    }


def latency(model: ModelFile, **changes: Any) -> LatencyRecord:
    ratio = Interval(value=1, low=1, high=1)
    fields: dict[str, Any] = {"environment": {"run": "r1"}, "condition": HEADLINE, "threads": 1, "session": SESSION}
    fields["ratio_to_teacher"] = ratio
    return LatencyRecord(**common(model, model.latency[HEADLINE].key) | fields | changes)


def accuracy(**changes: Any) -> AccuracyRecord:
    fields = {"environment": {"session": SESSION}, "testset_sha256": "1" * 64}
    return AccuracyRecord(**common(MODELS[0], MODELS[0].accuracy["host"].key) | fields | changes)


def current(models: list[ModelFile], *records: LatencyRecord | None) -> bool:
    return latencies_are_current(models, records, HEADLINE, RUNTIME, SESSION)


FAILED = {"status": "failed", "failure": Failure(kind="timeout", message="")}


def test_latencies_as_they_are_asked_for_are_current() -> None:
    assert current(MODELS, *map(latency, MODELS))
    assert current([])


@pytest.mark.parametrize(
    "change",
    [
        {"key": "other"},
        {"key": MODELS[1].accuracy["host"].key},
        {"onnx_sha256": "1" * 64},
        {"runtime": "onnxruntime 1.32.0"},
        {"session": {"intra_op_num_threads": 2}},
        {"ratio_to_teacher": None},
        FAILED,
    ],
)
def test_one_latency_out_of_date_makes_all_so(change: dict[str, Any]) -> None:
    assert not current(MODELS, latency(MODELS[0]), latency(MODELS[1], **change))


def test_a_missing_latency_makes_all_out_of_date() -> None:
    assert not current(MODELS, latency(MODELS[0]), None)


def test_without_a_teacher_a_latency_with_a_ratio_is_from_another_job() -> None:
    alone = MODELS[1:]
    assert not current(alone, latency(alone[0]))
    assert current(alone, latency(alone[0], ratio_to_teacher=None))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"key": "other"}, False),
        ({"onnx_sha256": "1" * 64}, False),
        ({"runtime": "onnxruntime 1.32.0"}, False),
        ({"testset_sha256": "2" * 64}, False),
        ({"environment": {"session": {}}}, False),
        (FAILED, False),
    ],
)
def test_each_accuracy_is_out_of_date_by_itself(change: dict[str, Any], expected: bool) -> None:
    assert accuracy_is_current(MODELS[0], accuracy(**change), "host", RUNTIME, "1" * 64, SESSION) is expected


def test_a_missing_accuracy_is_not_current() -> None:
    assert not accuracy_is_current(MODELS[0], None, "host", RUNTIME, "1" * 64, SESSION)
