"""Which of the other machine's records are taken: the rules of harness.transfer.merging, decided without any writing.

Whether a record stands is never decided here: harness.store.chain says so, of the records there, of those here, and of
those here as they would be if a record were taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from harness import predictions
from harness.errors import HarnessError
from harness.plan.planning import Plan
from harness.store.chain import Chain, hashes, short
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, Record, TrainRecord, load
from harness.transfer.foreign_results import Place, Source, file_of, places, run_of


@dataclass(frozen=True)
class Left:
    """A file that was not taken, and why. A fault is something to see to; anything else is as it should be."""

    name: str
    reason: str
    fault: bool = False


@dataclass
class Merged:
    """What was taken (files relative to the profile's folder), was here already, was left and why, was set aside."""

    taken: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    set_aside: list[Path] = field(default_factory=list)

    @property
    def faults(self) -> list[Left]:
        """What somebody has to see to."""
        return [one for one in self.left if one.fault]


@dataclass(frozen=True)
class Found:
    """A record of the other machine, and its place."""

    place: Place
    record: Record


class LocalRecords:
    """The records here, with those that have been taken so far in the places of those on disk."""

    def __init__(self, plan: Plan, results: Path) -> None:
        self.plan = plan
        self.folder = results / plan.profile
        # file -> its content, as it is to be written
        self.writes: dict[str, bytes] = {}
        self._taken: dict[str, Record] = {}
        self._on_disk = cache(partial(_load, self.folder))
        self.chain = self.chain_with()

    def chain_with(self, *more: Found) -> Chain:
        """The chain as it would be if these were taken as well."""
        instead = {**self._taken, **{one.place.file: one.record for one in more}}

        def read(kind: type[Record], name: str, condition: str) -> Record | None:
            return instead.get(file_of(kind, name, condition)) or self._on_disk(kind, name, condition)

        return Chain(self.plan, self.folder, read)

    def take(self, found: Found, content: bytes) -> None:
        """Have a record stand here."""
        self._taken[found.place.file] = found.record
        self.writes[found.place.file] = content
        self.chain = self.chain_with()

    def lay_beside(self, files: Mapping[str, bytes]) -> None:
        """Have files here that a record names, as far as they are not here already."""
        for name, content in files.items():
            path = self.folder / name
            if not path.is_file() or path.read_bytes() != content:
                self.writes[name] = content

    def latencies(self) -> list[LatencyRecord]:
        """The latencies that stand, under every condition."""
        links = [place.link(self.chain) for place in places(self.plan) if place.kind is LatencyRecord]
        return [link.standing for link in links if link.standing]


def _load(folder: Path, kind: type[Record], name: str, condition: str) -> Record | None:
    path = folder / file_of(kind, name, condition)
    return load(path, kind) if path.exists() else None


@dataclass
class Decisions:
    """One folder's records against those here."""

    plan: Plan
    local: LocalRecords
    source: Source
    replace: bool
    merged: Merged

    def decide(self) -> None:
        """Take what is to be taken and say why the rest is left.

        HarnessError where two trainings of one model differ, unless `replace` is given.
        """
        self._require_no_conflict()
        runs: dict[str, list[Found]] = {}
        for place in places(self.plan):
            there = place.link(self.source.chain)
            if there.state in ("unreadable", "foreign", "stale"):
                reason = there.reason.split("; delete it")[0]
                self._leave(place, reason, fault=True)
            elif there.record and place.kind is LatencyRecord:
                runs.setdefault(run_of(there.record), []).append(Found(place, there.record))
            elif there.record:
                self._one(Found(place, there.record))
        for run in sorted(runs, key=lambda run: _last(found.record for found in runs[run])):
            self._run(run, runs[run])
        for name in self.source.others():
            self.merged.left.append(Left(name, f"matrix.toml asks for no such record in profile {self.plan.profile}"))

    def _require_no_conflict(self) -> None:
        conflicts = []
        for place in places(self.plan):
            if place.kind is not TrainRecord:
                continue
            mine, new = place.link(self.local.chain).standing, place.link(self.source.chain).standing
            if mine and new and mine.weights_sha256 != new.weights_sha256 and not _same_but_rounded(mine, new):
                conflicts.append(
                    f"{mine.cell} was trained twice: {self.local.folder / place.file} has weights "
                    f"{short(mine.weights_sha256)} of {mine.finished_at}, {self.source.folder / place.file} has "
                    f"{short(new.weights_sha256)} of {new.finished_at}"
                )
        if conflicts and not self.replace:
            others = f" (and {len(conflicts) - 1} more)" if len(conflicts) > 1 else ""
            raise HarnessError(
                f"{conflicts[0]}{others}; nothing was merged. --replace takes the other machine's and sets the "
                f"weights here aside; or leave {self.source.folder} out"
            )

    # --- trained models, exports, accuracies --------------------------------------------------------------------------

    def _one(self, found: Found) -> None:
        """Take one record, or leave it."""
        place, record = found.place, found.record
        here, there = place.link(self.local.chain), place.link(self.source.chain)
        mine = here.record if here.state in ("stands", "failed") else None
        if mine == record:
            self.merged.same.append(place.file)
            self._complete(record)
        elif reason := self._without_teacher(found):
            self._leave(place, reason, fault=True)
        elif reason := self._orphaned(found):
            self._leave(place, reason, fault=there.state == "orphaned")
        elif mine and not self.replace and (reason := _other_model(mine, record)):
            self._leave(place, reason)
        else:
            self._better(found, mine)

    def _without_teacher(self, found: Found) -> str:
        """Why a student's record cannot be held against its teacher; from another machine it is not taken on trust."""
        record = found.record
        if not isinstance(record, TrainRecord) or record.status == "failed" or found.place.cell.is_teacher:
            return ""
        if record.teacher_sha256 is None:
            return "does not say which teacher the student comes from"
        if self.local.chain.train(self.plan.teacher).standing is None:
            return f"its teacher is not on record here; merge train/{self.plan.teacher.model_id}.json as well"
        return ""

    def _orphaned(self, found: Found) -> str:
        """Why a record would not belong to those that stand here; empty where it would."""
        place, record = found.place, found.record
        # A failed export does not name its weights; any other failed record belongs here if a done one would.
        if isinstance(record, ExportRecord) and record.status == "failed":
            trained = self.local.chain.train(place.cell).standing
            return "" if trained else "there is no standing train record that it could belong to"
        as_done = Found(place, record.model_copy(update={"status": "done"}))
        link = place.link(self.local.chain_with(as_done))
        if link.state != "orphaned":
            return ""
        if isinstance(record, ExportRecord) and self._of_rounded(place, record):
            return f"{link.reason} (the same weights in half precision)"
        return link.reason

    def _of_rounded(self, place: Place, export: ExportRecord) -> bool:
        """Whether an export is of the other machine's weights, and those are the weights here in half precision, or the
        other way round.
        """
        ours, theirs = (chain.train(place.cell).standing for chain in (self.local.chain, self.source.chain))
        if ours is None or theirs is None or export.weights_sha256 != theirs.weights_sha256:
            return False
        return _same_but_rounded(ours, theirs)

    # --- bench runs -------------------------------------------------------------------------------------------------

    def _run(self, run: str, members: Sequence[Found]) -> None:
        """Take a bench run whole, or leave it."""
        reason, fault = self._refused(members)
        if not reason and run not in map(run_of, own := self.local.latencies()):
            reason = self._better_here(own, [found.record for found in members])
        for found in members:
            here = found.place.link(self.local.chain)
            if reason:
                self._leave(found.place, f"bench run {run}: {reason}", fault)
            elif found.record == here.record:
                self.merged.same.append(found.place.file)
            else:
                self._take(found)

    def _refused(self, members: Sequence[Found]) -> tuple[str, bool]:
        """Why a run cannot be taken, and whether that is a fault; empty where it can."""
        for found in members:
            if reason := self._orphaned(found):
                there = found.place.link(self.source.chain)
                return f"{found.place.cell.id}: {reason}", there.state == "orphaned"
        with_teacher = {found.place.condition for found in members if found.place.cell.is_teacher}
        if alone := {found.place.condition for found in members} - with_teacher:
            return f"the teacher's record is missing under {', '.join(sorted(alone))}", True
        return "", False

    def _better_here(self, own: Sequence[Record], new: Sequence[Record]) -> str:
        """Why the latencies here are kept; empty where the new ones are better."""
        if not own:
            return ""
        if not self.replace and _last(own) >= _last(new):
            return f"the latencies here are of a later run ({_last(own)})"
        lacking = sorted({record.cell for record in own} - {record.cell for record in new})
        if lacking:
            return f"it lacks {', '.join(lacking)}, benched here: ratios from two runs do not mix; bench all again"
        return ""

    # --- common to all ----------------------------------------------------------------------------------------------

    def _better(self, found: Found, mine: Record | None) -> None:
        """Take a record where the one here failed, is older, or is of another model; a failure never beats a result."""
        new = found.record
        if mine is None or (mine.status, new.status) == ("failed", "done"):
            self._take(found)
        elif (mine.status, new.status) == ("done", "failed"):
            self._leave(found.place, "failed there, is done here")
        elif _other_model(mine, new) or mine.finished_at < new.finished_at:
            self._take(found)
        else:
            self._leave(found.place, f"ended {new.finished_at}, the one here {mine.finished_at}")

    def _take(self, found: Found) -> None:
        try:
            beside = self._predictions(found.record)
        except HarnessError as error:
            # A record without the predictions that it names would fail a check here.
            self._leave(found.place, str(error), fault=True)
            return
        self.local.take(found, (self.source.folder / found.place.file).read_bytes())
        self.local.lay_beside(beside)

    def _complete(self, record: Record) -> None:
        """Take the predictions of a record that is here, and whose own have been lost or damaged."""
        if isinstance(record, AccuracyRecord) and not predictions.are_here(self.local.folder, record):
            # where they are lost there as well, the checks here say so
            with suppress(HarnessError):
                self.local.lay_beside(self._predictions(record))

    def _predictions(self, record: Record) -> dict[str, bytes]:
        """The files that go where a record goes."""
        return self.source.predictions_of(record) if isinstance(record, AccuracyRecord) else {}

    def _leave(self, place: Place, reason: str, fault: bool = False) -> None:
        self.merged.left.append(Left(place.file, reason, fault))


def _other_model(mine: Record, new: Record) -> str:
    """How two done records that stand are of different models, or files of one model; empty where they are not.

    Different trainings are a conflict and are dealt with before: what is left of them is one model in two precisions.
    """
    if (mine.status, new.status) != ("done", "done"):
        return ""
    if isinstance(mine, TrainRecord) and isinstance(new, TrainRecord) and mine.weights_sha256 != new.weights_sha256:
        rounded = "here" if mine.rounded_from else "there"
        return f"the same weights, in half precision {rounded}; those here are kept"
    if isinstance(mine, ExportRecord) and isinstance(new, ExportRecord) and mine.onnx_sha256 != new.onnx_sha256:
        return f"the same weights were exported here as ONNX file {short(mine.onnx_sha256)}"
    return ""


def _same_but_rounded(one: TrainRecord, other: TrainRecord) -> bool:
    """Whether one's weights are the other's in half precision."""
    return bool(hashes(one) & hashes(other))


def _last(records: Iterable[Record]) -> str:
    return max(record.finished_at for record in records)
