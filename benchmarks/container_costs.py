"""containers.json: how large the two images are, how long they take to build, and what a container adds to a latency.

Needs a container engine, and a trained teacher of the quick profile. The images are built without any cache, except for
their base.
"""

import shutil
import statistics
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks import ROOT, Figures
from benchmarks.user_commands import HARNESS, seconds
from harness.bench.environments import bench_pythons
from harness.bench.job import Job
from harness.commands.bench_job import matrix_job, run_bench
from harness.containers.docker_engine import connect
from harness.containers.images import CPU, GPU, build
from harness.containers.in_docker import bench
from harness.containers.runner import Docker
from harness.errors import HarnessError
from harness.plan.loading import load_settings
from harness.plan.planning import make_plan
from harness.store.paths import Paths, data_root
from harness.store.records import LatencyRecord, load, record_path

PROFILE, ENGINE = "quick", "onnxruntime-1.16.0"
# Pairs of runs, one in the container and one on this machine.
PAIRS = 12
RESAMPLES = 9999


def measure() -> Figures:
    """Every figure; prints each as it comes."""
    client = connect()
    figures: Figures = {}
    images = {}
    for spec in (CPU, GPU):
        built = images[spec.name] = build(client, spec, lambda _: None, fresh=True)
        assert built.seconds is not None, "built without any cache"
        figures |= {f"{spec.name}_image_mb": built.megabytes, f"build_{spec.name}_s": built.seconds}
        print(f"{spec.name}: {built.megabytes:.0f} MB, built in {built.seconds:.0f} s")
    figures["rebuild_unchanged_s"] = statistics.median(seconds([*HARNESS, "images"], ROOT) for _ in range(5))
    print(f"rebuild_unchanged_s: {figures['rebuild_unchanged_s']:.2f}")
    figures["negative_cases_passed"] = _negative_cases()
    print(f"negative_cases_passed: {figures['negative_cases_passed']:.0f}")
    figures |= _overhead(Docker(client, images["cpu"]))
    return figures


def _negative_cases() -> int:
    """How many containers that fail, or must be refused, do so as they should. HarnessError where one does not."""
    with tempfile.TemporaryDirectory(prefix="harness-negative-") as folder:
        report = Path(folder) / "report.xml"
        tests = "tests/containers/test_in_containers.py"
        seconds([sys.executable, "-m", "pytest", "-q", "-m", "negative", tests, f"--junitxml={report}"], ROOT)
        cases = list(ET.parse(report).iter("testcase"))
        return sum(1 for case in cases if case.find("skipped") is None)


# --- What a container adds -------------------------------------------------------------------------------------------


def _overhead(docker: Docker) -> Figures:
    """The teacher's latency in the container compared with that on this machine, on the same cores, in alternation."""
    paths = Paths(Path("results"), Path("artifacts"), data_root())
    settings = load_settings(Path("matrix.toml"), PROFILE)
    # as few blocks as a run may have
    few = {"precision_pct": 1000.0, "engines": [ENGINE], "isa": ["host"], "threads": [1]}
    settings = settings.model_copy(update={"bench": settings.bench.model_copy(update=few)})
    plan = make_plan(settings, PROFILE, paths.dataset(settings, PROFILE))
    # What has been measured before does not matter: the runs have results folders of their own.
    whole = matrix_job(plan, paths, local=False, code="redo")
    if whole.teacher is None:
        raise HarnessError(f"no trained teacher here; run: make train-matrix PROFILE={PROFILE}")
    folder = (paths.artifacts / PROFILE / "containers").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    jobs = {
        place: whole.model_copy(
            update={
                "models": [whole.teacher],
                "measure_again": False,
                "results": folder / place / "results",
                "raw": folder / place / "raw",
            }
        )
        for place in ("container", "local")
    }
    local = jobs["local"].model_copy(update={"pythons": bench_pythons([ENGINE])})
    runs: dict[str, Callable[[], int]] = {
        "container": lambda: bench(docker, jobs["container"]),
        "local": lambda: run_bench(local),
    }
    found: dict[str, list[list[float]]] = {place: [] for place in runs}
    cpus = set()
    for pair in range(PAIRS):
        # which of the two is first alternates from pair to pair
        for place in list(runs) if pair % 2 == 0 else list(runs)[::-1]:
            record = _run(jobs[place], runs[place])
            found[place].append([process.median_ms for process in (*record.processes, *record.control)])
            cpus |= {tuple(process.cpus) for process in record.processes}
    if len(cpus) != 1:
        raise HarnessError(f"the container and this machine measured on different CPUs: {sorted(cpus)}")
    value, low, high = ratio_of_medians(found["container"], found["local"])
    ratios = {"bench_overhead_pct": value, "bench_overhead_low_pct": low, "bench_overhead_high_pct": high}
    figures: Figures = {name: 100 * (ratio - 1) for name, ratio in ratios.items()}
    print(", ".join(f"{name}: {figure:.2f}" for name, figure in figures.items()))
    return {**figures, "bench_overhead_pairs": PAIRS}


def _run(job: Job, start: Callable[[], int]) -> LatencyRecord:
    """One run of the bench. The accuracy is measured in the first run and kept for the others."""
    path = record_path(job.results, job.profile, "latency", job.models[0].cell, job.settings.conditions[0])
    path.unlink(missing_ok=True)
    if start():
        raise HarnessError(f"{job.raw}: the bench failed; see its output above")
    return load(path, LatencyRecord)


def ratio_of_medians(
    numerator: Sequence[Sequence[float]], denominator: Sequence[Sequence[float]], seed: int = 0
) -> tuple[float, float, float]:
    """The median of all numerators divided by that of all denominators, and its 95 % interval from resampled pairs."""
    random = np.random.default_rng(seed)
    pairs = len(numerator)
    resampled = []
    for chosen in random.integers(0, pairs, (RESAMPLES, pairs)):
        above, below = (np.concatenate([runs[i] for i in chosen]) for runs in (numerator, denominator))
        resampled.append(np.median(above) / np.median(below))
    value = np.median(np.concatenate(list(numerator))) / np.median(np.concatenate(list(denominator)))
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(value), float(low), float(high)
