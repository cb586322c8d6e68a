"""Accuracy against latency with the uncertainty of both: which models are worth their latency, and by how much."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from harness.reporting.chart_labels import Line, Named, place_names, room_for
from harness.reporting.chart_style import (
    DASHED,
    TEACHER_MARK,
    Room,
    Theme,
    legend_line,
    legend_lines,
    legend_mark,
    pruning_marks,
)
from harness.reporting.differences import mean_ratio, to_teacher
from harness.reporting.rows import Model, Row, accuracies, fronts, models_of
from harness.store.records import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABOUT = "Accuracy against latency"


@dataclass(frozen=True)
class Point:
    """A model of the chart: its latency ratio, and its accuracy (%) with what is known of its difference to the
    teacher's."""

    row: Row
    name: str
    ratio: Interval
    accuracy: Interval
    front: bool


def points_of(rows: Sequence[Row]) -> list[Point]:
    """The models that have both figures, those of the front first; several seeds are one point at their mean."""
    models = models_of(rows)
    found = [
        Point(model[0], _name(model, rows), ratio, accuracy, rank == 1)
        for model, rank in zip(models, fronts(models), strict=True)
        if (ratio := mean_ratio(model)) and (accuracy := _accuracy(model, rows))
    ]
    return sorted(found, key=lambda point: not point.front)


def _accuracy(model: Model, rows: Sequence[Row]) -> Interval | None:
    known = accuracies(model)
    if not known:
        return None
    value, difference = sum(known) / len(known), to_teacher(model, rows)
    if difference is None or difference.bounds is None:
        return Interval(value=value)
    # the teacher is the measure, so all of what is uncertain is shown at the student
    low, high = (value + bound - difference.value for bound in difference.bounds)
    return Interval(value=value, low=min(low, value), high=max(high, value))


def _name(model: Model, rows: Sequence[Row]) -> str:
    """As short as it can be: what all students have in common is left out."""
    first = model[0]
    if first.cell.is_teacher:
        return "teacher"
    students = [row for row in rows if not row.cell.is_teacher]
    parts: list[tuple[str, set[Any]]] = [
        (first.pruning, {row.pruning for row in students}),
        (f"{first.cell.prune_amount:g}", {row.cell.prune_amount for row in students}),
        (first.kd.removesuffix("+Base"), {row.kd for row in students}),
        *(
            (f"{axis.rpartition('.')[2]} {value}", {row.axes.get(axis) for row in students})
            for axis, value in first.axes.items()
        ),
    ]
    return " ".join(text for text, values in parts if len(values) > 1) or first.kd


def drawable(rows: Sequence[Row]) -> bool:
    """Whether there is a student to show."""
    return any(not point.row.cell.is_teacher for point in points_of(rows))


def shown(rows: Sequence[Row]) -> list[Any]:
    """All that the chart shows of the rows, as plain JSON values."""
    return [
        [point.name, point.row.pruning, point.row.kd, point.ratio.model_dump(), point.accuracy.model_dump()]
        for point in points_of(rows)
    ]


def draw(figure: "Figure", rows: Sequence[Row], theme: Theme) -> Room:
    """One panel: each model with its intervals, and the front as a line."""
    points = points_of(rows)
    axes = figure.subplots()
    lines = draw_points(axes, points, theme)
    lines += _front(axes, points, theme)
    axes.set_xlabel("Latency divided by the teacher's (left is faster)")
    axes.set_ylabel("Accuracy (%)")
    axes.margins(0.08)
    entries = legend_of(points, theme)
    entries[0].append(legend_line(theme.faint, "the best for its latency", dashed=True))
    named = [Named(point.ratio.value, point.accuracy.value, point.name, point.front) for point in points]
    return Room(
        [*legend_lines(entries[0]), *legend_lines(entries[1])],
        taller=room_for(points),
        finish=lambda: place_names(axes, named, [*lines, *at_the_teacher(axes)[:1]], theme),
    )


def draw_points(axes: "Axes", points: Sequence[Point], theme: Theme) -> list[Line]:
    """Marks with their intervals, and a line at the teacher's latency; returns the lines."""
    marks, colours = _looks(points, theme)
    lines: list[Line] = []
    for point in points:
        row, x, y = point.row, point.ratio.value, point.accuracy.value
        colour = theme.ink if row.cell.is_teacher else colours[row.kd]
        mark = TEACHER_MARK if row.cell.is_teacher else marks[row.pruning]
        if not row.cell.is_teacher:
            if point.ratio.bounds:
                lines.append(tuple((bound, y) for bound in point.ratio.bounds))  # type: ignore[arg-type]
            if point.accuracy.bounds:
                lines.append(tuple((x, bound) for bound in point.accuracy.bounds))  # type: ignore[arg-type]
            axes.errorbar(x, y, _halves(point.accuracy), _halves(point.ratio), ecolor=colour, capsize=3, elinewidth=1.4)
        size = 15 if row.cell.is_teacher else 8.5
        axes.plot(x, y, mark, color=colour, markersize=size, markeredgecolor=theme.background, zorder=3)
    axes.axvline(1, color=theme.faint, linewidth=0.9, zorder=1)
    return lines


def at_the_teacher(axes: "Axes") -> list[Line]:
    """The lines at its latency ratio and, where accuracies are ratios as well, at its accuracy."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    return [((1, low), (1, high)), ((left, 1), (right, 1))]


def legend_of(points: Sequence[Point], theme: Theme) -> list[list[Any]]:
    """Entries for the ways of pruning, and for the methods of distillation."""
    marks, colours = _looks(points, theme)
    edge = theme.background
    return [
        [
            legend_mark(TEACHER_MARK, theme.ink, "teacher", edge),
            *(legend_mark(mark, theme.faint, f"{name} pruning", edge) for name, mark in marks.items()),
        ],
        [legend_mark("o", colour, f"KD: {name}", edge) for name, colour in colours.items()],
    ]


def _looks(points: Sequence[Point], theme: Theme) -> tuple[dict[str, str], dict[str, str]]:
    students = [point.row for point in points if not point.row.cell.is_teacher]
    return pruning_marks({row.pruning for row in students}), theme.colours({row.kd for row in students})


def _halves(found: Interval) -> list[list[float]] | None:
    if found.bounds is None:
        return None
    return [[found.value - found.bounds[0]], [found.bounds[1] - found.value]]


def _front(axes: "Axes", points: Sequence[Point], theme: Theme) -> list[Line]:
    """The highest accuracy that is to be had at a latency, as steps."""
    front = sorted((point.ratio.value, point.accuracy.value) for point in points if point.front)
    axes.step(*zip(*front, strict=True), where="post", color=theme.faint, linewidth=1.3, linestyle=DASHED, zorder=1)
    corners = [(later[0], earlier[1]) for earlier, later in pairwise(front)]
    return [*zip(front, corners, strict=False), *zip(corners, front[1:], strict=True)]
