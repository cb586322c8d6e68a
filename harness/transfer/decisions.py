"""What of a carried folder is taken: the rules of harness.transfer.merging, decided without writing anything."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from harness.errors import HarnessError
from harness.plan.planning import Cell, Plan
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, Record, TrainRecord, find, record_path
from harness.transfer.foreign_results import Found, Left, Place, Source, run_of

R = TypeVar("R", bound=Record)


@dataclass
class Merged:
    """What was taken (paths below the profile's folder), was here already, was left and why, and was set aside."""

    taken: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    set_aside: list[Path] = field(default_factory=list)

    @property
    def faults(self) -> list[Left]:
        """What somebody has to see to."""
        return [one for one in self.left if one.fault]


@dataclass
class Shelf:
    """The records that stand here: those on disk under the plan's keys, with what has been taken so far laid over."""

    plan: Plan
    results: Path
    taken: dict[Place, Record] = field(default_factory=dict)

    def get(self, kind: type[R], cell: Cell, condition: str = "") -> R | None:
        """A record under the cell's present key; None where there is none that can be read."""
        record = self.taken.get((kind.stage, cell.id, condition))
        if isinstance(record, kind):
            return record
        try:
            return find(self.results, self.plan.profile, cell.id, cell.key, kind, condition)
        except HarnessError:
            return None

    def weights(self, cell: Cell) -> str | None:
        """The hash of the weights that the cell's done train record names."""
        train = self.get(TrainRecord, cell)
        return train.weights_sha256 if train and train.status == "done" else None

    def onnx(self, cell: Cell) -> str | None:
        """The hash of the ONNX file that the cell's done export record names, if it is of those weights."""
        export = self.get(ExportRecord, cell)
        fits = export and export.status == "done" and export.weights_sha256 == self.weights(cell)
        return export.onnx_sha256 if export and fits else None

    def latencies(self) -> list[LatencyRecord]:
        """The latencies that stand: done, and of the ONNX file on record."""
        found = (
            (cell, self.get(LatencyRecord, cell, condition))
            for cell in self.plan.cells
            for condition in self.plan.settings.bench.conditions
        )
        return [
            one
            for cell, one in found
            if one and one.status == "done" and one.onnx_sha256 == self.onnx(cell) is not None
        ]


@dataclass
class Decisions:
    """One folder's records against the shelf."""

    plan: Plan
    shelf: Shelf
    source: Source
    replace: bool
    merged: Merged
    writes: dict[Path, bytes] = field(default_factory=dict)

    def decide(self) -> None:
        """Fill `writes` and `merged`; HarnessError on two trainings of one cell, unless `replace` is given."""
        conflicts = list(self._conflicts())
        if conflicts and not self.replace:
            others = f" (and {len(conflicts) - 1} more)" if len(conflicts) > 1 else ""
            raise HarnessError(
                f"{conflicts[0]}{others}; nothing was merged. --replace takes what is carried, and sets the weights "
                f"here aside; or leave {self.source.folder} out"
            )
        for cell in self.plan.cells:
            self._train(cell)
            self._export(cell)
            self._accuracy(cell)
        runs: dict[str, list[tuple[Found, LatencyRecord]]] = {}
        for found, latency in self.source.latencies():
            runs.setdefault(run_of(latency), []).append((found, latency))
        for run in sorted(runs, key=lambda run: _last(record for _, record in runs[run])):
            self._run(run, runs[run])

    # --- trained models ---------------------------------------------------------------------------------------------

    def _conflicts(self) -> Iterator[str]:
        for cell in self.plan.cells:
            own, new = self.shelf.get(TrainRecord, cell), self.source.get(TrainRecord, cell.id)
            if own and new and _done(own, new) and own.weights_sha256 != new.weights_sha256 and not _kin(own, new):
                here = record_path(self.shelf.results, self.plan.profile, "train", cell.id)
                there = self.source.found["train", cell.id, ""].path
                yield (
                    f"{cell.id} was trained twice: {here} has weights {_short(own.weights_sha256)} of "
                    f"{own.finished_at}, {there} has {_short(new.weights_sha256)} of {new.finished_at}"
                )

    def _train(self, cell: Cell) -> None:
        new = self.source.get(TrainRecord, cell.id)
        if new is None:
            return
        own = self.shelf.get(TrainRecord, cell)
        if own != new and new.status == "done" and (reason := self._not_of_our_teacher(cell, new)):
            self._leave(new, reason, fault=True)
        elif own and _done(own, new) and own.weights_sha256 != new.weights_sha256 and not self.replace:
            # what is left of the conflicts: one of the two is the other in half precision
            half = "here" if own.rounded_from else "there"
            self._leave(new, f"the same weights, in half precision {half}; those here are kept")
        else:
            self._newer(new, own, self.replace and own is not None and own.weights_sha256 != new.weights_sha256)

    def _not_of_our_teacher(self, cell: Cell, new: TrainRecord) -> str | None:
        if cell.is_teacher:
            return None
        teacher = self.source.get(TrainRecord, self.plan.teacher.id)
        origins = {new.teacher_sha256} if new.teacher_sha256 else _hashes(teacher)
        # a student of the rounded teacher is one of the teacher: the records say so
        origins |= _hashes(teacher) if origins & _hashes(teacher) else set()
        ours = _hashes(self.shelf.get(TrainRecord, self.plan.teacher))
        if not origins:
            return f"no word of its teacher; carry train/{self.plan.teacher.id}.json along"
        if not origins & ours:
            named = " or ".join(sorted(map(_short, ours))) or "none"
            return f"its teacher has weights {_short(min(origins))}, the one here {named}"
        return None

    def _export(self, cell: Cell) -> None:
        new, own = self.source.get(ExportRecord, cell.id), self.shelf.get(ExportRecord, cell)
        weights = self.shelf.weights(cell)
        if new is None or not self._has_base(cell, new, TrainRecord):
            return
        if new.status == "failed":
            self._newer(new, own)
        elif new.weights_sha256 != weights:
            ours, theirs = self.shelf.get(TrainRecord, cell), self.source.get(TrainRecord, cell.id)
            known = bool(ours and theirs and _kin(ours, theirs) and new.weights_sha256 == theirs.weights_sha256)
            reason = f"is of weights {_short(new.weights_sha256)}, the train record's are {_short(weights)}"
            self._leave(new, reason + (" (the same in half precision)" if known else ""), fault=not known)
        elif self.shelf.onnx(cell) not in (None, new.onnx_sha256) and not self.replace:
            self._leave(new, f"the same weights were exported here as ONNX file {_short(self.shelf.onnx(cell))}")
        else:
            stale = own is not None and own.onnx_sha256 != new.onnx_sha256
            self._newer(new, own, force=stale)

    def _accuracy(self, cell: Cell) -> None:
        new, own = self.source.get(AccuracyRecord, cell.id), self.shelf.get(AccuracyRecord, cell)
        if new and self._has_base(cell, new, ExportRecord) and self._of_our_file(cell, new):
            self._newer(new, own, force=own is not None and own.onnx_sha256 != new.onnx_sha256)

    def _has_base(self, cell: Cell, new: Record, before: type[TrainRecord] | type[ExportRecord]) -> bool:
        base = self.shelf.get(before, cell)
        if base is None or base.status == "failed":
            self._leave(new, f"no {before.stage} record stands here that it could belong to", fault=True)
            return False
        return True

    def _of_our_file(self, cell: Cell, new: AccuracyRecord) -> bool:
        ours = self.shelf.onnx(cell)
        if new.onnx_sha256 != ours:
            theirs = self.source.get(ExportRecord, cell.id)
            known = theirs is not None and theirs.onnx_sha256 == new.onnx_sha256
            self._leave(new, _other_file(new, ours), fault=not known)
        return new.onnx_sha256 == ours

    # --- bench runs -------------------------------------------------------------------------------------------------

    def _run(self, run: str, members: list[tuple[Found, LatencyRecord]]) -> None:
        """Take a bench run whole, or leave it."""
        cells = {cell.id: cell for cell in self.plan.cells}
        own = self.shelf.latencies()
        reason: str | None = None
        fault = True
        for _, record in members:
            ours = self.shelf.onnx(cells[record.cell])
            if record.onnx_sha256 != ours:
                theirs = self.source.get(ExportRecord, record.cell)
                fault = theirs is None or theirs.onnx_sha256 != record.onnx_sha256
                reason = f"{record.cell} {_other_file(record, ours)}"
                break
        teachers = {record.condition for _, record in members if record.cell == self.plan.teacher.id}
        if reason is None and (alone := {record.condition for _, record in members} - teachers):
            reason = f"the teacher's record is missing under {', '.join(sorted(alone))}"
        if reason is None and run not in map(run_of, own):
            reason, fault = self._better_here(own, [record for _, record in members]), False
        for found, record in members:
            if reason:
                self.merged.left.append(Left(self._name(found), f"bench run {run}: {reason}", fault))
            else:
                self._newer(record, self.shelf.get(LatencyRecord, cells[record.cell], record.condition), force=True)

    def _better_here(self, own: list[LatencyRecord], new: list[LatencyRecord]) -> str | None:
        if not own or self.replace:
            return None
        if _last(own) >= _last(new):
            return f"the latencies here are of a later run ({_last(own)})"
        lacking = sorted({record.cell for record in own} - {record.cell for record in new})
        if lacking:
            return f"it lacks {', '.join(lacking)}, benched here: ratios from two runs do not mix; bench all again"
        return None

    # --- common to all ----------------------------------------------------------------------------------------------

    def _newer(self, new: Record, own: Record | None, force: bool = False) -> None:
        """Take a record unless the one here is the same, done where it failed, or later. `force`: unless the same."""
        condition = new.condition if isinstance(new, LatencyRecord) else ""
        found = self.source.found[new.stage, new.cell, condition]
        if own == new:
            self.merged.same.append(self._name(found))
        elif own is None or force or (own.status == "failed") > (new.status == "failed"):
            self._take(found)
        elif (own.status == "failed") < (new.status == "failed"):
            self._leave(new, "failed there, is done here")
        elif own.finished_at >= new.finished_at:
            self._leave(new, f"ended {new.finished_at}, the one here {own.finished_at}")
        else:
            self._take(found)

    def _take(self, found: Found) -> None:
        record = found.record
        condition = record.condition if isinstance(record, LatencyRecord) else ""
        self.shelf.taken[record.stage, record.cell, condition] = record
        path = record_path(self.shelf.results, self.plan.profile, record.stage, record.cell, condition)
        self.writes[path] = found.path.read_bytes()

    def _leave(self, record: Record, reason: str, fault: bool = False) -> None:
        condition = record.condition if isinstance(record, LatencyRecord) else ""
        found = self.source.found[record.stage, record.cell, condition]
        self.merged.left.append(Left(self._name(found), reason, fault))

    def _name(self, found: Found) -> str:
        return found.path.relative_to(self.source.folder).as_posix()


def _done(own: TrainRecord, new: TrainRecord) -> bool:
    return own.status == new.status == "done"


def _kin(own: TrainRecord, new: TrainRecord) -> bool:
    """Whether one's weights are the other's in half precision."""
    return bool(_hashes(own) & _hashes(new))


def _hashes(record: TrainRecord | None) -> set[str]:
    """The hash of a record's weights, and of what they were before they were rounded."""
    if record is None or record.weights_sha256 is None:
        return set()
    return {record.weights_sha256, *([record.rounded_from.weights_sha256] if record.rounded_from else [])}


def _other_file(record: AccuracyRecord | LatencyRecord, ours: str | None) -> str:
    return f"is of ONNX file {_short(record.onnx_sha256)}, the export record's is {_short(ours)}"


def _last(records: Iterable[LatencyRecord]) -> str:
    return max(record.finished_at for record in records)


def _short(sha256: str | None) -> str:
    return f"{sha256[:12]}..." if sha256 else "none"
