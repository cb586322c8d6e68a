"""How charts look: one palette, and one mark per series. Nothing here imports matplotlib until something is drawn."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

INK, FAINT, STUDY = "#222222", "#8a8a8a", "#555555"
DASHED = (0, (4, 2))
# The study's methods and the two controls keep Okabe and Ito's colours; the other methods share what follows. All
# fourteen stay apart in the eyes of the colour-blind.
KD_COLOURS = {
    "Base": "#0072B2",
    "FMSE+Base": "#D55E00",
    "GRAM+Base": "#009E73",
    "None": "#CC79A7",
    "None (from scratch)": "#E69F00",
}
OTHER_COLOURS = ("#920000", "#DDCC77", "#490092", "#FFB2FD", "#008DF9", "#8400CD", "#117733", "#F0E442", "#E20134")
PRUNING_MARKS = {"L1": "o", "BN": "s", "GN": "^"}
OTHER_MARKS = "DvPX<>hdp8H"
TEACHER_MARK = "*"
SEED_MARKS = "osD^vPX<>hdp8H"
# Inches: the height of a line of the legend, and the characters that fit into one.
LEGEND_LINE, LEGEND_CHARACTERS = 0.24, 130
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


@dataclass(frozen=True)
class Below:
    """What stands below a chart's axes: lines of legend entries, and inches for names of more than two lines."""

    legend: "list[list[Artist]]"
    inches: float = 0.0


def kd_colours(names: Collection[str]) -> dict[str, str]:
    """A colour for each value of the KD column; they repeat after fourteen."""
    return _assigned(names, KD_COLOURS, OTHER_COLOURS)


def pruning_marks(names: Collection[str]) -> dict[str, str]:
    """A mark for each value of the Pruning column; they repeat after fourteen."""
    return _assigned(names, PRUNING_MARKS, OTHER_MARKS)


def _assigned(names: Collection[str], known: Mapping[str, str], others: Sequence[str]) -> dict[str, str]:
    """Known names keep what is theirs; the others, in alphabetical order, get what is left."""
    taken = {known[name] for name in names if name in known}
    left = cycle(one for one in (*others, *known.values()) if one not in taken)
    return {name: known[name] if name in known else next(left) for name in sorted(set(names))}


def seed_mark(place: int) -> str:
    """The mark of the seed at this place; they repeat after fourteen."""
    return SEED_MARKS[place % len(SEED_MARKS)]


def legend_mark(mark: str, colour: str, label: str) -> "Line2D":
    """A legend entry for a mark."""
    from matplotlib.lines import Line2D

    size = 13 if mark == TEACHER_MARK else 8
    return Line2D(
        [], [], marker=mark, linestyle="", color=colour, markeredgecolor="white", markersize=size, label=label
    )


def legend_line(colour: str, label: str, dashed: bool = False) -> "Line2D":
    """A legend entry for a line."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linestyle=DASHED if dashed else "-", linewidth=1.8, label=label)


def legend_lines(entries: "Sequence[Artist]") -> "Iterator[list[Artist]]":
    """Legend entries as lines that fit the figure's width."""
    line: list[Artist] = []
    length = 0
    for entry in entries:
        added = len(str(entry.get_label())) + 6
        if line and length + added > LEGEND_CHARACTERS:
            yield line
            line, length = [], 0
        line.append(entry)
        length += added
    if line:
        yield line


def place_legend(figure: "Figure", lines: "Sequence[Sequence[Artist]]") -> None:
    """Put lines of legend entries below the axes."""
    for place, line in enumerate(reversed(lines)):
        height = (0.16 + LEGEND_LINE * place) / figure.get_figheight()
        anchor = (0.07, height)
        figure.legend(handles=line, loc="center left", bbox_to_anchor=anchor, ncols=len(line), borderaxespad=0)
