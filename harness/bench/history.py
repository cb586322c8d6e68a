"""Every run's latencies as pytest-benchmark keeps them, so that its own `compare` works on them.

One file per run in results/<profile>/pytest-benchmark, with an entry per model and condition. The samples of an entry
are the processes' observations, so its minimum, median and outliers are over processes:

    pytest-benchmark --storage results/lite/pytest-benchmark compare --group-by group
"""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pytest_benchmark.stats import Stats
from pytest_benchmark.utils import get_machine_id

from harness.files import write_text
from harness.store.records import LatencyRecord


def keep(results: Path, records: Sequence[LatencyRecord]) -> Path:
    """Add a file for one run's done records; returns its path."""
    first = records[0]
    folder = results / first.profile / "pytest-benchmark" / get_machine_id()
    number = 1 + max((int(path.name[:4]) for path in folder.glob("[0-9][0-9][0-9][0-9]_*.json")), default=0)
    document = {
        "machine_info": {"node": "", "cpu": {}, **first.environment},
        "commit_info": {"id": first.environment["harness_revision"], "dirty": False},
        "datetime": first.finished_at,
        "version": version("pytest-benchmark"),
        "benchmarks": [_entry(record) for record in records],
    }
    day = first.finished_at[:10]
    path = folder / f"{number:04d}_{day}.json"
    write_text(path, json.dumps(document, indent=1) + "\n")
    return path


def _entry(record: LatencyRecord) -> dict[str, Any]:
    stats = Stats()
    for process in record.processes:
        stats.update(process.low_ms / 1000)
    return {
        "group": record.condition,
        "name": record.title,
        "fullname": f"{record.condition}/{record.cell}",
        "params": None,
        "param": None,
        "extra_info": {"key": record.key, "onnx_sha256": record.onnx_sha256, "runtime": record.runtime},
        "options": {"disable_gc": True, "timer": "perf_counter", "min_rounds": 1, "max_time": 1.0, "min_time": 5e-6},
        "stats": {**stats.as_dict(), "iterations": 1},
    }
