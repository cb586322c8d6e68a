"""(plan, results) -> one row per planned cell, each with the records that stand, and what is wrong with the others.

harness.store.chain says which records stand, so a figure in a table always belongs to its row. A cell without a figure
is a row that says why; none is ever dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import predictions
from harness.checks.catalogue import CHECKS
from harness.checks.evidence import read_evidence
from harness.checks.limits import PRUNED_SHARE
from harness.checks.provenance import code_changed
from harness.errors import HarnessError
from harness.plan import registry
from harness.plan.planning import Cell, Plan, Table, kd_label
from harness.plan.settings import BASIC_AXES
from harness.predictions import Predictions
from harness.reporting import published
from harness.reporting.front import Place, middle, pareto_ranks
from harness.store.chain import Chain, Link, State
from harness.store.records import AccuracyRecord, ExportRecord, Interval, LatencyRecord, StageName, TrainRecord


@dataclass(frozen=True)
class Remark:
    """What the reader must know about a row. `short` fits a table; `detail` says all of it."""

    short: str
    detail: str


@dataclass(frozen=True)
class Problem(Remark):
    """Why a stage of a row has no figure, or has one that fails a check."""

    stage: StageName
    state: State


@dataclass(frozen=True)
class Row:
    """A planned cell with the records that stand."""

    cell: Cell
    train: TrainRecord | None
    export: ExportRecord | None
    latency: LatencyRecord | None
    accuracy: AccuracyRecord | None
    problems: tuple[Problem, ...]
    # standing latencies under the conditions beside the headline
    beside: tuple[LatencyRecord, ...] = ()
    # plug-ins whose code has changed since a standing record was made, like "method fmse"
    changed: tuple[str, ...] = ()
    # what the model answered to the test images, where that is on record
    predictions: Predictions | None = field(default=None, compare=False)

    @property
    def accuracy_pct(self) -> float | None:
        """Top-1 (%) of the ONNX file in the bench, on all test images."""
        return self.accuracy.accuracy_pct if self.accuracy else None

    @property
    def latency_ms(self) -> float | None:
        """Latency (ms) at batch 1 under the headline condition, undisturbed (harness.intervals)."""
        return self.latency.latency_ms.value if self.latency and self.latency.latency_ms else None

    @property
    def ratio(self) -> Interval | None:
        """Latency divided by the teacher's, under the headline condition."""
        return self.latency.ratio_to_teacher if self.latency else None

    @property
    def place(self) -> Place | None:
        """Where the model lies in accuracy and latency; None where it lacks one of the two."""
        return Place(self.ratio.value, self.accuracy_pct) if self.ratio and self.accuracy_pct is not None else None

    @property
    def params(self) -> int | None:
        """Weights of the ONNX graph, BatchNorm folded in, as the study counts them."""
        return self.export.params if self.export else None

    @property
    def macs(self) -> int | None:
        """Multiply-adds of one inference."""
        return self.train.macs if self.train else None

    @cached_property
    def pruning(self) -> str:
        """The Pruning column: the criterion's title, or None."""
        return registry.find("criterion", self.cell.prune_method).title if self.cell.prune_method else "None"

    @cached_property
    def kd(self) -> str:
        """The KD column: Base, FMSE+Base, GRAM+Base, ... or None."""
        return kd_label(self.cell.kd_method) if self.cell.kd_method else "None"

    @property
    def axes(self) -> dict[str, str]:
        """The cell's place on the axes that are its experiment's own, by dotted name."""
        return {axis: _spelled(value) for axis, value in self.cell.point.items() if axis not in BASIC_AXES}

    @property
    def published(self) -> published.Published | None:
        """What the study published for this model, if it made it."""
        return published.published_rows().get(self.cell.title) if self._of_study else None

    @property
    def published_mean(self) -> float | None:
        """The mean accuracy (%) over seeds that the study published for models like this one."""
        if not self._of_study or self.axes or self.cell.prune_amount is None:
            return None
        return published.published_means().get((self.cell.prune_amount, self.pruning, self.kd))

    @property
    def _of_study(self) -> bool:
        teacher = self.cell.teacher
        return (
            teacher.network.architecture.name == published.ARCHITECTURE
            and teacher.data.dataset.name in published.DATASETS
            and self.cell.protocol in (None, published.PROTOCOL)
        )

    @property
    def labels(self) -> list[str]:
        """What sets the model apart from the study's: a thin or wide network, other images, rounded weights."""
        width, dataset = self.cell.teacher.network.width, self.cell.teacher.data.dataset.name
        return [
            *([f"{width_text(width)} width"] if width != 1 else []),
            *([registry.find("dataset", dataset).title] if dataset != published.DATASETS[0] else []),
            *(["half-precision weights"] if self.train and self.train.rounded_from else []),
        ]

    @property
    def cautions(self) -> list[Remark]:
        """Pruning that is not what was asked for, and code that has changed since."""
        found = []
        pruning = self.train.pruning if self.train else None
        if pruning and pruning.ranked_before > 0:
            removed = 1 - pruning.ranked_after / pruning.ranked_before
            if not abs(removed - pruning.amount) <= PRUNED_SHARE:
                emptied = ", ".join(pruning.emptied_layers)
                why = f"; layers that would have lost every channel: {emptied}" if emptied else ""
                short = f"{removed:.0%} of channels removed, {pruning.amount:.0%} asked".replace("%", " %")
                found.append(Remark(short, f"{short} for{why}"))
        if self.changed:
            what = ", ".join(self.changed)
            found.append(Remark("code changed", f"made before the code of {what} was changed"))
        return found


def _spelled(value: Any) -> str:
    """An axis value as a reader expects it."""
    if isinstance(value, list):
        return ", ".join(map(_spelled, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def width_text(width: float) -> str:
    """A width factor as a reader says it: 1/8, 1, 3/2."""
    return str(Fraction(width))


def read_rows(plan: Plan, table: Table, results: Path) -> list[Row]:
    """The rows of one table in order; a row that fails a check (harness.checks) says so.

    Only this table's records count, and no other file: the table is the same in every checkout and every report.
    """
    evidence = read_evidence(replace(plan, tables=(table,)), results)
    headline = plan.settings.bench.conditions[0]
    failing: dict[str, list[Problem]] = {cell.id: [] for cell in table.cells}
    # Changed code is among a row's cautions: its figures are what that code gave.
    for check in (check for check in CHECKS if check.severity == "error" and check.find is not code_changed):
        for fault in check.find(evidence):
            cell = fault.entry.cell
            beside = fault.condition not in ("", headline)
            # What does not stand beside the headline is not shown, so it cannot make the row fail.
            if not beside or fault.entry.chain.latency(cell, fault.condition).standing:
                detail = f"fails the check {check.name}: {fault.reason}"
                failing[cell.id].append(Problem(f"failed: {check.name}", detail, fault.stage, "failed"))
    return in_order(
        [
            _with_findings(read_row(entry.chain, entry.cell, results), failing[entry.cell.id])
            for entry in evidence.entries.values()
        ]
    )


def _with_findings(row: Row, failing: list[Problem]) -> Row:
    # A record that does not stand is a problem already, in words of its own.
    known = {problem.stage for problem in row.problems}
    return replace(row, problems=(*row.problems, *(problem for problem in failing if problem.stage not in known)))


# The trainings of one model, one for each seed.
Model = Sequence[Row]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """The teacher, then by Pareto rank and by accuracy from the best, then rows without a figure; else as planned.

    The seeds of one model stay together, and their means decide.
    """
    models = models_of(rows)
    ranks = fronts(models)
    return [row for model, _ in sorted(zip(models, ranks, strict=True), key=_precedence) for row in model]


def _precedence(ranked: tuple[Model, int | None]) -> tuple[bool, bool, int, bool, float]:
    model, rank = ranked
    known = accuracies(model)
    return not model[0].cell.is_teacher, rank is None, rank or 0, not known, -fmean(known or [0])


def models_of(rows: Sequence[Row]) -> list[Model]:
    """The teacher, and the students, those together that differ in nothing but their seed."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        alike = sorted((axis, repr(value)) for axis, value in row.cell.point.items() if axis != "seed")
        groups.setdefault(repr(alike), []).append(row)
    return [sorted(model, key=lambda row: row.cell.seed) for model in groups.values()]


def fronts(models: Sequence[Model]) -> list[int | None]:
    """The Pareto rank of each model, by its means over seeds."""
    return pareto_ranks([middle(row.place for row in model) for model in models])


def accuracies(rows: Sequence[Row]) -> list[float]:
    """The accuracies (%) that are known."""
    return [row.accuracy_pct for row in rows if row.accuracy_pct is not None]


def read_row(chain: Chain, cell: Cell, results: Path) -> Row:
    """One cell's records. Of those that do not stand, the first in a row is named: the others wait for it."""
    train, export, latency, accuracy = chain.train(cell), chain.export(cell), chain.latency(cell), chain.accuracy(cell)
    # A condition beside the headline is one figure more or less: a row without it is complete.
    beside = [chain.latency(cell, condition) for condition in chain.plan.settings.bench.conditions[1:]]
    links: list[Link[Any]] = [train, export, latency, accuracy]
    if not export.standing:
        links = [train, export] if train.standing else [train]
    standing = [link for link in (*links, *beside) if link.standing]
    return Row(
        cell,
        train.standing,
        export.standing,
        latency.standing,
        accuracy.standing,
        tuple(_problem(link, results) for link in links if not link.standing),
        tuple(link.standing for link in beside if link.standing),
        tuple(dict.fromkeys(name for link in standing for name in link.changed)),
        _predictions(accuracy.standing, results),
    )


def _predictions(record: AccuracyRecord | None, results: Path) -> Predictions | None:
    try:
        return predictions.read(results / record.profile, record) if record else None
    except HarnessError:
        # a check names them, and the row says that it fails
        return None


def _problem(link: Link[Any], results: Path) -> Problem:
    # A message may hold a record's path, and a table must not depend on where the results folder lies.
    stage, reason = link.stage, link.reason.replace(f"{results}/", "")
    if link.state == "missing":
        return Problem(f"no {stage} record", reason, stage, link.state)
    if link.state == "failed":
        kind = link.record.failure.kind if link.record and link.record.failure else "error"
        return Problem(f"{stage} failed ({kind})", f"{stage} failed ({kind}): {reason}", stage, link.state)
    return Problem(f"{stage} record is {link.state}", reason, stage, link.state)
