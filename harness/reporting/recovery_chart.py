"""How much of the teacher's accuracy comes back, and when: after pruning, after BatchNorm, after each epoch.

Who stops a comparison right after pruning ranks methods by the first of these figures; the last is the one that counts.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.plan import registry
from harness.reporting.chart_panels import panel_grid, pruned_alike
from harness.reporting.chart_style import DASHED, Room, Theme, legend_line, legend_lines, legend_mark, seed_mark
from harness.reporting.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = "How the students came back, from pruning to their last epoch"
BEFORE = PRUNED, CALIBRATED = "pruned", "BN\nanew"


def recovery(row: Row) -> dict[str, float]:
    """When -> accuracy in percent on the test images, from pruning to the last epoch; empty where none was tested.

    Epochs are counted from one. A student that starts from new weights has no figure before its first.
    """
    train, method = row.train, row.cell.kd_method
    tested = [epoch.test_accuracy_pct for epoch in train.epochs if epoch.test_accuracy_pct is not None] if train else []
    if not train or not train.pruning or method is None or not tested:
        return {}
    epochs = {str(number): accuracy for number, accuracy in enumerate(tested, start=1)}
    if registry.find("method", method).constants.get("FRESH_WEIGHTS", False):
        return epochs
    return {
        PRUNED: train.pruning.accuracy_before_calibration_pct,
        CALIBRATED: train.pruning.accuracy_after_pct,
        **epochs,
    }


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


def draw(figure: "Figure", rows: Sequence[Row], theme: Theme) -> Room:
    """A panel for each way of pruning, and in it a line for each student."""
    tested = {row.cell.id: found for row in rows if (found := recovery(row))}
    students = [row for row in rows if row.cell.id in tested]
    whens = _in_time([tested[row.cell.id] for row in students])
    colours = theme.colours({row.kd for row in students})
    seeds = sorted({row.cell.seed for row in students})
    teacher = next((row.train.accuracy_pct for row in rows if row.cell.is_teacher and row.train), None)
    panels = pruned_alike(students)
    grid, taller = panel_grid(figure, len(panels))
    for axes, (title, members) in zip(grid, panels, strict=True):
        for row in members:
            found = tested[row.cell.id]
            places = [whens[when] for when in found]
            mark = seed_mark(seeds.index(row.cell.seed))
            looks: dict[str, Any] = {"color": colours[row.kd], "markeredgecolor": theme.background}
            axes.plot(places, list(found.values()), f"{mark}-", ms=6, lw=1.6, **looks)
        if teacher is not None:
            axes.axhline(teacher, color=theme.ink, linewidth=1, linestyle=DASHED)
        axes.set_title(title)
        _name_times(axes, whens)
        axes.set_xlabel("Epochs of training")
    grid[0].set_ylabel("Accuracy (%) on the test images")
    methods = [legend_line(colour, f"KD: {name}") for name, colour in colours.items()]
    others: list[Any] = []
    if len(seeds) > 1:
        others += [
            legend_mark(seed_mark(place), theme.faint, f"seed {seed}", theme.background)
            for place, seed in enumerate(seeds)
        ]
    if teacher is not None:
        others.append(legend_line(theme.ink, "the teacher", dashed=True))
    return Room([*legend_lines(methods), *legend_lines(others)], taller=taller)


def _in_time(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Every moment at which any student was tested, and where it lies; those before training have room for their
    names."""
    longest = max(sum(when not in BEFORE for when in one) for one in found)
    gap = max(1.0, longest / 4)
    before = [when for when in BEFORE if any(when in one for one in found)]
    return {
        **{when: 1 - gap * (len(before) - number) for number, when in enumerate(before)},
        **{str(epoch): float(epoch) for epoch in range(1, longest + 1)},
    }


def _name_times(axes: Any, whens: Mapping[str, float]) -> None:
    """As many of them as there is room for: those before training, and every so many epochs."""
    every = -(-sum(when not in BEFORE for when in whens) // 6)
    named = {when: place for when, place in whens.items() if when in BEFORE or place % every == 0}
    axes.set_xticks(list(named.values()), list(named), fontsize=8)
