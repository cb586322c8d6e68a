"""Accuracy against latency ratio: what each way of compressing costs and brings, beside what the study published."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.reporting.chart_style import (
    FAINT,
    INK,
    TEACHER_MARK,
    Below,
    kd_colours,
    legend_lines,
    legend_mark,
    pruning_marks,
)
from harness.reporting.rows import Row
from harness.reporting.study_tables import of_study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plottable(row: Row) -> bool:
    """Whether the row has both an accuracy and a latency ratio."""
    return row.accuracy_pct is not None and row.ratio is not None


def drawable(rows: Sequence[Row]) -> bool:
    """Whether there is a student to show."""
    return any(plottable(row) and not row.cell.is_teacher for row in rows)


def shown(rows: Sequence[Row]) -> list[Any]:
    """All that the chart shows of the rows, as plain JSON values."""
    return [
        [row.cell.is_teacher, row.pruning, row.kd, row.accuracy_pct, row.ratio.model_dump() if row.ratio else None]
        + ([row.published.ratio_to_teacher, row.published.accuracy_pct] if row.published else [])
        for row in rows
    ]


def draw(figure: "Figure", rows: Sequence[Row]) -> Below:
    """One panel of our rows, and one of the study's where it made any of them; the same scale across."""
    compared = of_study(rows)
    panels = figure.subplots(1, 2 if compared else 1, squeeze=False, sharex=True)[0]
    students = [row for row in rows if not row.cell.is_teacher]
    marks, colours = pruning_marks({row.pruning for row in students}), kd_colours({row.kd for row in students})

    def point(axes: "Axes", row: Row, ratio: float, accuracy_pct: float) -> None:
        teacher = row.cell.is_teacher
        mark, colour = (TEACHER_MARK, INK) if teacher else (marks[row.pruning], colours[row.kd])
        size = 15 if teacher else 8.5
        axes.plot(ratio, accuracy_pct, mark, color=colour, markersize=size, markeredgecolor="white", zorder=3)

    for row in rows:
        if row.accuracy_pct is not None and row.ratio is not None:
            colour = INK if row.cell.is_teacher else colours[row.kd]
            if row.ratio.bounds:
                panels[0].hlines(row.accuracy_pct, *row.ratio.bounds, color=colour, linewidth=2, alpha=0.6)
            point(panels[0], row, row.ratio.value, row.accuracy_pct)
        if compared and row.published:
            point(panels[1], row, row.published.ratio_to_teacher, row.published.accuracy_pct)
    panels[0].set_title("Measured here, with 95 % intervals")
    if compared:
        panels[1].set_title("Published by the study, on its machine at 224 px")
    for panel in panels:
        panel.axvline(1, color=FAINT, linewidth=0.9, zorder=1)
        panel.set_xlabel("Latency divided by the teacher's (left is faster)")
        panel.set_ylabel("Accuracy (%)")
        panel.margins(0.08)
    criteria = [legend_mark(mark, FAINT, f"{name} pruning") for name, mark in marks.items()]
    methods = [legend_mark("o", colour, f"KD: {name}") for name, colour in colours.items()]
    teacher = legend_mark(TEACHER_MARK, INK, "teacher")
    return Below([*legend_lines([teacher, *criteria]), *legend_lines(methods)])
