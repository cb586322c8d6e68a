"""Charts of several panels: how many stand side by side, and what belongs into one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.reporting.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 3
# Inches: what a further line of panels adds to a figure.
TALLER = 2.6


def panel_grid(
    figure: "Figure", count: int, across: int = ACROSS, taller: float = TALLER
) -> "tuple[list[Axes], float]":
    """So many panels with a common scale upwards, and by how many inches several lines of them make a figure taller."""
    # four side by side are better than three and one
    across = 4 if count == 4 else min(count, across)
    down = -(-count // across)
    grid = list(figure.subplots(down, across, squeeze=False, sharey=True, gridspec_kw={"hspace": 0.55}).flat)
    for axes in grid[count:]:
        axes.remove()
    for axes in grid[:count]:
        axes.label_outer()
        # the last line may be shorter than the others
        axes.tick_params(axis="x", labelbottom=True)
    return grid[:count], taller * (down - 1)


def pruned_alike(students: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The students by what they were pruned like, with a title each, in alphabetical order."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in students:
        groups.setdefault((row.pruning, row.cell.prune_amount, *row.axes.items()), []).append(row)
    return [
        (_title(*alike), members)
        for alike, members in sorted(groups.items(), key=lambda group: tuple(map(str, group[0])))
    ]


def _title(pruning: str, amount: float, *axes: tuple[str, str]) -> str:
    more = (f"{axis.rpartition('.')[2]} {value}" for axis, value in axes)
    return ", ".join([f"{pruning}, {amount:g} pruned", *more])
