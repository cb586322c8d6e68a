"""How much of the teacher's accuracy comes back, and when: after pruning, after BatchNorm, after each epoch.

Who stops a comparison right after pruning ranks methods by the first of these figures; the last is the one that counts.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.plan import registry
from harness.reporting.chart_style import (
    DASHED,
    FAINT,
    INK,
    Below,
    kd_colours,
    legend_line,
    legend_lines,
    legend_mark,
    seed_mark,
)
from harness.reporting.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRUNED, CALIBRATED = "pruned", "BN\nanew"
MOST_PANELS = 3


def recovery(row: Row) -> list[tuple[str, float]]:
    """(when, accuracy in percent on the test images) from pruning to the last epoch; empty where none was tested.

    Epochs are counted from one. A student that starts from new weights has no figure before its first.
    """
    train = row.train
    tested = [epoch.test_accuracy_pct for epoch in train.epochs if epoch.test_accuracy_pct is not None] if train else []
    if not train or not train.pruning or not tested:
        return []
    before: list[tuple[str, float]] = [
        (PRUNED, train.pruning.accuracy_before_calibration_pct),
        (CALIBRATED, train.pruning.accuracy_after_pct),
    ]
    fresh = registry.find("method", row.cell.kd_method or "").constants.get("FRESH_WEIGHTS", False)
    epochs = [(str(number), accuracy) for number, accuracy in enumerate(tested, start=1)]
    return epochs if fresh else before + epochs


def drawable(rows: Sequence[Row]) -> bool:
    """Whether a student was tested while it trained."""
    return any(recovery(row) for row in rows)


def shown(rows: Sequence[Row]) -> list[Any]:
    """All that the chart shows of the rows, as plain JSON values."""
    return [
        [row.cell.is_teacher, row.pruning, row.kd, row.axes, row.cell.seed, row.cell.prune_amount, recovery(row)]
        + ([row.train.accuracy_pct] if row.cell.is_teacher and row.train else [])
        for row in rows
    ]


def draw(figure: "Figure", rows: Sequence[Row]) -> Below:
    """A panel for each way of pruning, and in it a line for each student."""
    students = [row for row in rows if recovery(row)]
    panels = list(_panels(students))
    whens = [PRUNED, CALIBRATED, *map(str, range(1, max(len(recovery(row)) for row in students) + 1))]
    whens = [when for when in whens if any(when in dict(recovery(row)) for row in students)]
    colours = kd_colours({row.kd for row in students})
    seeds = sorted({row.cell.seed for row in students})
    teacher = next((row.train.accuracy_pct for row in rows if row.cell.is_teacher and row.train), None)
    across = min(len(panels), MOST_PANELS)
    down = -(-len(panels) // across)
    grid = figure.subplots(down, across, squeeze=False, sharey=True, gridspec_kw={"hspace": 0.5}).flat
    for axes, (title, members) in zip(grid, panels, strict=False):
        for row in members:
            places, accuracies = zip(*((whens.index(when), pct) for when, pct in recovery(row)), strict=True)
            mark = seed_mark(seeds.index(row.cell.seed))
            axes.plot(places, accuracies, f"{mark}-", color=colours[row.kd], ms=6, markeredgecolor="white", lw=1.6)
        if teacher is not None:
            axes.axhline(teacher, color=INK, linewidth=1, linestyle=DASHED)
        axes.set_title(title)
        axes.set_xticks(range(len(whens)), whens, fontsize=8 if len(whens) > 6 else 9)
        axes.set_xlabel("Epochs of training")
        axes.label_outer()
        axes.tick_params(axis="x", labelbottom=True)
    for axes in list(grid)[len(panels) :]:
        axes.set_visible(False)
    figure.axes[0].set_ylabel("Accuracy (%) on the test images")
    methods = [legend_line(colour, f"KD: {name}") for name, colour in colours.items()]
    others: list[Any] = []
    if len(seeds) > 1:
        others += [legend_mark(seed_mark(place), FAINT, f"seed {seed}") for place, seed in enumerate(seeds)]
    if teacher is not None:
        others.append(legend_line(INK, "the teacher", dashed=True))
    return Below([*legend_lines(methods), *legend_lines(others)], inches=2.6 * (down - 1))


def _panels(students: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The students by what they were pruned like, in the table's order of criteria."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in students:
        groups.setdefault((row.pruning, row.cell.prune_amount, *row.axes.values()), []).append(row)
    for (pruning, amount, *more), members in sorted(groups.items(), key=lambda group: tuple(map(str, group[0]))):
        yield ", ".join([f"{pruning}, {amount:g} pruned", *more]), members
