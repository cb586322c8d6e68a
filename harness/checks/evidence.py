"""What the checks look at: the plan, every planned cell's records as they lie there, and the hashes of ONNX files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.planning import Cell, Plan, Table
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
KINDS: dict[Stage, type[Record]] = {
    kind.stage: kind for kind in (TrainRecord, ExportRecord, LatencyRecord, AccuracyRecord)
}


@dataclass(frozen=True)
class Entry:
    """One cell's records. `found` is what could be read, whatever it says; `unreadable` is why the rest could not.

    `train`, `export`, `latency` and `accuracy` are the records that stand: done, this cell's under its present key,
    and made from what the stage before left. The figures of any other record say nothing about this cell.
    """

    cell: Cell
    profile: str
    found: Mapping[Stage, Record]
    unreadable: Mapping[Stage, str]
    onnx_file_sha256: str | None = None
    # latencies under the conditions beside the headline; `found` has that
    beside: tuple[LatencyRecord, ...] = ()

    def own(self, kind: type[R]) -> R | None:
        """The stage's record if it is this cell's, under whatever key and however it ended."""
        record = self.found.get(kind.stage)
        if isinstance(record, kind) and (record.cell, record.profile) == (self.cell.id, self.profile):
            return record
        return None

    def done(self, kind: type[R]) -> R | None:
        """The stage's record if it is this cell's, under its present key, and done."""
        record = self.own(kind)
        return record if record and (record.key, record.status) == (self.cell.key, "done") else None

    @cached_property
    def train(self) -> TrainRecord | None:
        """The standing train record."""
        return self.done(TrainRecord)

    @cached_property
    def export(self) -> ExportRecord | None:
        """The standing export record."""
        export = self.done(ExportRecord)
        return export if export and self.train and export.weights_sha256 == self.train.weights_sha256 else None

    @cached_property
    def latency(self) -> LatencyRecord | None:
        """The standing latency record."""
        latency = self.done(LatencyRecord)
        return latency if latency and self.fits(latency) else None

    @property
    def latencies(self) -> list[LatencyRecord]:
        """The standing latency records under all conditions, the headline first."""
        headline = [self.latency] if self.latency else []
        return headline + [one for one in self.beside if one.status == "done" and self.fits(one)]

    def fits(self, latency: LatencyRecord) -> bool:
        """Whether a latency is of this cell under its present key, and of the file that was exported."""
        named = (latency.cell, latency.profile, latency.key) == (self.cell.id, self.profile, self.cell.key)
        return named and self.export is not None and latency.onnx_sha256 == self.export.onnx_sha256

    @cached_property
    def accuracy(self) -> AccuracyRecord | None:
        """The standing accuracy record."""
        accuracy = self.done(AccuracyRecord)
        return accuracy if accuracy and self.export and accuracy.onnx_sha256 == self.export.onnx_sha256 else None


@dataclass(frozen=True)
class Evidence:
    """All of it. `entries` are in the plan's order, the teacher first."""

    plan: Plan
    entries: Mapping[str, Entry]
    # where they were read from; the strict checks look at more of it
    results: Path | None = None
    artifacts: Path | None = None

    def of(self, table: Table) -> list[Entry]:
        """The entries of one table's rows."""
        return [self.entries[cell.id] for cell in table.cells]

    @property
    def teacher(self) -> Entry:
        """The teacher's."""
        return self.entries[self.plan.teacher.id]

    def latencies(self) -> Iterator[tuple[Entry, LatencyRecord]]:
        """Entries with each of their latency records that stands, under whatever condition."""
        return ((entry, latency) for entry in self.entries.values() for latency in entry.latencies)

    def accuracies(self) -> Iterator[tuple[Entry, AccuracyRecord]]:
        """Entries whose accuracy record stands, with it."""
        return ((entry, entry.accuracy) for entry in self.entries.values() if entry.accuracy)


def read_evidence(plan: Plan, results: Path, artifacts: Path | None = None) -> Evidence:
    """Everything on disk about the plan's cells; an unreadable record is evidence, not an error.

    Without `artifacts` the records alone count, as in a checkout that has no ONNX files.
    """
    entries = {cell.id: _entry(plan, cell, results, artifacts) for cell in plan.cells}
    return Evidence(plan, entries, results, artifacts)


def _entry(plan: Plan, cell: Cell, results: Path, artifacts: Path | None) -> Entry:
    profile, (headline, *others) = plan.profile, plan.settings.bench.conditions
    found: dict[Stage, Record] = {}
    unreadable: dict[Stage, str] = {}
    for stage, kind in KINDS.items():
        path = record_path(results, profile, stage, cell.id, headline if kind is LatencyRecord else "")
        if path.exists():
            try:
                found[stage] = load(path, kind)
            except HarnessError as error:
                unreadable[stage] = str(error)
    beside = []
    for condition in others:
        path = record_path(results, profile, "latency", cell.id, condition)
        if path.exists():
            try:
                beside.append(load(path, LatencyRecord))
            except HarnessError as error:
                unreadable["latency"] = str(error)
    file = cell.artifacts(artifacts, profile) / "model.onnx" if artifacts else None
    sha256 = file_sha256(file) if file and file.is_file() else None
    return Entry(cell, profile, found, unreadable, sha256, tuple(beside))
