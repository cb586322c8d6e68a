"""main.json: the harness as a newcomer meets it, timed in a fresh clone."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.store.paths import data_root

ROOT = Path(__file__).parents[1]
# 10,000 students: one axis made long enough.
SEEDS = 1112


def measure() -> dict[str, float]:
    """Every figure; prints each as it comes."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        clone = Path(folder) / "clone"
        _seconds(["git", "clone", "--quiet", str(ROOT), str(clone)], ROOT)
        environment = _newcomer()
        for name, command in {
            "quickstart_cold_s": ["make", "quickstart"],
            "quickstart_again_s": ["make", "quickstart"],
            "test_suite_s": ["make", "test"],
        }.items():
            figures[name] = _seconds(command, clone, environment)
            print(f"{name}: {figures[name]:.1f}")
        help_command = [sys.executable, "-m", "harness", "--help"]
        figures["help_s"] = statistics.median(_seconds(help_command, clone, environment) for _ in range(7))
        (clone / "many.toml").write_text(_many(clone / "matrix.toml"), encoding="utf-8")
        plan_command = [sys.executable, "-m", "harness", "plan", "--profile", "lite", "--matrix", "many.toml"]
        plan_command += ["--experiment", "many", "--json"]
        figures["plan_10000_cells_s"] = statistics.median(_seconds(plan_command, clone, environment) for _ in range(3))
    for name in ("help_s", "plan_10000_cells_s"):
        print(f"{name}: {figures[name]:.2f}")
    return figures


def _newcomer() -> Mapping[str, str]:
    """This environment less what would lend the clone our settings; with the data set where it is at hand."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PROFILE", "PYTHON"))
    }
    root = data_root().resolve()
    return {**environment, "DATA_DIR": str(root)} if (root / "cifar-100-python").is_dir() else environment


def _many(matrix: Path) -> str:
    extra = {"prune_amount": [0.3], "prune_method": ["l1", "bn", "gn"], "kd_method": ["base", "fmse", "gram"]}
    axes = "\n".join(f"{name} = {json.dumps(value)}" for name, value in extra.items())
    return (
        matrix.read_text(encoding="utf-8")
        + f'\n[[experiment]]\nname = "many"\ntitle = "many"\nprotocol = "study"\n{axes}\nseed = {list(range(SEEDS))}\n'
    )


def _seconds(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> float:
    """How long a command takes; HarnessError with its last words where it fails."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"{' '.join(command)} exited {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return time.monotonic() - started
