"""How charts look: one palette, one mark per series. Nothing here imports matplotlib until something is drawn."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

INK, FAINT, STUDY = "#222222", "#8a8a8a", "#555555"
DASHED = (0, (4, 2))
# Okabe and Ito's colours, told apart by the colour-blind; a method of one's own gets the last.
KD_COLOURS = {
    "Base": "#0072B2",
    "FMSE+Base": "#D55E00",
    "GRAM+Base": "#009E73",
    "None": "#CC79A7",
    "None (from scratch)": "#E69F00",
}
OTHER_COLOUR = "#56B4E9"
PRUNING_MARKS = {"L1": "o", "BN": "s", "GN": "^"}
OTHER_MARK = "D"
TEACHER_MARK = "*"
SEED_MARKS = "osD^v"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handletextpad": 0.4,
    "legend.columnspacing": 1.4,
    "hatch.linewidth": 0.8,
}


def kd_colour(kd: str) -> str:
    """The colour of a KD column's value."""
    return KD_COLOURS.get(kd, OTHER_COLOUR)


def pruning_mark(pruning: str) -> str:
    """The mark of a Pruning column's value."""
    return PRUNING_MARKS.get(pruning, OTHER_MARK)


def seed_mark(place: int) -> str:
    """The mark of the seed at this place; they repeat after five."""
    return SEED_MARKS[place % len(SEED_MARKS)]


def legend_mark(mark: str, colour: str, label: str) -> "Line2D":
    """A legend entry for a mark."""
    from matplotlib.lines import Line2D

    size = 13 if mark == TEACHER_MARK else 8
    return Line2D(
        [], [], marker=mark, linestyle="", color=colour, markeredgecolor="white", markersize=size, label=label
    )


def place_legend(figure: "Figure", handles: "Sequence[Artist]", left: float, row: int) -> None:
    """A row of legend entries below the axes; `left` as a share of the figure's width, row 0 above row 1."""
    place = (left, 0.075 - 0.045 * row)
    figure.legend(handles=handles, loc="center left", bbox_to_anchor=place, ncols=len(handles), borderaxespad=0)


def legend_line(colour: str, label: str, dashed: bool = False) -> "Line2D":
    """A legend entry for a line."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linestyle=DASHED if dashed else "-", linewidth=1.8, label=label)
