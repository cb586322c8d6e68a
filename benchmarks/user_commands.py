"""main.json: the commands that a newcomer runs, timed in a fresh clone."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import ROOT, Figures
from harness.errors import HarnessError
from harness.store.paths import data_root, has_dataset
from harness.store.records import AccuracyRecord, load, record_path

HARNESS = [sys.executable, "-m", "harness"]
# Three criteria, three methods and so many seeds are 10,008 students.
SEEDS = 1112


def measure() -> Figures:
    """Every figure; prints each as it comes."""
    figures: Figures = {}
    with newcomer() as (clone, environment):
        for name in ("quickstart_cold_s", "quickstart_again_s"):
            figures[name] = seconds(["make", "quickstart"], clone, environment)
            print(f"{name}: {figures[name]:.1f}", flush=True)
        record = record_path(clone / "results", "quick", AccuracyRecord.stage, "teacher-s0")
        figures["quick_teacher_accuracy_pct"] = load(record, AccuracyRecord).accuracy_pct
        starts = [seconds([*HARNESS, "--help"], clone, environment) for _ in range(7)]
        figures["help_s"] = statistics.median(starts)
        figures["plan_10000_cells_s"] = plan_seconds(clone, environment)
    print(", ".join(f"{name}: {figures[name]:.2f}" for name in ("help_s", "plan_10000_cells_s")))
    return figures


@contextmanager
def newcomer() -> Iterator[tuple[Path, Mapping[str, str]]]:
    """A fresh clone, in which nothing is set up, and an environment for commands in it."""
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        clone = Path(folder) / "clone"
        seconds(["git", "clone", "--quiet", str(ROOT), str(clone)], ROOT)
        yield clone, _environment()


def plan_seconds(checkout: Path, environment: Mapping[str, str] | None = None, times: int = 5) -> float:
    """How long planning 10,000 cells takes in a checkout: the median of so many fresh processes."""
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        matrix = Path(folder) / "many.toml"
        matrix.write_text(_many((checkout / "matrix.toml").read_text(encoding="utf-8")), encoding="utf-8")
        command = [*HARNESS, "plan", "--profile", "lite", "--matrix", str(matrix), "--experiment", "many", "--json"]
        return statistics.median(seconds(command, checkout, environment) for _ in range(times))


def _environment() -> Mapping[str, str]:
    """This environment without what would hand our settings to the clone; with the data set where it is here."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PROFILE", "PYTHON"))
    }
    root = data_root().resolve()
    return {**environment, "DATA_DIR": str(root)} if has_dataset(root, "cifar100") else environment


def _many(matrix: str) -> str:
    axes = {
        "prune_amount": [0.3],
        "prune_method": ["l1", "bn", "gn"],
        "kd_method": ["base", "fmse", "gram"],
        "seed": list(range(SEEDS)),
    }
    lines = "\n".join(f"{name} = {json.dumps(values)}" for name, values in axes.items())
    return f'{matrix}\n[[experiment]]\nname = "many"\ntitle = "many"\nprotocol = "study"\n{lines}\n'


def seconds(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> float:
    """How long a command takes. HarnessError with the end of its output where it fails."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"{' '.join(command)} exited {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return time.monotonic() - started
