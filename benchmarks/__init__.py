"""The harness measured by itself: one flat JSON object of figures per subject, under results/benchmarks."""

import json
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError
from harness.files import write_text
from harness.store.records import now
from harness.store.revision import revision

ROOT = Path(__file__).parents[1]
FOLDER = Path("results/benchmarks")
Figures = dict[str, float | str | None]


class Subject(NamedTuple):
    """What can be measured: `module`, of this package, has a function measure() that returns the figures."""

    module: str
    about: str


# By the name of the file of figures.
SUBJECTS = {
    "main": Subject("user_commands", "the commands that a newcomer runs, in a fresh clone (about 7 minutes)"),
    "suite": Subject("own_tests", "how long the tests take, in a fresh clone"),
    "measurement": Subject("bench_quality", "whether the bench gives the same figures twice (most of an hour)"),
    "training": Subject("training_speed", "the training loop against usual ones, and nine concurrent students"),
    "training_profile": Subject("step_profile", "where the time of a training step goes"),
    "gpu": Subject("gpu_steps", "ways of taking training steps on a GPU; it needs one"),
    "results": Subject("unattended_run", "the first steps of the profiles that want a GPU, at full size"),
    "latency": Subject(
        "any_onnx", "`harness latency` on any ONNX files and whose instruction set they see (about 22 minutes)"
    ),
    "containers": Subject("container_costs", "what images cost and a container adds; needs a container engine"),
    "house": Subject("house", "how many files an addition takes, and how tidy the package is"),
    "full": Subject("full_width", "the full-width models on record, and how right the time is that `plan --time` says"),
    "survival": Subject("survival", "kills, hostile input, and what ten times as many cells cost (most of an hour)"),
    "ray": Subject("ray_executor", "what the Ray executor costs, on a cluster of this machine alone; needs Ray"),
    "report": Subject(
        "report_page", "the page of a report in a browser, and the documents' commands; needs Chromium (minutes)"
    ),
    "right": Subject("right", "whether intervals, checks and pruning hold what they promise"),
}


def in_parts(*parts: Callable[[], Figures]) -> Figures:
    """The figures of a subject that takes long; prints those of each part as they come."""
    figures: Figures = {}
    for part in parts:
        found = part()
        figures |= found
        for name, value in found.items():
            print(f"{name}: {value}", flush=True)
    return figures


def run(subjects: Sequence[str]) -> list[Path]:
    """Measure these subjects (all where none is named) and write their figures; returns the files.

    HarnessError on an unknown subject, before anything is measured.
    """
    if unknown := set(subjects) - SUBJECTS.keys():
        raise HarnessError(f"unknown benchmark {', '.join(sorted(unknown))}; allowed: {', '.join(SUBJECTS)}")
    written = []
    for subject in subjects or SUBJECTS:
        print(f"==> {subject}", flush=True)
        about = {"measured_at": now(), "harness_revision": revision(), "cores": len(os.sched_getaffinity(0))}
        figures: Figures = import_module(f"{__name__}.{SUBJECTS[subject].module}").measure()
        path = FOLDER / f"{subject}.json"
        write_text(path, json.dumps({**about, **figures}, indent=1) + "\n")
        written.append(path)
    return written
