"""Rows -> charts, as SVG and on demand as PNG, in a light and a dark theme.

The same rows give the same bytes: neither dates nor versions are written into a file. A stamp in it says what the chart
shows, so that one whose rows have changed since can be told from one that is current, on any machine and without
drawing it again.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from harness.files import digest
from harness.reporting import (
    latency_chart,
    pareto_chart,
    recovery_chart,
    seeds_chart,
    study_chart,
    training_chart,
    widths_chart,
)
from harness.reporting.chart_files import DPI, as_svg, recoloured, stamped, stamped_png, stamped_svg
from harness.reporting.chart_style import LEGEND_LINE, LIGHT, THEMES, Room, Theme, place_legend, style
from harness.reporting.escaping import one_line
from harness.reporting.rows import Row
from harness.reporting.tables import over_seeds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches. WIDTH x HEIGHT is a chart with two lines of legend.
WIDTH, HEIGHT, HEAD, FOOT, LEFT = 10.0, 5.3, 1.11, 1.14, 0.7


class Chart(Protocol):
    """A kind of chart: a module of this package."""

    # what a document says of it
    ABOUT: str

    def drawable(self, rows: Sequence[Row]) -> bool:
        """Whether there is anything to show."""

    def shown(self, rows: Sequence[Row]) -> list[Any]:
        """All that the chart shows of the rows, as plain JSON values."""

    def draw(self, figure: "Figure", rows: Sequence[Row], theme: Theme) -> Room:
        """Draw the axes; returns the room that is needed around them."""


# Of more rows nothing in a chart could be told from the rest, and placing names takes the square of their number.
MOST_ROWS = 500
# Whoever changes how a chart looks raises this: a file of an earlier look is drawn again.
LOOK = 1
# What the file names of a table's charts end in, after the name of its experiment.
MAIN = ""
PARETO, STUDY, LATENCY, WIDTHS, TRAINING, RECOVERY = (
    "-pareto",
    "-study",
    "-latency",
    "-widths",
    "-training",
    "-recovery",
)
SUFFIXES = (MAIN, PARETO, STUDY, LATENCY, WIDTHS, TRAINING, RECOVERY)


class Picture(NamedTuple):
    """One of a chart's files."""

    theme: Theme
    form: str

    @property
    def ending(self) -> str:
        """How its file name ends."""
        return f"{'' if self.theme is LIGHT else f'-{self.theme.name}'}.{self.form}"


# Those that are always drawn and committed; the others are for slides and papers, and drawn on demand.
FORMATS = COMMITTED, ON_DEMAND = "svg", "png"
PICTURES = tuple(Picture(theme, form) for form in FORMATS for theme in THEMES)


def charts_of(rows: Sequence[Row]) -> dict[str, Chart]:
    """The charts of a table, whether or not there is anything to draw yet; none of one with too many rows."""
    if len(rows) > MOST_ROWS:
        return {}
    seeds = over_seeds(rows)
    return {
        MAIN: seeds_chart if seeds else pareto_chart,
        **({PARETO: pareto_chart} if seeds else {}),
        STUDY: study_chart,
        LATENCY: latency_chart,
        WIDTHS: widths_chart,
        TRAINING: training_chart,
        RECOVERY: recovery_chart,
    }


@contextmanager
def drawn(chart: Chart, rows: Sequence[Row], title: str, subtitle: str, theme: Theme) -> "Iterator[Figure]":
    """A chart as a figure, for as long as the theme's settings hold; the subtitle may have two lines."""
    # A notebook or shell may name a backend that is not installed here, which matplotlib refuses; none is used.
    os.environ["MPLBACKEND"] = "agg"
    # Slow to import, which no other verb should have to wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.style import context

    # after_reset: a user's own matplotlibrc must not change the figure
    with context(style(theme), after_reset=True):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
        FigureCanvasAgg(figure)
        room = chart.draw(figure, rows, theme)
        foot = FOOT + room.below + LEGEND_LINE * (len(room.legend) - 2)
        height = HEIGHT + foot - FOOT + room.taller
        figure.set_figheight(height)
        left = (LEFT + room.left) / WIDTH
        figure.subplots_adjust(left=left, right=0.985, top=1 - HEAD / height, bottom=foot / height, wspace=0.2)
        place_legend(figure, room.legend)
        figure.text(0.015, 1 - 0.29 / height, one_line(title), va="center", fontsize=14, fontweight="bold")
        figure.text(0.015, 1 - 0.45 / height, subtitle, va="top", fontsize=9, color=theme.muted, linespacing=1.3)
        if room.finish:
            room.finish()
        yield figure


def draw(chart: Chart, rows: Sequence[Row], title: str, subtitle: str, form: str = "svg") -> dict[Picture, bytes]:
    """A chart's files of one format, one for each theme."""
    stamps = {theme: partial(_stamp, [title, subtitle, theme.name, chart.shown(rows)]) for theme in THEMES}
    files = {}
    if form == "svg":
        with drawn(chart, rows, title, subtitle, LIGHT) as figure:
            svg = as_svg(figure)
        for theme in THEMES:
            files[Picture(theme, form)] = stamped_svg(recoloured(svg, LIGHT.turned(theme)), stamps[theme])
        return files
    for theme in THEMES:
        with drawn(chart, rows, title, subtitle, theme) as figure:
            files[Picture(theme, form)] = stamped_png(figure, stamps[theme])
    return files


def is_current(path: Path, picture: Picture, chart: Chart, rows: Sequence[Row], title: str, subtitle: str) -> bool:
    """Whether a file is the chart of these rows, as it was drawn."""
    found = stamped(path)
    said = [title, subtitle, picture.theme.name, chart.shown(rows)]
    return found is not None and found[0] == _stamp(said, found[1])


def _stamp(said: list[Any], seen: str) -> str:
    return digest([LOOK, *said, seen])
