from pathlib import Path

import pytest

from harness.plan.planning import Plan
from harness.reporting.model_facts import model_facts
from harness.reporting.reading import read_rows
from harness.reporting.tables import ABSENT
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, TrainRecord
from tests.synthetic import change, fill_results, path_of, plan_for

CELL, TITLE = "p0.3-bn-gram-s0", "P(0.3_BN)_KD(3)_SEED(0)"


@pytest.fixture
def plan() -> Plan:
    return plan_for("lite", experiments=["prune-0.3"])


def facts_of(plan: Plan, results: Path) -> dict[str, str]:
    """What the table says of one model."""
    table = {column.header: column.cells for column in model_facts(read_rows(plan, plan.tables[0], results))}
    row = table["Model Name"].index(TITLE)
    return {header: cells[row] for header, cells in table.items()}


def test_facts_are_the_records(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, TrainRecord, macs=12_345_678)
    change(tmp_path, plan, CELL, ExportRecord, params=234_567, onnx_bytes=1_250_000, denormal_weights=0)
    change(tmp_path, plan, CELL, LatencyRecord, median_ms=1.2346, p90_ms=1.5)
    change(tmp_path, plan, CELL, AccuracyRecord, agreement_pct=99.876, convolutions=53, nchwc_convolutions=40)
    assert facts_of(plan, tmp_path) | {"First inference (ms)": ""} == {
        "Model Name": TITLE,
        "Parameters (M)": "0.235",
        "MACs (M)": "12.35",
        "ONNX file (MB)": "1.25",
        "Same answer as torch (%)": "99.88",
        "Convolutions in NCHWc": "40 of 53",
        "Denormal weights": "0",
        "First inference (ms)": "",
        "Median inference (ms)": "1.235",
        "90th percentile (ms)": "1.500",
        "Peak memory (MiB)": "95",
    }


def test_what_is_not_known_is_a_gap(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, AccuracyRecord, agreement_pct=None, convolutions=None, nchwc_convolutions=None)
    path_of(tmp_path, plan, CELL, LatencyRecord).unlink()
    facts = facts_of(plan, tmp_path)
    gaps = {header for header, text in facts.items() if text == ABSENT}
    # synthetic records know of no file size
    assert gaps == {
        "ONNX file (MB)",
        "Same answer as torch (%)",
        "Convolutions in NCHWc",
        "First inference (ms)",
        "Median inference (ms)",
        "90th percentile (ms)",
        "Peak memory (MiB)",
    }


def test_without_records_there_is_a_row_for_everything(plan: Plan, tmp_path: Path) -> None:
    facts = facts_of(plan, tmp_path)
    assert {text for header, text in facts.items() if header != "Model Name"} == {ABSENT}
