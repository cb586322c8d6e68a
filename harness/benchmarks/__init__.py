"""`make benchmarks`: the harness measured by itself, one flat JSON object per subject under results/benchmarks."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.records import now, write_text
from harness.revision import revision

FOLDER = Path("results/benchmarks")
Figures = Mapping[str, float | str | None]


def _main() -> Figures:
    from harness.benchmarks import main

    return main.measure()


def _measurement() -> Figures:
    from harness.benchmarks import measurement

    return measurement.measure()


def _containers() -> Figures:
    from harness.benchmarks import containers

    return containers.measure()


def _training() -> Figures:
    from harness.benchmarks import training

    return training.measure()


def _training_profile() -> Figures:
    from harness.benchmarks import training_profile

    return training_profile.measure()


def _results() -> Figures:
    from harness.benchmarks import results

    return results.measure()


SUBJECTS: dict[str, Callable[[], Figures]] = {
    "main": _main,
    "measurement": _measurement,
    "training": _training,
    "training_profile": _training_profile,
    "results": _results,
    "containers": _containers,
}


def run(subjects: Sequence[str]) -> list[Path]:
    """Measure these subjects (none named: all) and write their figures; HarnessError where one is unknown."""
    unknown = set(subjects) - set(SUBJECTS)
    if unknown:
        raise HarnessError(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    written = []
    for subject in subjects or SUBJECTS:
        print(f"==> {subject}")
        about = {"measured_at": now(), "harness_revision": revision(), "cores": len(os.sched_getaffinity(0))}
        path = FOLDER / f"{subject}.json"
        write_text(path, json.dumps({**about, **SUBJECTS[subject]()}, indent=1) + "\n")
        written.append(path)
    return written
