"""What the checks look at: the plan, the chain of records of every planned cell, and the hashes of ONNX files."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.files import file_sha256
from harness.plan.planning import Cell, Plan, Table
from harness.store.chain import Chain, Link, State
from harness.store.paths import model_file
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, Record, TrainRecord


@dataclass(frozen=True)
class Entry:
    """One cell's records.

    `train`, `export`, `latency` and `accuracy` are those that stand (harness.store.chain): the figures of any other
    record say nothing about this cell. `links` also tells what became of the others. Each is asked for once, however
    many checks look at it.
    """

    cell: Cell
    chain: Chain
    # of the ONNX file, if it is on this machine
    onnx_file_sha256: str | None = None

    @cached_property
    def train(self) -> TrainRecord | None:
        """The standing train record."""
        return self.chain.train(self.cell).standing

    @cached_property
    def export(self) -> ExportRecord | None:
        """The standing export record."""
        return self.chain.export(self.cell).standing

    @cached_property
    def latency(self) -> LatencyRecord | None:
        """The standing latency record under the headline condition."""
        return self.chain.latency(self.cell).standing

    @cached_property
    def latencies(self) -> list[LatencyRecord]:
        """The standing latency records under all conditions, the headline first."""
        return [link.record for link in self.latency_links if link.state == "stands" and link.record]

    @cached_property
    def accuracy(self) -> AccuracyRecord | None:
        """The standing accuracy record."""
        return self.chain.accuracy(self.cell).standing

    @cached_property
    def latency_links(self) -> list[Link[LatencyRecord]]:
        """The latencies under all conditions, the headline first."""
        return [self.chain.latency(self.cell, name) for name in self.chain.conditions]

    @cached_property
    def links(self) -> list[tuple[str, Link[Record]]]:
        """(condition, link) of every stage in order; the condition of anything but a latency is ""."""
        return [
            ("", self.chain.train(self.cell)),
            ("", self.chain.export(self.cell)),
            *zip(self.chain.conditions, self.latency_links, strict=True),
            ("", self.chain.accuracy(self.cell)),
        ]


@dataclass(frozen=True)
class Recount:
    """How a model's files are counted anew: figures by the names that records have for them.

    Both raise HarnessError where a file is unreadable. What does it is given from outside, since it takes torch.
    """

    weights: Callable[[Path, int], Mapping[str, Any]]
    onnx: Callable[[Path], Mapping[str, Any]]


@dataclass(frozen=True)
class Evidence:
    """All of it. `entries` are in the plan's order, the teacher first."""

    plan: Plan
    entries: Mapping[str, Entry]
    # the folders that it was read from, which the strict checks look at more closely
    results: Path | None = None
    artifacts: Path | None = None
    recount: Recount | None = None

    @cached_property
    def by_state(self) -> Mapping[State, list[tuple[Entry, str, Link[Record]]]]:
        """(entry, condition, link) of every stage of every cell, by the link's state, in the plan's order."""
        found: dict[State, list[tuple[Entry, str, Link[Record]]]] = {}
        for entry in self.entries.values():
            for condition, link in entry.links:
                found.setdefault(link.state, []).append((entry, condition, link))
        return found

    def of(self, table: Table) -> list[Entry]:
        """The entries of one table's rows."""
        return [self.entries[cell.id] for cell in table.cells]

    @property
    def teacher(self) -> Entry:
        """The teacher's entry."""
        return self.entries[self.plan.teacher.id]

    def latencies(self) -> Iterator[tuple[Entry, LatencyRecord]]:
        """Every latency record that stands, under whatever condition, with its entry."""
        return ((entry, latency) for entry in self.entries.values() for latency in entry.latencies)

    def accuracies(self) -> Iterator[tuple[Entry, AccuracyRecord]]:
        """Every accuracy record that stands, with its entry."""
        return ((entry, entry.accuracy) for entry in self.entries.values() if entry.accuracy)


def read_evidence(
    plan: Plan,
    results: Path,
    artifacts: Path | None = None,
    recount: Recount | None = None,
    chain: Chain | None = None,
) -> Evidence:
    """Everything on disk about the plan's cells; an unreadable record is evidence, not an error.

    Without `artifacts` the records alone are looked at, as in a checkout that has no ONNX files; without `recount` the
    model files are known by their hashes alone. `chain` holds the profile's records where they have been read already.
    """
    chain = chain or Chain(plan, results)
    models = artifacts if artifacts and (artifacts / plan.profile).is_dir() else None

    def entry(cell: Cell) -> Entry:
        file = model_file(models, plan.profile, cell) if models else None
        return Entry(cell, chain, file_sha256(file) if file and file.is_file() else None)

    return Evidence(plan, {cell.id: entry(cell) for cell in plan.cells}, results, artifacts, recount)
