"""The study's chart: accuracy per seed and KD method with its mean, and how much of the teacher is left."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from harness.reporting.chart_style import (
    DASHED,
    FAINT,
    INK,
    STUDY,
    kd_colour,
    legend_line,
    legend_mark,
    place_legend,
    seed_mark,
)
from harness.reporting.published import published_means
from harness.reporting.rows import Row
from harness.reporting.tables import Group, seed_groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HALF = 0.3


def draw(figure: "Figure", rows: Sequence[Row]) -> None:
    """Two panels: accuracies, and parameters and MACs left."""
    groups = dict(sorted(seed_groups(rows).items()))
    accuracy, size = figure.subplots(1, 2, width_ratios=(3, 2))
    _accuracies(accuracy, rows, groups)
    _sizes(size, rows, groups)
    _legends(figure, groups)
    for axes in (accuracy, size):
        axes.set_xticks(range(len(groups)), [f"{kd}\n{pruning} {amount:g}" for amount, pruning, kd in groups])
        axes.set_xlim(-0.65, len(groups) - 0.35)
        axes.tick_params(axis="x", length=0)


def _accuracies(axes: "Axes", rows: Sequence[Row], groups: dict[Group, list[Row]]) -> None:
    seeds = _seeds(groups)
    published = published_means()
    step = 2 * HALF / max(len(seeds), 2)
    for place, (group, members) in enumerate(groups.items()):
        colour = kd_colour(group[2])
        values = [row.accuracy_pct for row in members if row.accuracy_pct is not None]
        if group in published:
            _mean(axes, place, published[group], STUDY, dashed=True)
        if values:
            _mean(axes, place, fmean(values), colour)
        for row in members:
            if row.accuracy_pct is not None:
                index = seeds.index(row.cell.seed)
                across = place + (index - (len(seeds) - 1) / 2) * step
                mark = seed_mark(index)
                axes.plot(across, row.accuracy_pct, mark, color=colour, ms=8, markeredgecolor="white", zorder=3)
    teacher = next((row.accuracy_pct for row in rows if row.cell.is_teacher), None)
    if teacher is not None:
        axes.axhline(teacher, color=INK, linewidth=1, linestyle=":")
        axes.annotate(f"teacher {teacher:.2f}", (-0.63, teacher), (0, 3), textcoords="offset points", fontsize=9)
    axes.set_ylabel("Accuracy (%)")
    axes.set_title("Accuracy, one mark per seed")
    axes.margins(y=0.12)


def _mean(axes: "Axes", place: int, mean: float, colour: str, dashed: bool = False) -> None:
    axes.hlines(mean, place - HALF, place + HALF, color=colour, linewidth=1.8, linestyles=DASHED if dashed else "-")
    # Ours is named on the right and the study's on the left, so that close means stay legible.
    side = -1 if dashed else 1
    axes.annotate(
        f"{mean:.2f}",
        (place + side * HALF, mean),
        (side * 4, 0),
        textcoords="offset points",
        va="center",
        ha="right" if dashed else "left",
        fontsize=9,
        color=colour,
        fontweight="normal" if dashed else "bold",
    )


def _sizes(axes: "Axes", rows: Sequence[Row], groups: dict[Group, list[Row]]) -> None:
    teacher = next((row for row in rows if row.cell.is_teacher), None)
    measures: list[tuple[float, bool, Callable[[Row], int | None]]] = [
        (-0.2, True, lambda row: row.params),
        (0.2, False, lambda row: row.train.macs if row.train else None),
    ]
    for shift, filled, measure in measures:
        whole = measure(teacher) if teacher else None
        for place, (group, members) in enumerate(groups.items()):
            found = [measure(row) for row in members]
            shares = [100 * value / whole for value in found if value and whole]
            if not shares:
                continue
            colour = kd_colour(group[2])
            axes.bar(
                place + shift,
                fmean(shares),
                0.36,
                color=colour if filled else "white",
                edgecolor=colour,
                hatch=None if filled else "////",
            )
            axes.annotate(
                f"{fmean(shares):.0f}", (place + shift, fmean(shares)), (0, 3), textcoords="offset points", ha="center"
            )
    axes.set_ylim(0, 100)
    axes.set_ylabel("% of the teacher's, mean over seeds")
    axes.set_title("Compression: what is left of the teacher")


def _legends(figure: "Figure", groups: dict[Group, list[Row]]) -> None:
    from matplotlib.patches import Patch

    marks = [legend_mark(seed_mark(index), FAINT, f"seed {seed}") for index, seed in enumerate(_seeds(groups))]
    lines = [legend_line(FAINT, "mean")]
    if published_means().keys() & groups.keys():
        lines.append(legend_line(STUDY, "the study's mean", dashed=True))
    bars = [
        Patch(facecolor=FAINT, edgecolor=FAINT, label="parameters"),
        Patch(facecolor="white", edgecolor=FAINT, hatch="////", label="MACs"),
    ]
    place_legend(figure, marks, 0.07, 0)
    place_legend(figure, lines, 0.07, 1)
    place_legend(figure, bars, 0.65, 0)


def _seeds(groups: dict[Group, list[Row]]) -> list[int]:
    return sorted({row.cell.seed for members in groups.values() for row in members})
