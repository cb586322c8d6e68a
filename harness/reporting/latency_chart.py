"""How latencies are distributed: what each process measured of each model, and the figure that stands for them all.

A model is measured by several processes of their own. Of each the record has the 1st percentile (an undisturbed core),
the median and the 90th percentile; the raw samples are not committed.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.reporting.chart_style import Room, Theme, legend_line, legend_lines, legend_mark
from harness.reporting.rows import Row
from harness.store.records import Process

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = "How latencies are distributed"
# Inches: of a letter of a name, of a line, and of the axes of a chart that is no taller than others.
LETTER, LINE, USUAL = 0.062, 0.3, 3.05
# The share of a line that processes are spread over.
SPREAD = 0.7


def _measured(row: Row) -> list[Process]:
    return row.latency.processes if row.latency else []


def drawable(rows: Sequence[Row]) -> bool:
    """Whether any model was measured."""
    return any(_measured(row) for row in rows)


def shown(rows: Sequence[Row]) -> list[Any]:
    """All that the chart shows of the rows, as plain JSON values."""
    return [
        [
            row.cell.title,
            row.kd,
            row.latency.latency_ms.model_dump() if row.latency and row.latency.latency_ms else None,
        ]
        + [[process.low_ms, process.median_ms, process.p90_ms] for process in _measured(row)]
        for row in rows
    ]


def draw(figure: "Figure", rows: Sequence[Row], theme: Theme) -> Room:
    """A line for each model in the table's order, and in it one for each process."""
    known = [row for row in rows if _measured(row)]
    axes = figure.subplots()
    colours = theme.colours({row.kd for row in known if not row.cell.is_teacher})
    for place, row in enumerate(known):
        colour = theme.ink if row.cell.is_teacher else colours[row.kd]
        processes = _measured(row)
        heights = [place + SPREAD * ((number + 0.5) / len(processes) - 0.5) for number in range(len(processes))]
        lows, medians = [one.low_ms for one in processes], [one.median_ms for one in processes]
        # one path with gaps in it, so that the file stays small
        along = [x for one in processes for x in (one.low_ms, one.p90_ms or one.median_ms, math.nan)]
        axes.plot(along, [height for height in heights for _ in range(3)], color=colour, lw=0.7, alpha=0.6)
        axes.plot(medians, heights, "|", color=colour, ms=4)
        axes.plot(lows, heights, ".", color=colour, ms=3.5)
        if row.latency_ms is not None:
            axes.vlines(row.latency_ms, place - 0.45, place + 0.45, color=theme.ink, lw=1.6)
    axes.set_yticks(range(len(known)), [row.cell.title for row in known], fontsize=8)
    axes.set_ylim(len(known) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlabel("Latency (ms)")
    methods = [legend_line(colour, f"KD: {name}") for name, colour in colours.items()]
    parts = [
        legend_line(theme.ink, "the latency in the table"),
        legend_mark(".", theme.faint, "a process's 1st percentile", theme.faint),
        legend_mark("|", theme.faint, "its median", theme.faint),
        legend_line(theme.faint, "up to its 90th percentile"),
    ]
    longest = max(len(row.cell.title) for row in known)
    return Room(
        [*legend_lines(parts), *legend_lines(methods)],
        left=max(0.0, LETTER * longest - 0.5),
        taller=max(0.0, LINE * len(known) - USUAL),
    )
