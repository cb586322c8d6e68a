"""The study's models beside ours, both as ratios to their own teachers and on the same scales."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.reporting.chart_labels import Named, place_names, room_for
from harness.reporting.chart_style import Room, Theme, legend_lines
from harness.reporting.pareto_chart import Point, at_the_teacher, draw_points, legend_of, points_of
from harness.reporting.rows import Row
from harness.reporting.study_tables import of_study, study_rows
from harness.store.records import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = "What the study published, beside what was measured here"


def _ours(rows: Sequence[Row]) -> list[Point]:
    points = points_of(rows)
    teacher = next((point.accuracy.value for point in points if point.row.cell.is_teacher), None)
    return [_divided(point, teacher) for point in points] if teacher else []


def _theirs(rows: Sequence[Row]) -> list[Point]:
    """The study's, by the names that ours have; it published no intervals."""
    names = {point.row.cell.id: point.name for point in points_of(rows)}
    found = [
        Point(
            row,
            names.get(row.cell.id, ""),
            Interval(value=one.ratio_to_teacher),
            Interval(value=one.accuracy_pct),
            front=False,
        )
        for row, one in study_rows(rows)
    ]
    teacher = next((point.accuracy.value for point in found if point.row.cell.is_teacher), None)
    return [_divided(point, teacher) for point in found] if teacher else []


def _divided(point: Point, by: float) -> Point:
    value, bounds = point.accuracy.value / by, point.accuracy.bounds
    ends = {"low": bounds[0] / by, "high": bounds[1] / by} if bounds else {}
    return replace(point, accuracy=Interval(value=value, **ends))


def drawable(rows: Sequence[Row]) -> bool:
    """Whether there are students of ours and of the study's."""
    return of_study(rows) and any(not point.row.cell.is_teacher for point in _ours(rows))


def shown(rows: Sequence[Row]) -> list[Any]:
    """All that the chart shows of the rows, as plain JSON values."""
    return [
        [
            [point.name, point.row.pruning, point.row.kd, point.ratio.model_dump(), point.accuracy.model_dump()]
            for point in side
        ]
        for side in (_ours(rows), _theirs(rows))
    ]


def draw(figure: "Figure", rows: Sequence[Row], theme: Theme) -> Room:
    """Two panels with the same scales."""
    sides = (_ours(rows), _theirs(rows))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    titles = ("Measured here, with 95 % intervals", "Published by the study, on its machine at 224 px")
    lines = [draw_points(axes, points, theme) for axes, points in zip(panels, sides, strict=True)]
    for axes, title in zip(panels, titles, strict=True):
        axes.axhline(1, color=theme.faint, linewidth=0.9, zorder=1)
        axes.set_title(title)
        axes.set_xlabel("Latency divided by the teacher's (left is faster)")
        axes.margins(0.1)
    panels[0].set_ylabel("Accuracy divided by the teacher's")
    entries = legend_of([*sides[0], *sides[1]], theme)

    def finish() -> None:
        for axes, points, own in zip(panels, sides, lines, strict=True):
            named = [Named(point.ratio.value, point.accuracy.value, point.name) for point in points]
            place_names(axes, named, [*own, *at_the_teacher(axes)], theme)

    return Room([*legend_lines(entries[0]), *legend_lines(entries[1])], taller=room_for(sides[0]), finish=finish)
