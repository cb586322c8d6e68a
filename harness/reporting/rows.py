"""(plan, results) -> one row per planned cell, each with the records that stand, and what is wrong with the others.

A record stands when it was made under the cell's key and from what the stage before left: export from the trained
weights, latency and accuracy from the exported file. So a figure in a table always belongs to its row. A cell without
a figure is a row that says why; none is ever dropped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeVar

from harness.checks.catalogue import check_results, errors
from harness.errors import HarnessError
from harness.plan.planning import Cell, Plan, Table, ancestry, kd_label
from harness.store.records import (
    AccuracyRecord,
    ExportRecord,
    LatencyRecord,
    Record,
    Stage,
    TrainRecord,
    load,
    record_path,
)

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Problem:
    """Why a stage of a cell has no figure. `short` fits a table; `detail` is the whole reason."""

    stage: Stage
    state: Literal["missing", "stale", "failed"]
    short: str
    detail: str


@dataclass(frozen=True)
class Row:
    """A planned cell with the records that stand (done, and fitting the stage before)."""

    cell: Cell
    train: TrainRecord | None
    export: ExportRecord | None
    latency: LatencyRecord | None
    accuracy: AccuracyRecord | None
    problems: tuple[Problem, ...]
    # standing latencies under the conditions beside the headline
    beside: tuple[LatencyRecord, ...] = ()

    @property
    def accuracy_pct(self) -> float | None:
        """Top-1 (%) of the ONNX file in the bench, on all test images."""
        return self.accuracy.accuracy_pct if self.accuracy else None

    @property
    def latency_ms(self) -> float | None:
        """Latency (ms) at batch 1 under the headline condition, undisturbed (harness.intervals)."""
        return self.latency.latency_ms.value if self.latency and self.latency.latency_ms else None

    @property
    def params(self) -> int | None:
        """Weights of the ONNX graph, BatchNorm folded in, as the study counts them."""
        return self.export.params if self.export else None

    @property
    def pruning(self) -> str:
        """The Pruning column: L1, BN, GN or None."""
        return self.cell.prune_method.upper() if self.cell.prune_method else "None"

    @property
    def kd(self) -> str:
        """The KD column: Base, FMSE+Base, GRAM+Base, ... or None."""
        return kd_label(self.cell.kd_method) if self.cell.kd_method else "None"

    @property
    def labels(self) -> list[str]:
        """What sets the model apart from the study's: a thin (or wide) network, stand-in data, rounded weights."""
        teacher = ancestry(self.cell.settings)[0]
        width, data = teacher["model"]["width"], teacher["data"]["name"]
        return [
            *([f"{width_text(width)} width"] if width != 1 else []),
            *(["stand-in data"] if data == "stand-in" else []),
            *(["half-precision weights"] if self.train and self.train.rounded_from else []),
        ]


def width_text(width: float) -> str:
    """A width factor as a reader says it: 1/8, 1, 3/2."""
    return str(Fraction(width))


def read_rows(plan: Plan, table: Table, results: Path) -> list[Row]:
    """The rows of one table in order; a row that fails a check (harness.checks) says so.

    Only this table's records count, and no file but them: the table is the same in every checkout and every report.
    """
    rows = [read_row(results, plan, cell) for cell in table.cells]
    failing: dict[str, list[Problem]] = {cell.id: [] for cell in table.cells}
    for finding in errors(check_results(replace(plan, tables=(table,)), results)):
        detail = f"fails the check {finding.check}: {finding.reason}"
        failing[finding.cell].append(Problem(finding.stage, "failed", f"failed: {finding.check}", detail))
    return in_order([_with_findings(row, failing[row.cell.id]) for row in rows])


def _with_findings(row: Row, failing: list[Problem]) -> Row:
    # A record that does not stand is a problem already, in words of its own.
    known = {problem.stage for problem in row.problems}
    return replace(row, problems=(*row.problems, *(problem for problem in failing if problem.stage not in known)))


def in_order(rows: Sequence[Row]) -> list[Row]:
    """The teacher, then by accuracy from the best, then rows without one; among equals as planned."""
    return sorted(rows, key=lambda row: (not row.cell.is_teacher, row.accuracy_pct is None, -(row.accuracy_pct or 0)))


def read_row(results: Path, plan: Plan, cell: Cell) -> Row:
    """One cell's records, each checked against the one before it."""
    headline, *others = plan.settings.bench.conditions
    problems: list[Problem] = []

    def look(kind: type[R], fits: Callable[[R], bool], source: str, condition: str = "") -> R | None:
        path = record_path(results, plan.profile, kind.stage, cell.id, condition)
        found = _look(path, cell, kind, fits, source)
        if isinstance(found, Problem):
            problems.append(found)
            return None
        return found

    train = look(TrainRecord, lambda _: True, "")
    # Without the stage before, a later record has nothing to belong to: the first gap is the one worth naming.
    export = look(ExportRecord, lambda it: it.weights_sha256 == train.weights_sha256, "weights") if train else None
    if export is None:
        return Row(cell, train, None, None, None, tuple(problems))

    def of_this_file(record: LatencyRecord | AccuracyRecord) -> bool:
        return record.onnx_sha256 == export.onnx_sha256

    latency = look(LatencyRecord, of_this_file, "ONNX file", headline)
    accuracy = look(AccuracyRecord, of_this_file, "ONNX file")
    # a condition beside the headline is a figure more or none: its absence does not make the row incomplete
    known = tuple(problems)
    beside = [look(LatencyRecord, of_this_file, "ONNX file", condition) for condition in others]
    return Row(cell, train, export, latency, accuracy, known, tuple(one for one in beside if one))


def _look(path: Path, cell: Cell, kind: type[R], fits: Callable[[R], bool], source: str) -> R | Problem:
    name = kind.stage
    if not path.exists():
        return Problem(name, "missing", f"no {name} record", f"no {name} record yet")
    try:
        record = load(path, kind)
    except HarnessError as error:
        return Problem(name, "failed", f"{name} record is unreadable", str(error))
    if record.key != cell.key:
        why = f"the {name} record was made under other settings (key {record.key}, now {cell.key})"
        return Problem(name, "stale", f"{name} record is stale", why)
    if record.status == "failed":
        kind_of, message = (record.failure.kind, record.failure.message) if record.failure else ("error", "no reason")
        return Problem(name, "failed", f"{name} failed ({kind_of})", f"{name} failed ({kind_of}): {message}")
    if not fits(record):
        return Problem(name, "stale", f"{name} record is stale", f"the {name} record belongs to another {source}")
    return record
