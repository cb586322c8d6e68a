"""How training went: accuracy on the training images after each epoch, of the teacher and of each way of pruning.

Losses are left out, since those of different methods cannot be compared. The images are augmented and each was answered
before the step that it was for, so these figures lie below those on the test images.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.reporting.chart_panels import panel_grid, pruned_alike
from harness.reporting.chart_style import SEED_MARKS, Room, Theme, legend_line, legend_lines, legend_mark
from harness.reporting.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = "How training went"
# With more epochs than these, only the first of a phase has a mark.
FEW = 12


def _curve(row: Row) -> list[tuple[str, float]]:
    """(phase, accuracy in percent on the training images) of every epoch that has one."""
    epochs = row.train.epochs if row.train else []
    return [(epoch.phase, epoch.accuracy_pct) for epoch in epochs if epoch.accuracy_pct is not None]


def drawable(rows: Sequence[Row]) -> bool:
    """Whether any model has an accuracy of an epoch on record."""
    return any(_curve(row) for row in rows)


def shown(rows: Sequence[Row]) -> list[Any]:
    """All that the chart shows of the rows, as plain JSON values."""
    return [
        [row.cell.is_teacher, row.pruning, row.kd, row.axes, row.cell.seed, row.cell.prune_amount, _curve(row)]
        for row in rows
    ]


def draw(figure: "Figure", rows: Sequence[Row], theme: Theme) -> Room:
    """A panel for the teacher, and one for each way of pruning."""
    from matplotlib.ticker import MaxNLocator

    curves = {row.cell.id: found for row in rows if (found := _curve(row))}
    teachers = [row for row in rows if row.cell.is_teacher and row.cell.id in curves]
    students = [row for row in rows if not row.cell.is_teacher and row.cell.id in curves]
    colours = theme.colours({row.kd for row in students})
    phases = list(dict.fromkeys(phase for row in (*teachers, *students) for phase, _ in curves[row.cell.id]))
    marks = {phase: SEED_MARKS[place % len(SEED_MARKS)] for place, phase in enumerate(phases)}
    panels = [*([("The teacher", teachers)] if teachers else []), *pruned_alike(students)]
    grid, taller = panel_grid(figure, len(panels))
    for axes, (title, members) in zip(grid, panels, strict=True):
        for row in members:
            curve = curves[row.cell.id]
            colour = theme.ink if row.cell.is_teacher else colours[row.kd]
            axes.plot(range(1, len(curve) + 1), [accuracy for _, accuracy in curve], color=colour, lw=1.4)
            for place, (phase, accuracy) in enumerate(curve):
                if len(curve) <= FEW or place == 0 or curve[place - 1][0] != phase:
                    looks: dict[str, Any] = {"color": colour, "markeredgecolor": theme.background}
                    axes.plot(place + 1, accuracy, marks[phase], ms=6, **looks)
        axes.set_title(title)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        axes.set_xlabel("Epochs")
    grid[0].set_ylabel("Accuracy (%) on the training images")
    methods = [legend_line(colour, f"KD: {name}") for name, colour in colours.items()]
    kinds = [legend_mark(mark, theme.faint, f"phase: {phase}", theme.background) for phase, mark in marks.items()]
    return Room([*legend_lines(methods), *legend_lines(kinds)], taller=taller)
