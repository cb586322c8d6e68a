"""The study's chart: accuracy per seed and KD method with its mean, and how much of the teacher is left."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from harness.reporting.chart_style import DASHED, Room, Theme, legend_line, legend_lines, legend_mark, seed_mark
from harness.reporting.rows import Model, Row, accuracies
from harness.reporting.tables import axis_headers, students

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABOUT = "Accuracy over seeds, and what is left of the teacher"
HALF = 0.3
# More groups than these have their names on the slant, which takes some inches per letter below the axes, and no
# figures beside their marks, where there is no room for them: the table has them.
UPRIGHT = 3
ANGLE, LETTER = 55, 0.053
Measure = Callable[[Row], int | None]
MEASURES: dict[str, Measure] = {"parameters": lambda row: row.params, "MACs": lambda row: row.macs}


def drawable(rows: Sequence[Row]) -> bool:
    """Whether there is a student to show."""
    return any(row.accuracy_pct is not None and not row.cell.is_teacher for row in rows)


def shown(rows: Sequence[Row]) -> list[Any]:
    """All that the chart shows of the rows, as plain JSON values."""
    return [
        [
            row.cell.is_teacher,
            row.cell.prune_amount,
            row.pruning,
            row.kd,
            row.axes,
            row.cell.seed,
            row.accuracy_pct,
            row.params,
            row.macs,
            row.published_mean,
        ]
        for row in rows
    ]


def draw(figure: "Figure", rows: Sequence[Row], theme: Theme) -> Room:
    """Two panels: accuracies, and how many of the teacher's parameters and MACs are left."""
    groups = sorted(students(rows), key=lambda members: _place(members[0]))
    colours = theme.colours({members[0].kd for members in groups})
    seeds = sorted({row.cell.seed for members in groups for row in members})
    accuracy, size = figure.subplots(1, 2, width_ratios=(3, 2))
    _accuracies(accuracy, rows, groups, colours, seeds, theme)
    _sizes(size, rows, groups, colours, theme)
    headers = axis_headers(rows)
    upright = len(groups) <= UPRIGHT
    # what all have in common would only make the names longer
    pruned = upright or len({(members[0].pruning, members[0].cell.prune_amount) for members in groups}) > 1
    names = [_name(members[0], headers, "\n" if upright else ", ", pruned) for members in groups]
    for axes in (accuracy, size):
        axes.set_xticks(range(len(groups)), names)
        axes.set_xlim(-0.65, len(groups) - 0.35)
        axes.tick_params(axis="x", length=0)
        if not upright:
            axes.tick_params(axis="x", labelrotation=ANGLE, labelsize=8)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
    longest = max(map(len, names), default=0)
    inches = 0.16 * len(headers) if upright else max(0.0, LETTER * longest - 0.4)
    return Room(_legend(groups, seeds, theme), inches)


def _place(row: Row) -> tuple[float, str, str, list[str]]:
    return row.cell.prune_amount or 0.0, row.pruning, row.kd, list(row.axes.values())


def _name(row: Row, headers: dict[str, str], between: str, pruned: bool) -> str:
    own = [f"{headers[axis]} {value}" for axis, value in row.axes.items()]
    return between.join([row.kd, *([f"{row.pruning} {row.cell.prune_amount:g}"] if pruned else []), *own])


def _accuracies(
    axes: "Axes",
    rows: Sequence[Row],
    groups: Sequence[Model],
    colours: dict[str, str],
    seeds: list[int],
    theme: Theme,
) -> None:
    step, figures = 2 * HALF / max(len(seeds), 2), len(groups) <= UPRIGHT
    for place, members in enumerate(groups):
        colour, values, published = colours[members[0].kd], accuracies(members), members[0].published_mean
        if published is not None:
            _mean(axes, place, published, theme.muted, figures, dashed=True)
        if values:
            _mean(axes, place, fmean(values), colour, figures)
        for row in members:
            if row.accuracy_pct is not None:
                index = seeds.index(row.cell.seed)
                across = place + (index - (len(seeds) - 1) / 2) * step
                size = 8 if figures else min(6, 60 / len(groups))
                edge: dict[str, Any] = {"markeredgecolor": theme.background, "markeredgewidth": 0.8}
                axes.plot(across, row.accuracy_pct, seed_mark(index), color=colour, ms=size, zorder=3, **edge)
    teacher = next((row.accuracy_pct for row in rows if row.cell.is_teacher), None)
    if teacher is not None:
        axes.axhline(teacher, color=theme.ink, linewidth=1, linestyle=DASHED)
    axes.set_ylabel("Accuracy (%)")
    axes.set_title("Accuracy, one mark per seed" + ("" if teacher is None else f"; the teacher's is {teacher:.2f} %"))
    axes.margins(y=0.12)


def _mean(axes: "Axes", place: int, mean: float, colour: str, figure: bool, dashed: bool = False) -> None:
    axes.hlines(mean, place - HALF, place + HALF, color=colour, linewidth=1.8, linestyles=DASHED if dashed else "-")
    if not figure:
        return
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


def _sizes(axes: "Axes", rows: Sequence[Row], groups: Sequence[Model], colours: dict[str, str], theme: Theme) -> None:
    teacher = next((row for row in rows if row.cell.is_teacher), None)
    for shift, (name, measure) in zip((-0.2, 0.2), MEASURES.items(), strict=True):
        whole = measure(teacher) if teacher else None
        for place, members in enumerate(groups):
            found = [measure(row) for row in members]
            shares = [100 * value / whole for value in found if value and whole]
            if not shares:
                continue
            colour, filled = colours[members[0].kd], name == "parameters"
            axes.bar(
                place + shift,
                fmean(shares),
                0.36,
                color=colour if filled else theme.background,
                edgecolor=colour,
                hatch=None if filled else "////",
            )
            if len(groups) <= UPRIGHT:
                top = (place + shift, fmean(shares))
                axes.annotate(f"{fmean(shares):.0f}", top, (0, 3), textcoords="offset points", ha="center")
    axes.set_ylim(0, 100)
    axes.set_ylabel("% of the teacher's, mean over seeds")
    axes.set_title("Compression: what is left of the teacher")


def _legend(groups: Sequence[Model], seeds: list[int], theme: Theme) -> list[list[Any]]:
    from matplotlib.patches import Patch

    marks = [
        legend_mark(seed_mark(index), theme.faint, f"seed {seed}", theme.background) for index, seed in enumerate(seeds)
    ]
    others: list[Any] = [legend_line(theme.faint, "mean")]
    if any(members[0].published_mean is not None for members in groups):
        others.append(legend_line(theme.muted, "the study's mean", dashed=True))
    others += [
        legend_line(theme.ink, "the teacher", dashed=True),
        Patch(facecolor=theme.faint, edgecolor=theme.faint, label="parameters"),
        Patch(facecolor=theme.background, edgecolor=theme.faint, hatch="////", label="MACs"),
    ]
    return [*legend_lines(marks), *legend_lines(others)]
