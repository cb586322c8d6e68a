"""A row of a table: a planned cell with the records that stand; and the order that rows are shown in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from statistics import fmean
from typing import Any

from harness.checks.limits import PRUNED_SHARE
from harness.plan import registry
from harness.plan.planning import Cell, kd_label
from harness.plan.settings import BASIC_AXES
from harness.predictions import Predictions
from harness.reporting import published
from harness.reporting.front import Place, middle, pareto_ranks
from harness.store.chain import State
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
    def model(self) -> str:
        """What is the same for all trainings of a model, which differ in nothing but their seed."""
        return repr(sorted((axis, repr(value)) for axis, value in self.cell.point.items() if axis != "seed"))

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


# Of longer tables the first rows are shown; the CSV and JSON files have all.
MOST_ROWS = 1000
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
        groups.setdefault(row.model, []).append(row)
    return [sorted(model, key=lambda row: row.cell.seed) for model in groups.values()]


def first_models(rows: Sequence[Row], most: int = MOST_ROWS) -> Sequence[Row]:
    """The rows of a table's first models, each with all of its seeds: as many as a person or a browser can hold.

    However many seeds it has, the first student is there.
    """
    if len(rows) <= most:
        return rows
    shown: list[Row] = []
    for model in models_of(rows):
        if len(shown) + len(model) > most and any(not row.cell.is_teacher for row in shown):
            break
        shown += model
    return shown


def fronts(models: Sequence[Model]) -> list[int | None]:
    """The Pareto rank of each model, by its means over seeds."""
    return pareto_ranks([middle(row.place for row in model) for model in models])


def accuracies(rows: Sequence[Row]) -> list[float]:
    """The accuracies (%) that are known."""
    return [row.accuracy_pct for row in rows if row.accuracy_pct is not None]
