from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from harness.checks.catalogue import check_results
from harness.plan.planning import Plan
from harness.reporting.reading import Reading, read_rows
from harness.reporting.report import check_files, write_report
from harness.store import chain
from harness.store.paths import model_file
from harness.store.records import AccuracyRecord, Record, StageName, load
from tests.synthetic import change, fill_results, plan_for

STAGES = get_args(StageName)
SPOILT = "p0.3-bn-gram-s0"


@pytest.mark.parametrize("experiments", [["prune-0.3"], None])
def test_a_report_reads_each_record_once(
    experiments: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, results = plan_for("lite"), tmp_path / "results"
    fill_results(plan, results)
    read: Counter[Path] = Counter()

    def counting(path: Path, kind: type[Record]) -> Record:
        read[path] += 1
        return load(path, kind)

    monkeypatch.setattr(chain, "load", counting)
    reading = Reading(plan_for("lite", experiments=experiments), results)
    reading.check(tmp_path / "artifacts")
    write_report(reading, [], ["lite"])
    records = {path for stage in STAGES for path in (results / "lite" / stage).rglob("*.json")}
    # those of all experiments, since the page shows all
    assert read == dict.fromkeys(records, 1)
    assert check_files(reading) == []


@pytest.mark.parametrize("experiments", [["prune-0.3"], ["prune-0.3", "prune-0.4"]])
def test_what_was_checked_before_changes_neither_rows_nor_findings(experiments: list[str], tmp_path: Path) -> None:
    plan, results, artifacts = plan_for("lite", experiments=experiments), tmp_path / "results", tmp_path / "artifacts"
    fill_results(plan, results)
    change(results, plan, SPOILT, AccuracyRecord, accuracy_pct=12.34)
    place_other_file(plan, artifacts)
    reading = Reading(plan, results)
    found = reading.check(artifacts)
    assert found == check_results(plan, results, artifacts)
    assert {"false-figure", "changed-file"} <= {finding.check for finding in found}
    for table in plan.tables:
        assert reading.rows(table) == read_rows(plan, table, results)
        assert reading.findings(table) == Reading(plan, results).findings(table)
        # A table is the same where there is no ONNX file.
        assert "changed-file" not in {finding.check for finding in reading.findings(table)}


def place_other_file(plan: Plan, artifacts: Path) -> None:
    """An ONNX file that is not the one on record, which only the check of the files finds."""
    (cell,) = plan.named([SPOILT])
    path = model_file(artifacts, plan.profile, cell)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another model")
