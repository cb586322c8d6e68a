from pathlib import Path
from typing import Any

import pytest
from synthetic import BENCH, TRAINING, change, fill_results, plan_for

from harness.matrix import Plan
from harness.records import AccuracyRecord, LatencyRecord, Record, TrainRecord
from harness.reporting.agreement import disagreements
from harness.reporting.rows import read_rows

CELL, TITLE = "p0.3-bn-gram-s0", "P(0.3_BN)_KD(3)_SEED(0)"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    return plan


def found(plan: Plan, results: Path) -> list[str]:
    return disagreements(read_rows(plan, plan.tables[0], results))


def test_rows_made_alike_agree(plan: Plan, tmp_path: Path) -> None:
    assert found(plan, tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "fields", "named"),
    [
        (TrainRecord, {"environment": {**TRAINING, "torch": "2.12.0"}}, ["torch", "2.12.0", "2.13.0"]),
        (TrainRecord, {"environment": {**TRAINING, "device": "Other GPU"}}, ["training device", "Other GPU"]),
        (TrainRecord, {"environment": {**TRAINING, "harness_revision": "fedcba"}}, ["harness revision", "fedcba"]),
        (LatencyRecord, {"environment": {**BENCH, "cpu": "Other CPU"}}, ["machine benched on", "Other CPU"]),
        (LatencyRecord, {"environment": {**BENCH, "run": "run-2"}}, ["bench run", "run-2"]),
        (LatencyRecord, {"runtime": "onnxruntime 1.23.0"}, ["runtime", "1.23.0", "1.16.0"]),
        (LatencyRecord, {"threads": 2}, ["threads", "2 for"]),
        (LatencyRecord, {"settings": {"bench": {"blocks": 3}}}, ["blocks", "3 for", "15 for the other 9"]),
        (AccuracyRecord, {"images": 500}, ["number of test images", "500"]),
    ],
)
def test_a_row_that_differs_is_named(
    plan: Plan, tmp_path: Path, kind: type[Record], fields: dict[str, Any], named: list[str]
) -> None:
    change(tmp_path, plan, CELL, kind, **fields)
    (sentence,) = found(plan, tmp_path)
    assert TITLE in sentence
    for text in named:
        assert text in sentence


def test_a_setting_deep_inside_is_named_by_its_path(plan: Plan, tmp_path: Path) -> None:
    for cell in plan.cells:
        spinning = "0" if cell.id == CELL else "1"
        change(tmp_path, plan, cell.id, LatencyRecord, settings={"session": {"spinning": spinning, "threads": 1}})
    (sentence,) = found(plan, tmp_path)
    assert "session spinning: 0 for" in sentence


def test_facts_that_vary_anyway_are_no_disagreement(plan: Plan, tmp_path: Path) -> None:
    change(tmp_path, plan, CELL, LatencyRecord, environment={**BENCH, "load_average_before": 3.0})
    change(tmp_path, plan, CELL, TrainRecord, seconds=999.0)
    assert found(plan, tmp_path) == []
