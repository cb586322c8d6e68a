"""Which estimator gives the same figure twice: the study behind the bench's own, from raw samples.

Reads the raw samples that benchmarks.bench_quality has kept of runs of the same models, quiet and disturbed. For each
of several estimators it computes the ratios to the teacher, how far two runs lie apart, how wide the intervals are, and
how far the disturbance moves the ratios. Writes results/benchmarks/estimators.json, docs/estimators.svg and the table
in docs/estimators.md.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from harness.bench.job import Job
from harness.files import atomic_path, write_text
from harness.intervals import undisturbed
from harness.reporting.chart_files import as_svg, recoloured
from harness.reporting.chart_style import DARK, LIGHT, style
from harness.reporting.markers import Marker, fill, read_document

Floats = npt.NDArray[np.float64]
TARGET, FIGURE = Path("results/benchmarks/estimators.json"), Path("docs/estimators.svg")
# what was found, in words, with a marker where the table goes
DOCUMENT = Path("docs/estimators.md")
RESAMPLES, SEED = 1999, 0
# the estimator of harness.intervals, and by how much two runs may differ
CHOSEN, WANTED_PCT, LIMIT = ("1st percentile", "lower quartile"), 2.0, LIGHT.known["FMSE+Base"]


def _trimmed(values: Floats, axis: int) -> Floats:
    """Mean of the middle 60 %."""
    ordered = np.sort(values, axis=axis)
    cut = values.shape[axis] // 5
    return np.asarray(np.take(ordered, range(cut, values.shape[axis] - cut), axis=axis).mean(axis=axis))


WITHIN: dict[str, Callable[[Floats], float]] = {
    "mean": lambda samples: float(samples.mean()),
    "median": lambda samples: float(np.median(samples)),
    "10th percentile": lambda samples: float(np.percentile(samples, 10)),
    "1st percentile": lambda samples: undisturbed(samples.tolist()),
    "minimum": lambda samples: float(samples.min()),
}
OVER: dict[str, Callable[[Floats], Floats]] = {
    "median": lambda values: np.asarray(np.median(values, axis=-1)),
    "trimmed mean": lambda values: _trimmed(values, axis=values.ndim - 1),
    "lower quartile": lambda values: np.asarray(np.percentile(values, 25, axis=-1)),
    "minimum": lambda values: np.asarray(values.min(axis=-1)),
}
# cell -> block -> samples (s)
Samples = Mapping[str, Mapping[int, Floats]]


def study(folder: Path, job: Job) -> list[Path]:
    """Compare the estimators on the runs below `folder` (quiet-1, quiet-2, disturbed-1, disturbed-2)."""
    runs = {name: read(folder / name / "raw", job) for name in ("quiet-1", "quiet-2", "disturbed-1", "disturbed-2")}
    teacher = next(model.cell for model in job.models if model.is_teacher)
    students = [model.cell for model in job.models if not model.is_teacher]
    rows = [
        {"within": within, "over": over, **_judge(runs, teacher, students, WITHIN[within], OVER[over])}
        for within in WITHIN
        for over in OVER
    ]
    write_text(TARGET, json.dumps(rows, indent=1) + "\n")
    draw(rows, FIGURE)

    def render(marker: Marker) -> str | None:
        return table(rows) if marker.experiment == "estimators" else None

    write_text(DOCUMENT, fill(read_document(DOCUMENT), str(DOCUMENT), render)[0])
    return [TARGET, FIGURE, dark(FIGURE), DOCUMENT]


def read(raw: Path, job: Job) -> Samples:
    """A run's raw samples under the headline condition; the control is not among them."""
    condition = job.settings.conditions[0]
    found: dict[str, dict[int, Floats]] = {model.cell: {} for model in job.models}
    for cell, blocks in found.items():
        for path in sorted(raw.glob(f"latency-block*-{cell}.{condition}.json")):
            (entry,) = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
            blocks[entry["extra_info"]["block"]] = np.asarray(entry["stats"]["data"])
    return found


def _judge(
    runs: Mapping[str, Samples],
    teacher: str,
    students: list[str],
    within: Callable[[Floats], float],
    over: Callable[[Floats], Floats],
) -> dict[str, float]:
    observed = {
        name: {cell: {block: within(samples) for block, samples in blocks.items()} for cell, blocks in run.items()}
        for name, run in runs.items()
    }
    ratios: dict[str, dict[str, float]] = {name: {} for name in runs}
    widths: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in observed.items():
        for cell in students:
            common = sorted(run[cell].keys() & run[teacher].keys())
            pairs = np.asarray([[run[one][block] for block in common] for one in (cell, teacher)])
            ratios[name][cell] = float(over(pairs[0]) / over(pairs[1]))
            picks = np.random.default_rng(SEED).integers(0, len(common), (RESAMPLES, len(common)))
            again = over(pairs[0][picks]) / over(pairs[1][picks])
            low, high = np.percentile(again, [2.5, 97.5])
            widths[name].append(50 * (high - low) / ratios[name][cell])

    def apart(one: str, two: str) -> float:
        return max(100 * abs(ratios[one][cell] / ratios[two][cell] - 1) for cell in students)

    return {
        "rerun_disagreement_max_pct": apart("quiet-1", "quiet-2"),
        "rerun_disagreement_max_pct_disturbed": apart("disturbed-1", "disturbed-2"),
        "moved_by_disturbance_max_pct": max(apart(f"quiet-{n}", f"disturbed-{n}") for n in (1, 2)),
        "halfwidth_max_pct": max(max(widths[name]) for name in ("quiet-1", "quiet-2")),
        "halfwidth_max_pct_disturbed": max(max(widths[name]) for name in ("disturbed-1", "disturbed-2")),
    }


HEADERS = {
    "rerun_disagreement_max_pct": "Two runs differ by (%)",
    "rerun_disagreement_max_pct_disturbed": "Two disturbed runs differ by (%)",
    "moved_by_disturbance_max_pct": "Moved by the disturbance (%)",
    "halfwidth_max_pct": "Half the interval (%)",
    "halfwidth_max_pct_disturbed": "... disturbed (%)",
}


def table(rows: list[dict[str, Any]]) -> str:
    """One row per estimator as Markdown, each figure the worst of all students; the one that is used in bold."""
    cells = []
    for row in rows:
        used = "**" if (row["within"], row["over"]) == CHOSEN else ""
        figures = [f"{used}{row[name]:.2f}{used}" for name in HEADERS]
        cells.append([f"{used}{row['within']}{used}", f"{used}{row['over']}{used}", *figures])
    headers = ["Of a process", "Over processes", *HEADERS.values()]
    return tabulate(cells, headers, tablefmt="pipe", disable_numparse=True, colalign=["left"] * 2 + ["right"] * 5)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Two panels, quiet and disturbed: by estimator, how far two runs lie apart in the ratio that differs most.

    Beside it the same for a dark page.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.style import context

    names = [f"{row['within']} of a process, {row['over']} over processes" for row in rows]
    with context({**style(LIGHT), "axes.grid.axis": "x"}, after_reset=True):
        figure = Figure(figsize=(10, 6.2), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for panel, suffix, title in zip(panels, ("", "_disturbed"), ("Quiet", "Disturbed"), strict=True):
            values = [row[f"rerun_disagreement_max_pct{suffix}"] for row in rows]
            colours = [LIGHT.ink if (row["within"], row["over"]) == CHOSEN else LIGHT.faint for row in rows]
            panel.barh(names, values, color=colours, height=0.6)
            panel.set_xscale("log")
            panel.axvline(WANTED_PCT, color=LIMIT, linewidth=1)
            panel.set_title(title)
            panel.set_xlabel("Two runs differ by (%), worst ratio")
        panels[0].invert_yaxis()
        svg = as_svg(figure)
    for place, content in {path: svg, dark(path): recoloured(svg, LIGHT.turned(DARK))}.items():
        with atomic_path(place) as temporary:
            temporary.write_bytes(content)


def dark(path: Path) -> Path:
    """Where the same picture for a dark page is."""
    return path.with_stem(f"{path.stem}-{DARK.name}")
