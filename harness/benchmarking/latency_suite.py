"""Latency of one model in this fresh process: batch 1, distinct real images, warmed up, every sample kept."""

import os
import resource
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from harness.benchmarking.host import require_affinity
from harness.benchmarking.images import load_testset, preprocess
from harness.benchmarking.job import Assignment
from harness.benchmarking.session import INPUT, OUTPUT, RUNTIME, open_model, session_options


def test_latency(benchmark: Any, assignment: Assignment) -> None:
    """Times session.run alone: inputs are made before, and a different one is put in place before every round."""
    settings = assignment.settings
    require_affinity(assignment.cpus)
    opened = open_model(assignment.model, settings.threads)
    testset = load_testset(assignment.testset)
    # One image is never timed twice in a process (where there are enough), and all models of a block see the same.
    count = 1 + settings.warmup_rounds + settings.rounds
    order = np.random.default_rng([settings.seed, assignment.block]).permutation(len(testset.images))
    images = preprocess(testset.images[np.resize(order, count)], opened.image_size, opened.mean, opened.std)
    feeds = iter([{INPUT: image[None]} for image in images])

    def infer(feed: dict[str, Any]) -> Any:
        return opened.session.run([OUTPUT], feed)

    started = time.perf_counter()
    infer(next(feeds))
    first_s = time.perf_counter() - started
    for feed in islice(feeds, settings.warmup_rounds):
        infer(feed)
    switches = _involuntary_switches()
    # pytest-benchmark's calibrated mode would derive the number of rounds from a first, cold call.
    benchmark.pedantic(infer, setup=lambda: ((next(feeds),), {}), rounds=settings.rounds, iterations=1, warmup_rounds=0)
    benchmark.extra_info.update(
        cell=assignment.model.cell,
        key=assignment.model.key,
        onnx_sha256=assignment.model.onnx_sha256,
        block=assignment.block,
        runtime=RUNTIME,
        session=session_options(settings.threads),
        first_inference_ms=1000 * first_s,
        warmup_rounds=settings.warmup_rounds,
        distinct_inputs=len({image.tobytes() for image in images[-settings.rounds :]}),
        involuntary_switches=_involuntary_switches() - switches,
        peak_rss_bytes=_peak_rss_bytes(),
        cpus=sorted(os.sched_getaffinity(0)),
    )
    require_affinity(assignment.cpus)


def _involuntary_switches() -> int:
    """How often the kernel has taken the CPU away from this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _peak_rss_bytes() -> int:
    """Largest resident memory of this program. (getrusage's figure would include the parent it was forked from.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
