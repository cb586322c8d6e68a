import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.bench.history import keep
from harness.intervals import estimate
from harness.store.records import LatencyRecord
from tests.synthetic import plan_for, records_for


@pytest.fixture
def records() -> list[LatencyRecord]:
    """One run's: two models under every condition."""
    plan = plan_for("long", experiments=["prune-0.3"])
    found = [record for cell in plan.cells[:2] for record in records_for(plan, cell)]
    return [record for record in found if isinstance(record, LatencyRecord)]


def test_every_run_adds_a_file_with_an_entry_per_model_and_condition(
    tmp_path: Path, records: list[LatencyRecord]
) -> None:
    first, second = keep(tmp_path, records), keep(tmp_path, records)
    assert [path.name for path in (first, second)] == ["0001_2026-01-02.json", "0002_2026-01-02.json"]
    assert first.parent == second.parent
    assert first.is_relative_to(tmp_path / "long" / "pytest-benchmark")
    entries = json.loads(first.read_text())["benchmarks"]
    assert len({entry["fullname"] for entry in entries}) == len(entries) == len(records)
    for entry, record in zip(entries, records, strict=True):
        assert (entry["group"], entry["name"]) == (record.condition, record.title)
        # pytest-benchmark counts in seconds; its statistics are over processes
        assert entry["stats"]["rounds"] == len(record.processes)
        assert 1000 * entry["stats"]["min"] == pytest.approx(min(process.low_ms for process in record.processes))
        assert 1000 * entry["stats"]["q1"] == pytest.approx(
            estimate([process.low_ms for process in record.processes]), rel=0.01
        )


def test_the_compare_command_of_pytest_benchmark_reads_it(tmp_path: Path, records: list[LatencyRecord]) -> None:
    for _ in range(2):
        path = keep(tmp_path, records)
    command = [sys.executable, "-m", "pytest_benchmark", "--storage", str(path.parents[1]), "compare", "--group-by"]
    done = subprocess.run([*command, "group"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ResNet50") == len(records)
    assert "onnxruntime-current-host-threads-all" in done.stdout
