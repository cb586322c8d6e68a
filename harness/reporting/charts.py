"""Rows -> charts. A table over several seeds gets the study's chart, any other accuracy against latency.

Every table whose students were tested while they trained gets one of their recovery beside it.

The same rows give the same bytes: neither dates nor versions are written into the file. A stamp in it says what the
chart shows, so that one whose rows have changed since can be told from one that is current, on any machine and without
drawing it again.
"""

import hashlib
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.files import digest
from harness.reporting import recovery_chart, seeds_chart, trade_off_chart
from harness.reporting.chart_style import LEGEND_LINE, STUDY, STYLE, Below, place_legend
from harness.reporting.escaping import one_line
from harness.reporting.rows import Row
from harness.reporting.tables import over_seeds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches. WIDTH x HEIGHT is a chart with two lines of legend.
WIDTH, HEIGHT, HEAD, FOOT = 10.0, 5.3, 1.11, 1.14
DPI = 150
STAMP = "Source"


class Chart(Protocol):
    """A kind of chart: a module of this package."""

    def drawable(self, rows: Sequence[Row]) -> bool:
        """Whether there is a student to show."""

    def shown(self, rows: Sequence[Row]) -> list[Any]:
        """All that the chart shows of the rows, as plain JSON values."""

    def draw(self, figure: "Figure", rows: Sequence[Row]) -> Below:
        """Draw the axes; returns what belongs below them."""


# What the file names of a table's charts end in, after the name of its experiment.
MAIN, RECOVERY = "", "-recovery"
MOST_ROWS = 500


def charts_of(rows: Sequence[Row]) -> dict[str, Chart]:
    """The charts of a table, whether or not there is anything to draw yet."""
    return {MAIN: seeds_chart if over_seeds(rows) else trade_off_chart, RECOVERY: recovery_chart}


def drawable(chart: Chart, rows: Sequence[Row]) -> bool:
    """Whether there is a student to show, and not more of them than anybody could tell apart."""
    return len(rows) <= MOST_ROWS and chart.drawable(rows)


def draw(chart: Chart, rows: Sequence[Row], title: str, subtitle: str) -> bytes:
    """A chart as PNG; the subtitle may have two lines."""
    # A notebook or shell may name a backend that is not installed here, which matplotlib refuses; none is used.
    os.environ["MPLBACKEND"] = "agg"
    # This takes half a second, which no other verb should have to wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.style import context
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    # after_reset: a user's own matplotlibrc must not change the figure. Titles are no formulas, whatever is in them.
    with context({**STYLE, "text.parse_math": False}, after_reset=True):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        below = chart.draw(figure, rows)
        foot = FOOT + below.inches + LEGEND_LINE * (len(below.legend) - 2)
        height = HEIGHT + foot - FOOT
        figure.set_figheight(height)
        figure.subplots_adjust(left=0.07, right=0.985, top=1 - HEAD / height, bottom=foot / height, wspace=0.2)
        place_legend(figure, below.legend)
        figure.text(0.015, 1 - 0.29 / height, one_line(title), va="center", fontsize=14, fontweight="bold")
        figure.text(0.015, 1 - 0.45 / height, subtitle, va="top", fontsize=9, color=STUDY, linespacing=1.3)
        canvas.draw()
    size, pixels = canvas.get_width_height(), bytes(canvas.buffer_rgba())
    image = Image.frombytes("RGBA", size, pixels).convert("RGB")
    about, png = PngInfo(), BytesIO()
    about.add_text(STAMP, _stamp(chart, rows, title, subtitle, image.tobytes()))
    image.save(png, format="PNG", dpi=(DPI, DPI), pnginfo=about)
    return png.getvalue()


def is_current(figure: Path, chart: Chart, rows: Sequence[Row], title: str, subtitle: str) -> bool:
    """Whether a file is the chart of these rows, as it was drawn."""
    from PIL import Image

    try:
        with Image.open(figure, formats=["PNG"]) as image:
            return image.info.get(STAMP) == _stamp(chart, rows, title, subtitle, image.tobytes())
    except (OSError, SyntaxError, ValueError):
        return False


def _stamp(chart: Chart, rows: Sequence[Row], title: str, subtitle: str, pixels: bytes) -> str:
    return digest([title, subtitle, chart.shown(rows), hashlib.sha256(pixels).hexdigest()])
