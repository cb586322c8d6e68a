"""Is every record there, readable, and this cell's; and does each belong to what the stage before left?"""

from collections.abc import Iterator

from harness.checks.evidence import KINDS, Entry, Evidence
from harness.checks.fault import Fault, short
from harness.files import digest
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, Stage, TrainRecord


def unreadable_record(evidence: Evidence) -> Iterator[Fault]:
    """A record that is truncated, or not what its stage writes."""
    for entry in evidence.entries.values():
        for stage, reason in entry.unreadable.items():
            # The message ends in a remedy of its own.
            yield Fault(entry, stage, reason.split("; delete it")[0])


def missing_record(evidence: Evidence) -> Iterator[Fault]:
    """A stage of a planned cell that has no record; of several in a row the first, which the others wait for."""
    for entry in evidence.entries.values():
        for stage in _first_gaps(entry):
            yield Fault(entry, stage, f"there is no {stage} record")


def _first_gaps(entry: Entry) -> list[Stage]:
    for kind in (TrainRecord, ExportRecord):
        if kind.stage not in {*entry.found, *entry.unreadable}:
            return [kind.stage]
        if not entry.done(kind):
            # What comes after waits for this one to be put right.
            return []
    return [stage for stage in ("latency", "accuracy") if stage not in {*entry.found, *entry.unreadable}]


def failed_stage(evidence: Evidence) -> Iterator[Fault]:
    """A stage that was tried under the present key and failed, with its own reason."""
    for entry in evidence.entries.values():
        for stage, kind in KINDS.items():
            record = entry.own(kind)
            if record and record.key == entry.cell.key and record.status == "failed":
                failure = record.failure
                why = f"{failure.kind}: {' '.join(failure.message.split())}" if failure else "no reason on record"
                yield Fault(entry, stage, f"{stage} failed ({why})")


def stale_key(evidence: Evidence) -> Iterator[Fault]:
    """A record that was made under other settings than the plan's; after a stale train record none is looked at."""
    for entry in evidence.entries.values():
        for stage, kind in KINDS.items():
            record = entry.own(kind)
            if record and record.key != entry.cell.key:
                reason = f"the {stage} record was made under other settings (key {record.key}, now {entry.cell.key})"
                yield Fault(entry, stage, reason)
                if stage == "train":
                    break


def wrong_key(evidence: Evidence) -> Iterator[Fault]:
    """A train record whose own settings do not give its key: one of the two was changed afterwards."""
    for entry in evidence.entries.values():
        record = entry.train
        if record and (key := digest(record.settings, 16)) != record.key:
            yield Fault(entry, "train", f"the settings on record give the key {key}, the record says {record.key}")


def other_teacher(evidence: Evidence) -> Iterator[Fault]:
    """A student of another teacher than the one in the table: weights that differ, if under one key."""
    train = evidence.teacher.train
    ours = {train.weights_sha256, train.rounded_from and train.rounded_from.weights_sha256} if train else set()
    for entry in evidence.entries.values():
        origin = entry.train.teacher_sha256 if entry.train else None
        if train and origin and origin not in ours:
            reason = (
                f"comes from a teacher with weights {short(origin)}, the teacher's are {short(train.weights_sha256)}"
            )
            yield Fault(entry, "train", reason)


def swapped_models(evidence: Evidence) -> Iterator[Fault]:
    """A record under another cell's name, or with the hash of another cell's weights or ONNX file."""
    owners = _owners(evidence)
    for entry in evidence.entries.values():
        for stage, record in entry.found.items():
            if (record.cell, record.profile) != (entry.cell.id, entry.profile):
                yield Fault(entry, stage, f"the {stage} record is that of {record.cell} in profile {record.profile}")
        for stage, what, found, _ in _breaks(entry):
            if found in owners:
                yield Fault(entry, stage, f"the {stage} record's {what} {short(found)} is that of {owners[found]}")


def broken_chain(evidence: Evidence) -> Iterator[Fault]:
    """A record whose weights or ONNX file are not those that the stage before left."""
    owners = _owners(evidence)
    for entry in evidence.entries.values():
        for stage, what, found, expected in _breaks(entry):
            if found not in owners:
                before = "train" if stage == "export" else "export"
                reason = f"the {stage} record is of {what} {short(found)}, the {before} record's is {short(expected)}"
                yield Fault(entry, stage, reason)


def _breaks(entry: Entry) -> Iterator[tuple[Stage, str, str | None, str | None]]:
    """(stage, what, hash found, hash expected) wherever a done record does not belong to the one before it."""
    train, export = entry.done(TrainRecord), entry.done(ExportRecord)
    if train and export and export.weights_sha256 != train.weights_sha256:
        yield "export", "weights", export.weights_sha256, train.weights_sha256
    for record in (entry.done(LatencyRecord), entry.done(AccuracyRecord)):
        if export and record and record.onnx_sha256 != export.onnx_sha256:
            yield record.stage, "ONNX file", record.onnx_sha256, export.onnx_sha256


def _owners(evidence: Evidence) -> dict[str | None, str]:
    """Hash of weights or ONNX file -> the cell whose train or export record has it."""
    owners: dict[str | None, str] = {}
    for entry in evidence.entries.values():
        train, export = entry.done(TrainRecord), entry.done(ExportRecord)
        owners |= {train.weights_sha256: entry.cell.id} if train else {}
        owners |= {export.onnx_sha256: entry.cell.id} if export else {}
    owners.pop(None, None)
    return owners


def changed_file(evidence: Evidence) -> Iterator[Fault]:
    """An ONNX file on this machine that is not the one on record."""
    for entry in evidence.entries.values():
        export = entry.done(ExportRecord)
        found = entry.onnx_file_sha256
        if export and found and found != export.onnx_sha256:
            whose = {other.export.onnx_sha256: other.cell.id for other in evidence.entries.values() if other.export}
            whom = f", which is {whose[found]}'s" if found in whose else ""
            reason = f"model.onnx has sha256 {short(found)}{whom}; the export record says {short(export.onnx_sha256)}"
            yield Fault(entry, "export", reason)


def duplicate_model(evidence: Evidence) -> Iterator[Fault]:
    """Two cells with one ONNX file or the same weights: at least one of them is not what its row says."""
    by_hash: dict[tuple[str, Stage, str], list[Entry]] = {}
    for entry in evidence.entries.values():
        if entry.train and entry.train.weights_sha256:
            by_hash.setdefault((entry.train.weights_sha256, "train", "weights"), []).append(entry)
        if entry.export and entry.export.onnx_sha256:
            by_hash.setdefault((entry.export.onnx_sha256, "export", "ONNX file"), []).append(entry)
    for (sha256, stage, what), entries in by_hash.items():
        for entry in entries if len(entries) > 1 else []:
            others = ", ".join(other.cell.id for other in entries if other is not entry)
            yield Fault(entry, stage, f"{what} {short(sha256)} is also that of {others}")
