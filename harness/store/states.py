"""How far each cell has come, from its chain of records and the files on this machine."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.plan.planning import Cell, Plan
from harness.store.chain import Chain, Link
from harness.store.paths import Paths
from harness.store.records import AccuracyRecord, LatencyRecord

# missing: nothing that stands; recorded: made elsewhere, its weights are not here; trained: weights, but no model file;
# changed: trained and exported, but by other code than today's
Training = Literal["missing", "failed", "recorded", "trained", "changed", "done"]
Benching = Literal["missing", "failed", "changed", "done"]


@dataclass(frozen=True)
class CellState:
    """Where a cell stands, and the reason where that is not "done": a failure, changed code, a replaced teacher."""

    cell: Cell
    training: Training
    benching: Benching
    reason: str | None = None


def cell_state(paths: Paths, plan: Plan, cell: Cell, chain: Chain | None = None) -> CellState:
    """The cell's state under its present keys."""
    chain = chain or Chain(plan, paths.results)
    train = chain.train(cell)
    if train.state == "failed":
        return CellState(cell, "failed", "missing", train.reason)
    if train.standing is None:
        return CellState(cell, "missing", "missing", None if train.state == "missing" else train.reason)
    export = chain.export(cell)
    if export.state == "failed":
        return CellState(cell, "failed", "missing", export.reason)
    benching, reason = _benching(plan, cell, chain)
    if not paths.weights(plan.profile, cell).is_file():
        return CellState(cell, "recorded", benching, reason)
    if export.standing is None or not paths.model_file(plan.profile, cell).is_file():
        return CellState(cell, "trained", "missing")
    if train.changed:
        return CellState(cell, "changed", benching, f"code changed: {', '.join(train.changed)}")
    return CellState(cell, "done", benching, reason)


def _benching(plan: Plan, cell: Cell, chain: Chain) -> tuple[Benching, str | None]:
    links: list[Link[LatencyRecord] | Link[AccuracyRecord]] = [
        *(chain.latency(cell, condition) for condition in chain.conditions),
        chain.accuracy(cell),
    ]
    if failed := next((link for link in links if link.state == "failed"), None):
        return "failed", failed.reason
    if any(link.standing is None for link in links):
        return "missing", None
    if changed := next((link.changed for link in links if link.changed), None):
        return "changed", f"code changed: {', '.join(changed)}"
    return "done", None


def states(paths: Paths, plan: Plan) -> list[CellState]:
    """Every cell's state, in the order of the plan."""
    chain = Chain(plan, paths.results)
    return [cell_state(paths, plan, cell, chain) for cell in plan.cells]


def counts(found: Sequence[CellState]) -> dict[str, int]:
    """How many cells are in which state of training, and how many are benched, by present code or not, or failed."""
    benching = Counter(state.benching for state in found)
    return {
        **Counter(state.training for state in found),
        "benched": benching["done"],
        "bench_changed": benching["changed"],
        "bench_failed": benching["failed"],
    }
