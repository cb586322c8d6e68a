"""`make benchmarks`: the harness measured by itself, one flat JSON object per subject under results/benchmarks."""

import json
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from harness.errors import HarnessError
from harness.files import write_text
from harness.store.records import now
from harness.store.revision import revision

FOLDER = Path("results/benchmarks")
# Each is a module of this package with a function measure() -> figures.
SUBJECTS = ("main", "measurement", "training", "training_profile", "results", "containers")
Figures = Mapping[str, float | str | None]


def run(subjects: Sequence[str]) -> list[Path]:
    """Measure these subjects (none named: all) and write their figures; HarnessError where one is unknown."""
    unknown = set(subjects) - set(SUBJECTS)
    if unknown:
        raise HarnessError(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    written = []
    for subject in subjects or SUBJECTS:
        print(f"==> {subject}")
        about = {"measured_at": now(), "harness_revision": revision(), "cores": len(os.sched_getaffinity(0))}
        figures: Figures = import_module(f"{__name__}.{subject}").measure()
        path = FOLDER / f"{subject}.json"
        write_text(path, json.dumps({**about, **figures}, indent=1) + "\n")
        written.append(path)
    return written
