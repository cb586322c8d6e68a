"""Which records stand: the one place that says whether a figure on disk belongs to the row it would be shown in.

A record stands when it is whole, this cell's, done, made under the stage's present key, and made from what the stage
before left: a student from this teacher's weights, an export from the trained weights, a measurement from the exported
file. One that stands may still have been made by other code than today's; then it says so.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Generic, Literal, TypeVar

from harness.errors import HarnessError
from harness.plan.planning import Cell, Plan
from harness.plan.specs import Stage, code_of, plugin_digest
from harness.store.records import (
    AccuracyRecord,
    ExportRecord,
    LatencyRecord,
    Record,
    StageName,
    TrainRecord,
    load,
    record_path,
)

R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)
# missing: no record; unreadable: damaged, or of an earlier schema; foreign: another cell's or profile's; stale: made
# under another key; failed: tried, with a reason; orphaned: made from something that has been replaced since
State = Literal["missing", "unreadable", "foreign", "stale", "failed", "orphaned", "stands"]
# those of a record that was made under the present key, for better or worse
TRIED: tuple[State, ...] = ("failed", "orphaned", "stands")
# (stage, cell, condition) -> the record that lies there, or None; HarnessError where it cannot be read
Read = Callable[[type[Record], str, str], Record | None]


@dataclass(frozen=True)
class Link(Generic[R_co]):
    """What became of one stage of one cell. `record` is there unless the state is missing, unreadable or foreign.

    `reason` says why it does not stand; `changed` lists the plug-ins whose code is another one now.
    """

    stage: StageName
    state: State
    record: R_co | None = None
    reason: str = ""
    changed: tuple[str, ...] = ()

    @property
    def standing(self) -> R_co | None:
        """The record, if it stands."""
        return self.record if self.state == "stands" else None


class Chain:
    """The links of a plan's cells, read once each."""

    def __init__(self, plan: Plan, results: Path, read: Read | None = None) -> None:
        self.plan = plan
        self._read = read or _reader(results, plan.profile)
        self._links: dict[tuple[str, str, str], Link[Record]] = {}
        self._digest = cache(plugin_digest)
        # the bench's, which it makes anew whenever it is asked
        self.conditions = tuple(plan.settings.bench.conditions)

    def train(self, cell: Cell) -> Link[TrainRecord]:
        """The training of the cell's model."""
        unlike = partial(self._other_teacher, cell)
        return self._link(TrainRecord, cell.model_id, lambda: cell.trained, "", unlike)

    def export(self, cell: Cell) -> Link[ExportRecord]:
        """The export of the model file."""

        def unlike(record: ExportRecord) -> str:
            train = self.train(cell).standing
            if train is None:
                return "there is no standing train record that it could belong to"
            return _unlike("weights", record.weights_sha256, "train", train.weights_sha256)

        return self._link(ExportRecord, cell.id, lambda: cell.spec, "", unlike)

    def latency(self, cell: Cell, condition: str = "") -> Link[LatencyRecord]:
        """The latency under a condition; without one, under the headline."""
        condition = condition or self.conditions[0]
        stage = partial(self.plan.latency, cell, condition)
        return self._link(LatencyRecord, cell.id, stage, condition, partial(self._other_file, cell))

    def accuracy(self, cell: Cell) -> Link[AccuracyRecord]:
        """The accuracy on all test images."""
        stage = partial(self.plan.accuracy, cell)
        return self._link(AccuracyRecord, cell.id, stage, "", partial(self._other_file, cell))

    def forget(self, cell: Cell) -> None:
        """Read the cell's records anew when they are asked for next: something has been written."""
        self._links = {place: link for place, link in self._links.items() if place[1] not in (cell.id, cell.model_id)}

    def _other_teacher(self, cell: Cell, record: TrainRecord) -> str:
        if cell.is_teacher or record.teacher_sha256 is None:
            return ""
        teacher = self.train(self.plan.teacher).standing
        if teacher is None or record.teacher_sha256 in hashes(teacher):
            return ""
        ours, theirs = short(teacher.weights_sha256), short(record.teacher_sha256)
        return f"comes from a teacher with weights {theirs}, the teacher's are {ours}"

    def _other_file(self, cell: Cell, record: LatencyRecord | AccuracyRecord) -> str:
        export = self.export(cell).standing
        if export is None:
            return "there is no standing export record that it could belong to"
        return _unlike("ONNX file", record.onnx_sha256, "export", export.onnx_sha256)

    def _link(
        self, kind: type[R], name: str, stage: Callable[[], Stage], condition: str, unlike: Callable[[R], str]
    ) -> Link[R]:
        place = (kind.stage, name, condition)
        if place not in self._links:
            link = self._judge(kind, name, stage(), condition, unlike)
            self._links[place] = link
        return self._links[place]  # type: ignore[return-value]

    def _judge(self, kind: type[R], name: str, stage: Stage, condition: str, unlike: Callable[[R], str]) -> Link[R]:
        word = kind.stage
        try:
            record = self._read(kind, name, condition)
        except HarnessError as error:
            return Link(word, "unreadable", None, str(error))
        if record is None:
            return Link(word, "missing", None, f"there is no {word} record")
        if (record.cell, record.profile) != (name, self.plan.profile) or not isinstance(record, kind):
            return Link(word, "foreign", None, f"the {word} record is that of {record.cell} in {record.profile}")
        if record.key != stage.key:
            why = f"the {word} record was made under other settings (key {record.key}, now {stage.key})"
            return Link(word, "stale", record, why)
        if isinstance(record, LatencyRecord) and record.condition != condition:
            return Link(word, "foreign", None, f"the latency record is that of {record.condition}, not of {condition}")
        if record.status == "failed":
            failure = record.failure
            return Link(word, "failed", record, failure.message if failure else "no reason is on record")
        if reason := unlike(record):
            return Link(word, "orphaned", record, f"the {word} record {reason}")
        present = code_of(stage, self._digest)
        changed = tuple(name for name, digest in record.code.items() if present.get(name, digest) != digest)
        return Link(word, "stands", record, "", changed)


def as_measured(plan: Plan, chains: Iterable[Chain]) -> Plan:
    """The plan under the instruction sets that were measured, which the first of these chains decides that knows.

    A machine that cannot show the target's instruction set measures under its own (harness.host.isa). Then the headline
    is the host's, until the target's is measured.
    """
    for chain in chains if "target" in plan.settings.bench.isa else ():
        measured = {
            one.isa for one in plan.settings.bench.either if chain.latency(plan.teacher, one.name).state in TRIED
        }
        if measured:
            return plan if "target" in measured else plan.as_host()
    return plan


def _reader(results: Path, profile: str) -> Read:
    def read(kind: type[Record], name: str, condition: str) -> Record | None:
        path = record_path(results, profile, kind.stage, name, condition)
        return load(path, kind) if path.exists() else None

    return read


def hashes(record: TrainRecord | None) -> set[str]:
    """The hash of a record's weights, and of what they were before they were rounded to half precision."""
    if record is None or record.weights_sha256 is None:
        return set()
    return {record.weights_sha256, *([record.rounded_from.weights_sha256] if record.rounded_from else [])}


def short(sha256: str | None) -> str:
    """A hash as a reader can compare it."""
    return f"{sha256[:12]}..." if sha256 else "none"


def _unlike(what: str, found: str | None, before: str, expected: str | None) -> str:
    return "" if found == expected else f"is of {what} {short(found)}, the {before} record's is {short(expected)}"
