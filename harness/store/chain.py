"""How far each cell has come, read off records and artifacts; the same answer steers what runs next."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from harness.plan.planning import Cell, Plan
from harness.store.paths import Paths
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, TrainRecord, find

# missing: nothing under this key; recorded: made elsewhere, its weights are not here; trained: weights, no ONNX file
Training = Literal["missing", "failed", "recorded", "trained", "done"]
Benching = Literal["missing", "failed", "done"]


@dataclass(frozen=True)
class CellState:
    """Where a cell stands, and why where its training or its bench failed."""

    cell: Cell
    training: Training
    benching: Benching
    reason: str | None = None


def cell_state(paths: Paths, plan: Plan, cell: Cell) -> CellState:
    """The cell's state under its present key."""
    folder = cell.artifacts(paths.artifacts, plan.profile)
    train = find(paths.results, plan.profile, cell.id, cell.key, TrainRecord)
    if train is None:
        return CellState(cell, "missing", "missing")
    if train.failure:
        return CellState(cell, "failed", "missing", train.failure.message)
    export = find(paths.results, plan.profile, cell.id, cell.key, ExportRecord)
    if export and export.failure:
        return CellState(cell, "failed", "missing", export.failure.message)
    if not (folder / "weights.safetensors").is_file():
        return CellState(cell, "recorded", *_benching(paths, plan, cell, export))
    if export is None or export.weights_sha256 != train.weights_sha256 or not (folder / "model.onnx").is_file():
        return CellState(cell, "trained", "missing")
    return CellState(cell, "done", *_benching(paths, plan, cell, export))


def _benching(paths: Paths, plan: Plan, cell: Cell, export: ExportRecord | None) -> tuple[Benching, str | None]:
    records: list[LatencyRecord | AccuracyRecord | None] = [
        find(paths.results, plan.profile, cell.id, cell.key, LatencyRecord, condition)
        for condition in plan.settings.bench.conditions
    ]
    records.append(find(paths.results, plan.profile, cell.id, cell.key, AccuracyRecord))
    if export is None or any(record is None or record.onnx_sha256 != export.onnx_sha256 for record in records):
        return "missing", None
    failures = [record.failure for record in records if record and record.failure]
    return ("failed", failures[0].message) if failures else ("done", None)


def states(paths: Paths, plan: Plan) -> list[CellState]:
    """Every cell's state, in the order of the plan."""
    return [cell_state(paths, plan, cell) for cell in plan.cells]


def counts(found: list[CellState]) -> dict[str, int]:
    """How many cells are in which state of training, and how many are benched or failed in the bench."""
    benching = Counter(state.benching for state in found)
    return {
        **Counter(state.training for state in found),
        "benched": benching["done"],
        "bench_failed": benching["failed"],
    }
