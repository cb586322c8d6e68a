"""How charts look: two themes, and one mark per series. Nothing here imports matplotlib until something is drawn."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

DASHED = (0, (4, 2))


@dataclass(frozen=True, eq=False)
class Theme:
    """The colours of a chart. `known` are those of the study's methods and the two controls; others share `more`.

    All fourteen, the ink and the background stay apart in the eyes of the colour-blind.
    """

    name: str
    background: str
    ink: str
    faint: str
    muted: str
    grid: str
    lost: str
    known: Mapping[str, str]
    more: Sequence[str]

    def colours(self, names: Collection[str]) -> dict[str, str]:
        """A colour for each value of the KD column; they repeat after fourteen."""
        return _assigned(names, self.known, self.more)

    def turned(self, other: "Theme") -> dict[str, str]:
        """Every colour of this theme with what the other one has in its place."""
        return dict(zip(self._all, other._all, strict=True))

    @property
    def _all(self) -> list[str]:
        own = [self.background, self.ink, self.faint, self.muted, self.grid, self.lost]
        return [*own, *(self.known[name] for name in KD_NAMES), *self.more]


KD_NAMES = ("Base", "FMSE+Base", "GRAM+Base", "None", "None (from scratch)")
LIGHT = Theme(
    name="light",
    background="#ffffff",
    ink="#222222",
    faint="#8a8a8a",
    muted="#555555",
    grid="#e4e4e4",
    lost="#c9c9c9",
    # Okabe and Ito's
    known=dict(zip(KD_NAMES, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"), strict=True)),
    more=("#920000", "#DDCC77", "#490092", "#FFB2FD", "#008DF9", "#8400CD", "#117733", "#F0E442", "#E20134"),
)
DARK = Theme(
    name="dark",
    background="#0d1117",
    ink="#e6edf3",
    faint="#7d8590",
    muted="#9ea7b3",
    grid="#272d36",
    lost="#3d444d",
    # the same hues, light enough to be seen on the background
    known=dict(zip(KD_NAMES, ("#3D9BE9", "#E8702A", "#2BB58A", "#DD92BC", "#F0B429"), strict=True)),
    more=("#4D3DFA", "#C6F79D", "#B1493A", "#A7318A", "#67C06F", "#845A63", "#E0F874", "#5A4ECE", "#C9BDFB"),
)
THEMES = (LIGHT, DARK)
# It comes with matplotlib.
FONT = "DejaVu Sans"
PRUNING_MARKS = {"L1": "o", "BN": "s", "GN": "^"}
OTHER_MARKS = "DvPX<>hdp8H"
TEACHER_MARK = "*"
SEED_MARKS = "osD^vPX<>hdp8H"
# Inches: the height of a line of the legend, and the characters that fit into one.
LEGEND_LINE, LEGEND_CHARACTERS = 0.24, 110


def style(theme: Theme) -> dict[str, Any]:
    """Matplotlib's settings for a theme. Titles are no formulas, whatever is in them."""
    return {
        "font.family": FONT,
        "font.size": 10,
        "text.color": theme.ink,
        "text.parse_math": False,
        "figure.facecolor": theme.background,
        "axes.facecolor": theme.background,
        "axes.edgecolor": theme.faint,
        "axes.labelcolor": theme.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlecolor": theme.ink,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "hatch.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "legend.handletextpad": 0.4,
        "legend.columnspacing": 1.4,
        "legend.labelcolor": theme.ink,
        # Text stays text, and the names of clip paths are the same every time.
        "svg.fonttype": "none",
        "svg.hashsalt": "harness",
    }


@dataclass(frozen=True)
class Room:
    """What a chart needs around its axes: lines of legend entries, inches below them and to their left, and by how many
    inches they are taller than those of other charts. `finish` is called once the axes have their final size."""

    legend: "list[list[Artist]]"
    below: float = 0.0
    left: float = 0.0
    taller: float = 0.0
    finish: Callable[[], object] | None = None


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


def legend_mark(mark: str, colour: str, label: str, edge: str = "white") -> "Line2D":
    """A legend entry for a mark."""
    from matplotlib.lines import Line2D

    size = 13 if mark == TEACHER_MARK else 8
    return Line2D([], [], marker=mark, linestyle="", color=colour, markeredgecolor=edge, markersize=size, label=label)


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
