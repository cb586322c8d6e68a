"""Accuracy against latency ratio: what each way of compressing costs and brings, beside what the study published."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.reporting.chart_style import FAINT, INK, TEACHER_MARK, kd_colour, legend_mark, place_legend, pruning_mark
from harness.reporting.published import published_rows
from harness.reporting.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plottable(row: Row) -> bool:
    """Whether the row has both an accuracy and a latency ratio."""
    return row.accuracy_pct is not None and row.latency is not None and row.latency.ratio_to_teacher is not None


def draw(figure: "Figure", rows: Sequence[Row]) -> None:
    """One panel of our rows, and one of the study's where it has any of them; the same scale across."""
    published = {row.cell.title: published_rows().get(row.cell.title) for row in rows}
    compared = any(published[row.cell.title] for row in rows if not row.cell.is_teacher)
    panels = figure.subplots(1, 2 if compared else 1, squeeze=False, sharex=True)[0]
    for row in rows:
        if plottable(row):
            assert row.latency and row.latency.ratio_to_teacher and row.accuracy_pct is not None
            interval = row.latency.ratio_to_teacher
            panels[0].hlines(
                row.accuracy_pct, interval.low, interval.high, color=kd_colour(row.kd), linewidth=2, alpha=0.6
            )
            _point(panels[0], row, interval.value, row.accuracy_pct)
        figures = published[row.cell.title]
        if compared and figures:
            _point(panels[1], row, figures.ratio_to_teacher, figures.accuracy_pct)
    panels[0].set_title("Measured here, with 95 % intervals")
    if compared:
        panels[1].set_title("Published by the study, on its machine at 224 px")
    for panel in panels:
        panel.axvline(1, color=FAINT, linewidth=0.9, zorder=1)
        panel.set_xlabel("Latency ratio to the teacher (left is faster)")
        panel.set_ylabel("Accuracy (%)")
        panel.margins(0.08)
    _legend(figure, rows)


def _legend(figure: "Figure", rows: Sequence[Row]) -> None:
    students = [row for row in rows if not row.cell.is_teacher]
    prunings = sorted({row.pruning for row in students})
    kds = sorted({row.kd for row in students})
    marks = [legend_mark(pruning_mark(name), FAINT, f"{name} pruning") for name in prunings]
    colours = [legend_mark("o", kd_colour(name), f"KD: {name}") for name in kds]
    place_legend(figure, [legend_mark(TEACHER_MARK, INK, "teacher"), *marks], 0.07, 0)
    place_legend(figure, colours, 0.07, 1)


def _point(axes: "Axes", row: Row, ratio: float, accuracy_pct: float) -> None:
    mark, colour, size = (
        (TEACHER_MARK, INK, 15) if row.cell.is_teacher else (pruning_mark(row.pruning), kd_colour(row.kd), 8.5)
    )
    axes.plot(ratio, accuracy_pct, mark, color=colour, markersize=size, markeredgecolor="white", zorder=3)
