"""Latency of one model in this fresh process: distinct inputs, warmed up, every sample written down."""

import math
import os
import resource
import statistics
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from harness.bench.engines import Array, Infer, load_engine, open_model, runtime_of
from harness.bench.feeds import Feed, distinct, feeds
from harness.bench.instruction_set import evidence, require_shown
from harness.bench.job import Assignment
from harness.errors import HarnessError
from harness.host.cpus import require_affinity

MOST_ROUNDS = 20_000


def test_latency(benchmark: Any, assignment: Assignment) -> None:
    """Times inference alone: inputs are made before, and a different one is put in place before every round."""
    settings = assignment.settings
    require_affinity(assignment.cpus)
    require_shown(assignment.shown)
    engine = load_engine(assignment.engine)
    infer = open_model(engine, assignment.model, assignment.threads)
    given = feeds(assignment)
    inputs = cycle(given)

    first_s, outputs = _first(infer, next(inputs))
    warm: list[float] = []
    until = time.perf_counter() + settings.warmup_s
    while len(warm) < settings.warmup_rounds or time.perf_counter() < until:
        warm.append(_seconds(infer, next(inputs)))
    rounds = min(MOST_ROUNDS, max(settings.rounds, math.ceil(settings.sampling_s / statistics.median(warm))))
    switches = _involuntary_switches()
    # pytest-benchmark's calibrated mode would derive the number of rounds from a first, cold call.
    benchmark.pedantic(infer, setup=lambda: ((next(inputs),), {}), rounds=rounds, iterations=1, warmup_rounds=0)
    benchmark.extra_info.update(
        cell=assignment.model.cell,
        run=assignment.run,
        onnx_sha256=assignment.model.onnx_sha256,
        block=assignment.block,
        runtime=runtime_of(assignment.engine),
        session=engine.options(assignment.threads),
        first_inference_ms=1000 * first_s,
        warmup_rounds=len(warm),
        rounds=rounds,
        distinct_inputs=min(rounds, distinct(given)),
        output_shapes=[list(np.shape(output)) for output in outputs],
        involuntary_switches=_involuntary_switches() - switches,
        peak_rss_bytes=_peak_rss_bytes(),
        cpus=sorted(os.sched_getaffinity(0)),
    )
    require_affinity(assignment.cpus)
    found = evidence(assignment.shown, engine, assignment.threads)
    benchmark.extra_info["instruction_set"] = found.model_dump(mode="json")


def _first(infer: Infer, feed: Feed) -> tuple[float, list[Array]]:
    """How long the first inference took, and what it gave. HarnessError where that is not a number."""
    started = time.perf_counter()
    outputs = infer(feed)
    seconds = time.perf_counter() - started
    for place, output in enumerate(outputs, start=1):
        if np.asarray(output).dtype.kind == "f" and np.isnan(output).any():
            raise HarnessError(f"output {place} of {len(outputs)} holds values that are not numbers (NaN)")
    return seconds, outputs


def _seconds(infer: Infer, feed: Feed) -> float:
    started = time.perf_counter()
    infer(feed)
    return time.perf_counter() - started


def _involuntary_switches() -> int:
    """How often the kernel has taken the CPU away from this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _peak_rss_bytes() -> int:
    """Largest resident memory of this program. (getrusage's figure would include the parent it was forked from.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
