"""latency.json: `harness latency`. How many kinds of file it measures, how precisely, how soon, how often wrongly."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks import ROOT, Figures, target_isa
from harness.bench.blocks import Condition, Settling, Subject, subjects
from harness.bench.environments import find_python
from harness.bench.job import Assignment
from harness.bench.latency import Run, Series
from harness.commands.latency_document import LatencyDocument
from harness.commands.latency_files import LEAST_BLOCKS, OWN, PROCESS_S, USUAL, Request, bench_settings, measure_files
from harness.commands.latency_gate import GATE, verdict
from harness.commands.latency_inputs import Wanted
from harness.errors import HarnessError
from harness.host.cpus import read_topology
from harness.intervals import halfwidth_pct
from harness.plan.bench_settings import Bench
from harness.store.records import Process
from tests.onnx_zoo import DIMS, write_all

# What a file takes in the measurement of precision, and for how long three of them are measured.
WANTED_MS, MINUTES = 15.0, 2.0
CHANNELS, SIDE = 128, 32
# The gate is tried on runs that are put together from the blocks of one real run of a file against itself: so many real
# runs would take a day.
AA_MINUTES, AA_RUNS = 5.0, 400
STARTS = 5


def measure() -> Figures:
    """Every figure; prints each as it comes."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="harness-any-onnx-") as folder:
        for part in (kinds, precision, cold_start, false_alarms, target_isa.figures):
            found = part(Path(folder))
            print("\n".join(f"{name}: {value}" for name, value in found.items()), flush=True)
            figures |= found
    return figures


def kinds(folder: Path) -> Figures:
    """How many kinds of file are measured, and which, by the engine of this environment."""
    files = write_all(folder)
    request = Request(
        list(files.values()),
        engines=[OWN],
        inputs=Wanted(dims=DIMS),
        sampling_s=0.05,
        minutes=1e-6,
        blocks=LEAST_BLOCKS,
    )
    found = measure_files(request)
    measured = [kind for kind, one in zip(files, found.files, strict=True) if one.timings[0].latency_ms]
    return {"onnx_kinds_measured": len(measured), "onnx_kinds": ", ".join(measured)}


def precision(folder: Path) -> Figures:
    """How well the ratios of three files are known after two minutes, where the first takes as long as is wanted."""
    files = three_files(folder)
    # to a precision that is never reached, so that all of the time is used
    found = measure_files(Request(files, minutes=MINUTES, precision_pct=1e-3))
    first, *others = (one.timings[0] for one in found.files)
    ratios = [one.ratio for one in others if one.ratio]
    assert first.latency_ms and len(ratios) == len(others), "sound files are measured"
    return {
        "ratio_halfwidth_pct": max(map(halfwidth_pct, ratios)),
        "ratio_halfwidth_ms": first.latency_ms.value,
        "ratio_halfwidth_blocks": found.blocks,
    }


def three_files(folder: Path) -> list[Path]:
    """Three networks, the first of which takes about as long as is wanted on this machine, the others somewhat less."""
    trial = convolutions(folder / "trial.onnx", layers=4, channels=CHANNELS)
    took = measure_files(Request([trial], minutes=1e-6, sampling_s=0.2)).files[0].timings[0].latency_ms
    assert took, "a sound file is measured"
    layers = max(1, round(4 * WANTED_MS / took.value))
    return [convolutions(folder / f"{width}.onnx", layers, width) for width in (CHANNELS, CHANNELS - 16, CHANNELS - 32)]


def convolutions(path: Path, layers: int, channels: int) -> Path:
    """Convolutions of 3 x 3 with a ReLU after each: one image of 32 pixels."""
    rng, last = np.random.default_rng(0), "input"
    nodes, weights = [], []
    for layer in range(layers):
        shape = (channels, channels if layer else 3, 3, 3)
        values = rng.normal(0, (2 / (9 * shape[1])) ** 0.5, shape).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"kernel{layer}"))
        nodes.append(helper.make_node("Conv", [last, f"kernel{layer}"], [f"conv{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{layer}"], [f"relu{layer}"]))
        last = f"relu{layer}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["output"]))
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", channels, 1, 1])],
        weights,
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


# --- How soon --------------------------------------------------------------------------------------------------------


def cold_start(folder: Path) -> Figures:
    """Seconds from the command to the first process that measures, of three files; the median of several starts."""
    files = [convolutions(folder / f"start{number}.onnx", layers=8, channels=CHANNELS) for number in range(3)]
    return {"cold_start_s": float(np.median([_start(files) for _ in range(STARTS)]))}


def _start(files: Sequence[Path]) -> float:
    command = [sys.executable, "-m", "harness", "latency", *map(str, files)]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _measures(process.pid):
            if process.poll() is not None or time.monotonic() - started > 60:
                raise HarnessError(f"{' '.join(command)} measures nothing")
            time.sleep(0.01)
        return time.monotonic() - started
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _measures(parent: int) -> bool:
    """Whether a process has a child that runs the latency suite."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
        return any(b"latency_suite" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)
    except OSError:  # a child that has just ended
        return False


# --- How often wrongly -----------------------------------------------------------------------------------------------

# a block: what the file, the file again, and the file as if it were another one took (ms)
Block = tuple[float, float, float]


def false_alarms(folder: Path) -> Figures:
    """How often the gate says that a file is slower than itself: at the usual limit, and at one that allows nothing.

    From the blocks of one real run runs are put together at random, and each goes through what a run goes through: it
    ends when its ratios have settled or its time is up, and then the gate judges it.
    """
    file = convolutions(folder / "aa.onnx", layers=8, channels=CHANNELS)
    request = Request([file, file], minutes=AA_MINUTES, precision_pct=1e-3, sampling_s=0.5)
    real = blocks_of(measure_files(request))
    settings = bench_settings(Request([file, file]), read_topology())
    said = [replayed(real, settings, seed) for seed in range(AA_RUNS)]
    return {
        "false_alarms_pct": 100 * sum(one["usual"] == "beyond" for one in said) / len(said),
        "false_alarms_at_limit_1_pct": 100 * sum(one["strict"] == "beyond" for one in said) / len(said),
        "unclear_pct": 100 * sum(one["usual"] == "unclear" for one in said) / len(said),
        "aa_runs": len(said),
        "aa_runs_are": f"put together from {len(real)} real blocks",
    }


def blocks_of(found: LatencyDocument) -> list[Block]:
    """The blocks of a run of a file against itself."""
    first, second = (one.timings[0] for one in found.files)
    again = {process.block: process.low_ms for process in first.again}
    common = first.observations.keys() & again.keys() & second.observations.keys()
    return [(first.observations[block], again[block], second.observations[block]) for block in sorted(common)]


def replayed(real: Sequence[Block], settings: Bench, seed: int) -> Mapping[str, str]:
    """What the gate says of a run of blocks that are drawn from real ones: at its usual limit, and at 1."""
    draw = random.Random(seed)
    condition = Condition("x", USUAL if find_python(USUAL) else OWN, "host", 1, (0,))
    a, again, b = Subject("a", "x"), Subject("a", "x", control=True), Subject("b", "x")
    run = Run(
        settings=settings.model_copy(update={"seed": seed}),
        headline="x",
        reference="a",
        series={one: Series(one.model, condition) for one in subjects(["a", "b"], "a", ["x"])},
        assign=_nothing,
        pythons={},
        raw=Path(os.devnull),
        process_s=PROCESS_S,
        settling=Settling.start(settings),
        least_blocks=LEAST_BLOCKS,
    )
    # as many as fit into the time of the real run
    while (wanted := run.wanted()) and run.blocks < len(real):
        took = dict(zip((a, again, b), draw.choice(real), strict=True))
        for subject in wanted:
            run.series[subject].processes.append(_process(run.blocks, took[subject]))
        run.blocks += 1
        run.settling.note(run.judged(), run.blocks)
    ratio, noise = run.ratio(b), run.ratio(again)
    assert ratio, "both have blocks in common"
    limits = {"usual": GATE, "strict": 1.0}
    return {name: verdict(ratio, limit, settings.precision_pct, noise) for name, limit in limits.items()}


def _nothing(subject: Subject, block: int) -> Assignment:
    raise AssertionError(f"block {block} of {subject.id}: nothing is measured in a replay")


def _process(block: int, low_ms: float) -> Process:
    return Process(
        block=block,
        order=block,
        first_inference_ms=low_ms,
        warmup_rounds=0,
        rounds=1,
        low_ms=low_ms,
        median_ms=low_ms,
        cpus=[0],
        peak_rss_bytes=0,
        involuntary_switches=0,
        distinct_inputs=1,
    )
