"""How many channels each layer had before pruning, and how many are left."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.reporting.chart_panels import panel_grid
from harness.reporting.chart_style import Room, Theme, legend_lines
from harness.reporting.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = "What pruning left of each layer"
# Inches that a further line of panels adds.
TALLER = 1.9
# Characters of a title that fit above a panel.
LONGEST = 30


class Pruned(NamedTuple):
    """Students that have the same widths: what they are called together, and the channels of each layer."""

    title: str
    kds: list[str]
    widths: dict[str, int]


def _before(rows: Sequence[Row]) -> dict[str, int]:
    return next((dict(row.train.widths or {}) for row in rows if row.cell.is_teacher and row.train), {})


def _after(rows: Sequence[Row]) -> list[Pruned]:
    """In the table's order; of several seeds the first, since others differ by little."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    seeds: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: row.cell.seed):
        model = repr(sorted((axis, repr(value)) for axis, value in row.cell.point.items() if axis != "seed"))
        if row.cell.is_teacher or not row.train or not row.train.widths or model in seeds:
            continue
        seeds[model] = row.cell.seed
        alike = (row.pruning, row.cell.prune_amount, *row.axes.items(), *row.train.widths.items())
        found.setdefault(alike, []).append(row)
    return [_named(members) for _, members in sorted(found.items(), key=lambda group: str(group[1][0].cell.point))]


def _named(members: Sequence[Row]) -> Pruned:
    first = members[0]
    kds = list(dict.fromkeys(row.kd for row in members))
    more = [f"{axis.rpartition('.')[2]} {value}" for axis, value in first.axes.items()]
    title = ", ".join([f"{first.pruning} {first.cell.prune_amount:g}", *more, *kds])
    if len(title) > LONGEST:
        title = ", ".join([f"{first.pruning} {first.cell.prune_amount:g}", *more, f"{len(members)} models"])
    assert first.train and first.train.widths
    return Pruned(title, kds, dict(first.train.widths))


def drawable(rows: Sequence[Row]) -> bool:
    """Whether the widths of the teacher and of a student are on record."""
    return bool(_before(rows)) and bool(_after(rows))


def shown(rows: Sequence[Row]) -> list[Any]:
    """All that the chart shows of the rows, as plain JSON values."""
    return [_before(rows), *(list(one) for one in _after(rows))]


def draw(figure: "Figure", rows: Sequence[Row], theme: Theme) -> Room:
    """A panel for each pruned network; layers from the input to the output, on a logarithmic scale."""
    from matplotlib.patches import Patch

    before, pruned = _before(rows), _after(rows)
    colours = theme.colours({one.kds[0] for one in pruned})
    panels, taller = panel_grid(figure, len(pruned), taller=TALLER)
    layers, least = range(len(before) + 1), min((width for one in pruned for width in one.widths.values()), default=1)
    floor = 2 ** (math.floor(math.log2(least)) - 1)
    for axes, one in zip(panels, pruned, strict=True):
        left = [one.widths.get(layer, 0) for layer in before]
        colour = theme.faint if len(one.kds) > 1 else colours[one.kds[0]]
        axes.stairs(list(before.values()), layers, baseline=floor, fill=True, color=theme.lost)
        axes.stairs(left, layers, baseline=floor, fill=True, color=colour)
        axes.set_yscale("log", base=2)
        axes.set_ylim(floor, 1.1 * max(before.values()))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlim(0, len(before))
        share = sum(left) / sum(before.values())
        axes.set_title(f"{one.title}: {share:.0%}".replace("%", " %"), fontsize=9)
        axes.set_xlabel("Layer, from the input", fontsize=9)
    panels[0].set_ylabel("Channels")
    entries = [
        Patch(facecolor=theme.lost, label="removed"),
        Patch(facecolor=theme.faint, label="left, coloured by KD; the title says which share of all channels"),
    ]
    return Room([*legend_lines(entries)], taller=taller)
