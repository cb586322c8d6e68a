"""containers.json: what the two images weigh and cost, and what a container adds to a latency.

Takes an engine, and a trained teacher of the quick profile. The images are built from nothing, except for their base.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from harness.bench.job import Job
from harness.commands.bench_job import bench_pythons, matrix_job, run_bench
from harness.containers.docker_engine import connect
from harness.containers.images import CPU, GPU, build
from harness.containers.in_docker import bench
from harness.containers.runner import Docker
from harness.errors import HarnessError
from harness.plan.planning import make_plan
from harness.plan.settings import load_settings
from harness.store.paths import Paths, data_root
from harness.store.records import LatencyRecord, load, record_path

ROOT = Path(__file__).parents[1]
PROFILE = "quick"
# Pairs of runs, one in the container and one on this machine, in turns.
PAIRS = 12
RESAMPLES = 9999


def measure() -> dict[str, float]:
    """Every figure; prints each as it comes."""
    client = connect()
    figures: dict[str, float] = {}
    images = {}
    for recipe in (CPU, GPU):
        built = images[recipe.name] = build(client, recipe, lambda _: None, fresh=True)
        assert built.seconds is not None, "built from nothing"
        figures |= {f"{recipe.name}_image_mb": built.megabytes, f"build_{recipe.name}_s": built.seconds}
        print(f"{recipe.name}: {built.megabytes:.0f} MB, built in {built.seconds:.0f} s")
    figures["rebuild_unchanged_s"] = statistics.median(_seconds([*HARNESS, "images"]) for _ in range(5))
    print(f"rebuild_unchanged_s: {figures['rebuild_unchanged_s']:.2f}")
    figures["negative_cases_passed"] = _negative_cases()
    print(f"negative_cases_passed: {figures['negative_cases_passed']:.0f}")
    figures |= _overhead(Docker(client, images["cpu"]))
    return figures


HARNESS = [sys.executable, "-m", "harness"]


def _seconds(command: Sequence[str]) -> float:
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"{' '.join(command)} exited {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return time.monotonic() - started


def _negative_cases() -> int:
    """How many containers that fail, or must not be let through, come out as they should; all have to."""
    with tempfile.TemporaryDirectory(prefix="harness-negative-") as folder:
        report = Path(folder) / "report.xml"
        tests = "tests/launching/test_in_containers.py"
        _seconds([sys.executable, "-m", "pytest", "-q", "-m", "negative", tests, f"--junitxml={report}"])
        cases = list(ET.parse(report).iter("testcase"))
        return sum(1 for case in cases if case.find("skipped") is None)


# --- What a container adds -------------------------------------------------------------------------------------------


def _overhead(docker: Docker) -> dict[str, float]:
    """The teacher's latency in the container by that on this machine, on the same cores, in runs that take turns."""
    paths = Paths(Path("results"), Path("artifacts"), data_root())
    plan = make_plan(load_settings(Path("matrix.toml"), PROFILE), PROFILE, paths.data_at_hand(PROFILE), None)
    whole = matrix_job(plan, paths, local=False)
    if whole.teacher is None:
        raise HarnessError(f"no trained teacher here; run: make train-matrix PROFILE={PROFILE}")
    # As many blocks as a run has at least.
    settings = whole.settings.model_copy(update={"precision_pct": 1000.0, "runtimes": ["1.16.0"], "threads": [1]})
    folder = (paths.artifacts / PROFILE / "containers").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    jobs = {
        place: whole.model_copy(
            update={
                "models": [whole.teacher],
                "settings": settings,
                "results": folder / place / "results",
                "raw": folder / place / "raw",
            }
        )
        for place in ("container", "local")
    }
    local = jobs["local"].model_copy(update={"pythons": bench_pythons(settings.runtimes)})
    runs: dict[str, Callable[[], int]] = {
        "container": lambda: bench(docker, jobs["container"]),
        "local": lambda: run_bench(local),
    }
    found: dict[str, list[list[float]]] = {place: [] for place in runs}
    cpus = set()
    for pair in range(PAIRS):
        # whoever is first changes from pair to pair
        for place in list(runs) if pair % 2 == 0 else list(runs)[::-1]:
            record = _run(jobs[place], runs[place])
            found[place].append([process.median_ms for process in (*record.processes, *record.control)])
            cpus |= {tuple(process.cpus) for process in record.processes}
    if len(cpus) != 1:
        raise HarnessError(f"the container and this machine measured on different CPUs: {sorted(cpus)}")
    value, low, high = ratio_of_medians(found["container"], found["local"])
    figures = {"bench_overhead_pct": value, "bench_overhead_low_pct": low, "bench_overhead_high_pct": high}
    figures = {name: 100 * (ratio - 1) for name, ratio in figures.items()}
    print(", ".join(f"{name}: {figure:.2f}" for name, figure in figures.items()))
    return {**figures, "bench_overhead_pairs": PAIRS}


def _run(job: Job, start: Callable[[], int]) -> LatencyRecord:
    """One run of the bench; the accuracy, which is measured once, is kept from run to run."""
    path = record_path(job.results, job.profile, "latency", job.models[0].cell, job.settings.conditions[0])
    path.unlink(missing_ok=True)
    if start():
        raise HarnessError(f"{job.raw}: the bench failed; see its output above")
    return load(path, LatencyRecord)


def ratio_of_medians(
    numerator: Sequence[Sequence[float]], denominator: Sequence[Sequence[float]], seed: int = 0
) -> tuple[float, float, float]:
    """Median of all by median of all, with its 95 % interval from resampling pairs of runs."""
    random = np.random.default_rng(seed)
    pairs = len(numerator)
    resampled = []
    for chosen in random.integers(0, pairs, (RESAMPLES, pairs)):
        above, below = (np.concatenate([runs[i] for i in chosen]) for runs in (numerator, denominator))
        resampled.append(np.median(above) / np.median(below))
    value = np.median(np.concatenate(list(numerator))) / np.median(np.concatenate(list(denominator)))
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(value), float(low), float(high)
