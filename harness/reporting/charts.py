"""Rows -> a chart. A table over several seeds gets the study's chart, any other accuracy against latency.

The same rows give the same bytes: no dates or versions are written into the file.
"""

from collections.abc import Sequence
from io import BytesIO

from harness.reporting import seeds_chart, trade_off_chart
from harness.reporting.chart_style import STUDY, STYLE
from harness.reporting.rows import Row
from harness.reporting.tables import over_seeds


def drawable(rows: Sequence[Row]) -> bool:
    """Whether there is a student to show."""
    if over_seeds(rows):
        return any(row.accuracy_pct is not None and not row.cell.is_teacher for row in rows)
    return any(trade_off_chart.plottable(row) and not row.cell.is_teacher for row in rows)


def draw(rows: Sequence[Row], title: str, subtitle: str) -> bytes:
    """The table's chart as PNG; the subtitle may have two lines."""
    # Half a second that no other verb should pay for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.style import context

    # after_reset: a user's own matplotlibrc must not change the figure.
    with context(STYLE, after_reset=True):
        figure = Figure(figsize=(10, 5.3))
        FigureCanvasAgg(figure)
        chart = seeds_chart if over_seeds(rows) else trade_off_chart
        chart.draw(figure, rows)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.79, bottom=0.215, wspace=0.2)
        figure.text(0.015, 0.945, title, va="center", fontsize=14, fontweight="bold")
        figure.text(0.015, 0.915, subtitle, va="top", fontsize=9, color=STUDY, linespacing=1.3)
        png = BytesIO()
        figure.savefig(png, dpi=150, metadata={"Software": None})
    return png.getvalue()
