"""How far each table has come at a glance: a row per pruned network, a column per distillation method."""

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from harness.plan.planning import Cell, Plan, kd_label
from harness.store.paths import Paths
from harness.store.states import CellState

# Of a table with more rows so many are shown.
MOST_ROWS = 40


def as_grid(plan: Plan, states: Sequence[CellState], paths: Paths) -> str:
    """Each table as a grid of single words: benched, trained, begun, failed, changed or missing."""
    by_id = {state.cell.id: _word(plan, state, paths) for state in states}
    return (
        "\n\n".join(
            f"{table.title}\n{_table([cell for cell in table.cells if not cell.is_teacher], by_id)}"
            for table in plan.tables
        )
        + f"\n\n{plan.teacher.title}: {by_id[plan.teacher.id]}"
    )


def _word(plan: Plan, state: CellState, paths: Paths) -> str:
    if state.training in ("failed", "changed"):
        return state.training
    if state.training == "missing":
        return "begun" if paths.checkpoint(plan.profile, state.cell).is_file() else "missing"
    return {"done": "benched", "failed": "failed", "changed": "changed"}.get(state.benching, "trained")


def _table(cells: Sequence[Cell], words: Mapping[str, str]) -> str:
    methods = list(dict.fromkeys(str(cell.kd_method) for cell in cells))
    named = dict.fromkeys(axis for cell in cells for axis in cell.point)
    varying = [axis for axis in named if len({str(cell.point.get(axis)) for cell in cells}) > 1]
    axes = [axis for axis in varying if axis != "kd_method"] or ["prune_method"]
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in cells:
        place = tuple(str(cell.point.get(axis, "")) for axis in axes)
        rows.setdefault(place, {})[str(cell.kd_method)] = words[cell.id]
    shown = [[*place, *(found.get(method, "") for method in methods)] for place, found in rows.items()]
    headers = [*(axis.replace("_", " ") for axis in axes), *map(kd_label, methods)]
    text = tabulate(shown[:MOST_ROWS], headers=headers, disable_numparse=True)
    more = len(shown) - MOST_ROWS
    return text + (f"\n... and {more} row{'' if more == 1 else 's'} more" if more > 0 else "")
