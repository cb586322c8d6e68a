import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.store.records import AccuracyRecord, ExportRecord, Failure, LatencyRecord, Record, TrainRecord
from harness.store.states import counts
from tests.checks.faults_of_the_chain import OLD_KEY, fail
from tests.checks.planted import BESIDE, CELL, HEADLINE, OTHER, TEACHER, Bench
from tests.finished import finish, states_of, weights
from tests.synthetic import plan_for

DIVERGED = Failure(kind="diverged", message="loss is nan in epoch 1")
UNLIKE = Failure(kind="parity", message="logits differ")
KILLED = Failure(kind="killed", message="a process was killed")
Damage = Callable[[Bench], object]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return finish(tmp_path)


def test_a_finished_plan_is_done_in_the_plans_order(bench: Bench) -> None:
    found = states_of(bench)
    assert [state.cell for state in found] == list(bench.plan.cells)
    assert {(state.training, state.benching, state.reason) for state in found} == {("done", "done", None)}
    assert counts(found) == {"done": len(found), "benched": len(found), "bench_changed": 0, "bench_failed": 0}


def test_with_nothing_on_disk_everything_is_missing(tmp_path: Path) -> None:
    found = states_of(Bench(plan_for("lite"), tmp_path, tmp_path))
    assert {(state.training, state.benching, state.reason) for state in found} == {("missing", "missing", None)}
    assert counts(found) == {"missing": len(found), "benched": 0, "bench_changed": 0, "bench_failed": 0}


def lost(kind: type[Record], under: str = HEADLINE) -> Damage:
    return lambda bench: bench.path(kind, under=under).unlink()


def changed(kind: type[Record], **fields: Any) -> Damage:
    return lambda bench: bench.change(kind, **fields)


def damaged(kind: type[Record]) -> Damage:
    return lambda bench: bench.path(kind).write_text("{")


def failing(kind: type[Record], failure: Failure) -> Damage:
    return lambda bench: fail(bench, kind, failure)


NEW_CODE = {"method gram": "0" * 64}
NEW_ENGINE = {"engine onnxruntime": "0" * 64}
UNDER = "record was made under other settings (key v2-0000000000000000, now v2-"
# what happened to one cell -> how, its training, its benching, and how the reason begins
DAMAGES: dict[str, tuple[Damage, str, str, str | None]] = {
    "not trained": (lost(TrainRecord), "missing", "missing", None),
    "trained under other settings": (changed(TrainRecord, key=OLD_KEY), "missing", "missing", f"the train {UNDER}"),
    "trained for another teacher": (
        changed(TrainRecord, teacher_sha256="f" * 64),
        "missing",
        "missing",
        "the train record comes from a teacher with weights ffff",
    ),
    "damaged in training": (damaged(TrainRecord), "missing", "missing", "/"),
    "trained by other code": (changed(TrainRecord, code=NEW_CODE), "changed", "done", "code changed: method gram"),
    "failed in training": (failing(TrainRecord, DIVERGED), "failed", "missing", DIVERGED.message),
    "weights not here": (lambda bench: weights(bench, CELL).unlink(), "recorded", "done", None),
    "not exported": (lost(ExportRecord), "trained", "missing", None),
    "exported under other settings": (changed(ExportRecord, key=OLD_KEY), "trained", "missing", None),
    "exported from older weights": (changed(ExportRecord, weights_sha256="f" * 64), "trained", "missing", None),
    "failed in export": (failing(ExportRecord, UNLIKE), "failed", "missing", UNLIKE.message),
    "ONNX file not here": (lambda bench: bench.onnx().unlink(), "trained", "missing", None),
    "no latency beside the headline": (lost(LatencyRecord, BESIDE), "done", "missing", None),
    "latency by another engine's code": (
        changed(LatencyRecord, code=NEW_ENGINE),
        "done",
        "changed",
        "code changed: engine onnxruntime",
    ),
    "no latency": (lost(LatencyRecord), "done", "missing", None),
    "latency under other settings": (changed(LatencyRecord, key=OLD_KEY), "done", "missing", None),
    "latency of an older file": (changed(LatencyRecord, onnx_sha256="f" * 64), "done", "missing", None),
    "failed in latency": (failing(LatencyRecord, KILLED), "done", "failed", KILLED.message),
    "no accuracy": (lost(AccuracyRecord), "done", "missing", None),
    "accuracy under other settings": (changed(AccuracyRecord, key=OLD_KEY), "done", "missing", None),
    "accuracy of an older file": (changed(AccuracyRecord, onnx_sha256="f" * 64), "done", "missing", None),
    "failed in accuracy": (failing(AccuracyRecord, KILLED), "done", "failed", KILLED.message),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_cells_state_follows_from_its_records_and_files_and_no_other_cell_changes(bench: Bench, name: str) -> None:
    damage, *wanted = DAMAGES[name]
    damage(bench)
    found = {state.cell.id: state for state in states_of(bench)}
    training, benching, reason = wanted
    mine = found.pop(CELL)
    assert (mine.training, mine.benching) == (training, benching)
    assert (mine.reason or "").startswith(reason or "") and (mine.reason is None) == (reason is None)
    assert {(one.training, one.benching, one.reason) for one in found.values()} == {("done", "done", None)}


def test_a_failure_under_other_settings_is_no_failure_any_more(bench: Bench) -> None:
    fail(bench, TrainRecord, DIVERGED)
    bench.change(TrainRecord, key=OLD_KEY)
    (state,) = [state for state in states_of(bench) if state.cell.id == CELL]
    assert state.training == "missing"
    assert state.reason is not None and UNDER in state.reason


def test_every_state_is_counted(bench: Bench) -> None:
    fail(bench, LatencyRecord, KILLED)
    bench.onnx(OTHER).unlink()
    weights(bench, TEACHER).unlink()
    bench.change(TrainRecord, "p0.3-gn-base-s0", code={"method base": "0" * 64})
    bench.change(AccuracyRecord, "p0.3-gn-gram-s0", code={"engine onnxruntime": "0" * 64})
    cells = len(bench.plan.cells)
    # The teacher's bench is on record, although its weights are not here.
    assert counts(states_of(bench)) == {
        "done": cells - 3,
        "changed": 1,
        "trained": 1,
        "recorded": 1,
        "benched": cells - 3,
        "bench_changed": 1,
        "bench_failed": 1,
    }


def test_an_unreadable_record_is_named_with_the_remedy(bench: Bench) -> None:
    path = bench.path(TrainRecord)
    path.write_text(path.read_text()[:100])
    (state,) = [state for state in states_of(bench) if state.cell.id == CELL]
    assert (state.training, state.benching) == ("missing", "missing")
    assert re.match(rf"{path}: not a train record .*; delete it to have it made again", state.reason or "")
