from pathlib import Path
from typing import Any

import pytest

from harness.benchmarking.latency import to_process
from harness.records import Failure, Process


def entry(samples: list[float]) -> dict[str, Any]:
    info = {"first_inference_ms": 3.0, "warmup_rounds": 2, "cpus": [1], "peak_rss_bytes": 5, "involuntary_switches": 6}
    info["distinct_inputs"] = len(samples)
    return {"stats": {"data": samples}, "extra_info": info}


def test_seconds_become_milliseconds_and_all_samples_are_kept() -> None:
    samples = [0.001 * index for index in range(1, 12)]
    found = to_process(entry(samples), block=2, order=9, rounds=11, source=Path("x"))
    assert isinstance(found, Process)
    assert found.samples_ms == pytest.approx(list(range(1, 12)))
    assert found.median_ms == pytest.approx(6)
    assert (found.block, found.order, found.cpus, found.involuntary_switches) == (2, 9, [1], 6)


@pytest.mark.parametrize(("count", "rounds"), [(10, 10), (10, 11), (12, 11), (0, 11)])
def test_too_few_or_too_many_samples_are_a_failure(count: int, rounds: int) -> None:
    found = to_process(entry([0.001] * count), 0, 0, rounds, Path("raw.json"))
    assert found == Failure(kind="error", message=f"raw.json: {count} samples where {rounds} were asked for")
