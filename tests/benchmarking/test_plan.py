from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.benchmarking.job import Model
from harness.benchmarking.plan import accuracy_is_current, block_order, latencies_are_current
from harness.records import AccuracyRecord, Failure, Interval, LatencyRecord

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


SESSION = {"intra_op_num_threads": 1}
SETTINGS = {"bench": {"threads": 1}, "session": SESSION}
RUNTIME = "onnxruntime 1.16.0"
MODELS = [
    Model(cell=cell, title=cell, key=f"key-{cell}", onnx=Path("x"), onnx_sha256="0" * 64, is_teacher=cell == "teacher")
    for cell in ("teacher", "student")
]


def common(model: Model) -> dict[str, Any]:
    return {
        "cell": model.cell,
        "title": model.title,
        "profile": "quick",
        "key": model.key,
        "onnx_sha256": model.onnx_sha256,
        "status": "done",
        "finished_at": "",
        "seconds": 1,
        "runtime": RUNTIME,
    }


def latency(model: Model, **changes: Any) -> LatencyRecord:
    ratio = Interval(value=1, low=1, high=1)
    fields = {"environment": {"run": "r1"}, "threads": 1, "settings": SETTINGS, "ratio_to_teacher": ratio}
    return LatencyRecord(**common(model) | fields | changes)


def accuracy(**changes: Any) -> AccuracyRecord:
    fields = {"environment": {"session": SESSION}, "testset_sha256": "1" * 64}
    return AccuracyRecord(**common(MODELS[0]) | fields | changes)


FAILED = {"status": "failed", "failure": Failure(kind="timeout", message="")}


def test_latencies_of_one_run_are_current() -> None:
    assert latencies_are_current(MODELS, [latency(model) for model in MODELS], RUNTIME, SETTINGS)
    assert latencies_are_current([], [], RUNTIME, SETTINGS)


@pytest.mark.parametrize(
    "change",
    [
        {"environment": {"run": "r2"}},
        {"key": "other"},
        {"onnx_sha256": "1" * 64},
        {"runtime": "onnxruntime 1.32.0"},
        {"settings": {"bench": {"threads": 2}, "session": SESSION}},
        {"ratio_to_teacher": None},
        FAILED,
    ],
)
def test_one_latency_out_of_date_makes_all_so(change: dict[str, Any]) -> None:
    assert not latencies_are_current(MODELS, [latency(MODELS[0]), latency(MODELS[1], **change)], RUNTIME, SETTINGS)


def test_a_missing_latency_makes_all_out_of_date() -> None:
    assert not latencies_are_current(MODELS, [latency(MODELS[0]), None], RUNTIME, SETTINGS)


def test_without_a_teacher_a_latency_with_a_ratio_is_from_another_job() -> None:
    alone = MODELS[1:]
    assert not latencies_are_current(alone, [latency(alone[0])], RUNTIME, SETTINGS)
    assert latencies_are_current(alone, [latency(alone[0], ratio_to_teacher=None)], RUNTIME, SETTINGS)


@pytest.mark.parametrize(
    ("change", "current"),
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
def test_an_accuracy_goes_out_of_date_by_itself(change: dict[str, Any], current: bool) -> None:
    assert accuracy_is_current(MODELS[0], accuracy(**change), RUNTIME, "1" * 64, SESSION) is current


def test_a_missing_accuracy_is_not_current() -> None:
    assert not accuracy_is_current(MODELS[0], None, RUNTIME, "1" * 64, SESSION)
