import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from harness.plan.planning import Plan
from harness.reporting.data import as_csv_and_json
from harness.reporting.reading import read_rows
from harness.store.records import AccuracyRecord, LatencyRecord
from tests.synthetic import change, fill_results, keep_predictions, onnx_hash, path_of, plan_for, weights_hash

CELL = "p0.3-bn-gram-s0"


def documents_of(plan: Plan, results: Path) -> tuple[str, str]:
    return as_csv_and_json(plan, plan.tables[0], read_rows(plan, plan.tables[0], results))


def json_of(plan: Plan, results: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(documents_of(plan, results)[1])
    return document


def csv_of(plan: Plan, results: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(documents_of(plan, results)[0])))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path, skip={"p0.3-l1-base-s0"})
    return plan


def test_figures_are_unrounded_and_say_what_they_follow_from(plan: Plan, tmp_path: Path) -> None:
    keep_predictions(tmp_path, plan, [plan.teacher.id, CELL])
    (cell,) = plan.named([CELL])
    row = next(row for row in json_of(plan, tmp_path)["rows"] if row["cell"] == CELL)
    latency = read_rows(plan, plan.tables[0], tmp_path)[1:]
    record = next(one.latency for one in latency if one.cell.id == CELL)
    assert record and record.ratio_to_teacher and record.latency_ms
    assert row["latency_ratio"] == record.ratio_to_teacher.model_dump()
    assert row["latency_ms"] == record.latency_ms.model_dump()
    assert row["accuracy_difference_points"]["low"] < row["accuracy_difference_points"]["value"]
    assert row["keys"] == {
        "train": cell.trained.key,
        "export": cell.spec.key,
        "latency": plan.latency(cell, plan.settings.bench.conditions[0]).key,
        "accuracy": plan.accuracy(cell).key,
    }
    assert (row["sha256"]["weights"], row["sha256"]["onnx"]) == (weights_hash(cell), onnx_hash(cell))


def test_csv_and_json_say_the_same_in_the_tables_order(plan: Plan, tmp_path: Path) -> None:
    rows, lines = json_of(plan, tmp_path)["rows"], csv_of(plan, tmp_path)
    assert [row["cell"] for row in rows] == [line["cell"] for line in lines]
    assert [row.cell.id for row in read_rows(plan, plan.tables[0], tmp_path)] == [line["cell"] for line in lines]
    for row, line in zip(rows, lines, strict=True):
        for name in ("latency_ratio", "latency_ms"):
            for key, bound in row[name].items():
                text = line[name if key == "value" else f"{name}_{key}"]
                assert (float(text) if text else None) == bound
        assert line["keys_train"] == (row["keys"]["train"] or "")
        assert line["footnotes"] == "; ".join(map(str, row["footnotes"]))


def test_missing_and_failed_cells_are_rows(plan: Plan, tmp_path: Path) -> None:
    change(tmp_path, plan, CELL, LatencyRecord, onnx_sha256="0" * 64)
    rows = {row["cell"]: row for row in json_of(plan, tmp_path)["rows"]}
    assert set(rows) == {cell.id for cell in plan.tables[0].cells}
    assert rows["p0.3-l1-base-s0"]["state"] == "missing" and rows[CELL]["state"] == "orphaned"
    assert rows["p0.3-l1-base-s0"]["accuracy_pct"] is None
    assert rows["p0.3-l1-base-s0"]["latency_ratio"] == {"value": None, "low": None, "high": None}
    assert rows["p0.3-bn-base-s0"]["state"] == "done"


def test_means_over_seeds_and_the_studys_figures_are_in_the_document(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["seeds"])
    fill_results(plan, tmp_path)
    path_of(tmp_path, plan, "p0.3-bn-base-s4", AccuracyRecord).unlink()
    document = json_of(plan, tmp_path)
    base = next(mean for mean in document["means"] if mean["kd"] == "Base")
    assert (base["seeds"], len(base["cells"]), base["study_accuracy_pct"]) == (4, 5, 73.36)
    assert all(row["pareto_rank"] is None for row in document["rows"]), "single seeds are not ranked"
    assert {row["model"] for row in document["study"]["rows"]} >= {"ResNet50", "P(0.3_BN)_KD(0)_SEED(0)"}
    assert document["study"]["source"].startswith("As published")


def test_before_anything_was_made_there_is_a_row_for_everything(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    assert len(csv_of(plan, tmp_path)) == len(json_of(plan, tmp_path)["rows"]) == len(plan.tables[0].cells)
