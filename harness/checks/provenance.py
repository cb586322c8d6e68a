"""Is every record there, readable, and this cell's; and was it made from what the stage before left?

harness.store.chain decides which records stand. These checks give each reason why one does not a name of its own.
"""

from collections.abc import Iterator

from harness.checks.evidence import Entry, Evidence
from harness.checks.fault import Fault
from harness.plan.specs import key_of
from harness.store.chain import Link, short
from harness.store.records import ExportRecord, Record, StageName, TrainRecord

# The stage that each stage's record has to fit.
BEFORE: dict[StageName, StageName] = {"export": "train", "latency": "export", "accuracy": "export"}


def _waits(entry: Entry, stage: StageName) -> bool:
    """Whether a record waits for the one before it, which does not stand: that one is the one to name."""
    before = BEFORE.get(stage)
    return before is not None and not any(link.stage == before and link.standing for _, link in entry.links)


def unreadable_record(evidence: Evidence) -> Iterator[Fault]:
    """A record that is truncated, or not what its stage writes."""
    for entry, condition, link in evidence.by_state.get("unreadable", []):
        # The message ends in a remedy of its own.
        yield Fault(entry, link.stage, link.reason.split("; delete it")[0], condition)


def missing_record(evidence: Evidence) -> Iterator[Fault]:
    """A stage of a planned cell that has no record; of several in a row the first, which the others wait for."""
    headline = evidence.plan.settings.bench.conditions[0]
    for entry, condition, link in evidence.by_state.get("missing", []):
        # A latency under another condition is a figure more or less: the row is complete without it.
        if not _waits(entry, link.stage) and condition in ("", headline):
            yield Fault(entry, link.stage, link.reason, condition)


def failed_stage(evidence: Evidence) -> Iterator[Fault]:
    """A stage that was tried under the present key and failed, with its own reason."""
    for entry, condition, link in evidence.by_state.get("failed", []):
        failure = link.record.failure if link.record else None
        kind = f"{failure.kind}: " if failure else ""
        yield Fault(entry, link.stage, f"{link.stage} failed ({kind}{' '.join(link.reason.split())})", condition)


def stale_key(evidence: Evidence) -> Iterator[Fault]:
    """A record that was made under other settings than the plan's; of several in a row the first."""
    for entry, condition, link in evidence.by_state.get("stale", []):
        if not _waits(entry, link.stage):
            yield Fault(entry, link.stage, link.reason, condition)


def wrong_key(evidence: Evidence) -> Iterator[Fault]:
    """A record whose own settings do not give its key: one of the two was changed afterwards."""
    for entry, condition, link in evidence.by_state.get("stands", []):
        assert link.record is not None
        try:
            key = key_of(link.record.spec)
        except ValueError as error:
            key = f"none ({error})"
        if key != link.record.key:
            reason = f"the settings on record give the key {key}, the record says {link.record.key}"
            yield Fault(entry, link.stage, reason, condition)


def code_changed(evidence: Evidence) -> Iterator[Fault]:
    """A record that was made by a plug-in whose code has changed since."""
    for entry, condition, link in evidence.by_state.get("stands", []):
        trained_by = entry.chain.train(entry.cell).changed if link.stage == "export" else ()
        if changed := [name for name in link.changed if name not in trained_by]:
            yield Fault(entry, link.stage, f"code has changed since: {', '.join(changed)}", condition)


def other_teacher(evidence: Evidence) -> Iterator[Fault]:
    """A student of another teacher than the one in the table: its weights differ, though its key is the same."""
    for entry, _, link in evidence.by_state.get("orphaned", []):
        if link.stage == "train":
            yield Fault(entry, "train", link.reason)


def swapped_models(evidence: Evidence) -> Iterator[Fault]:
    """A record under another cell's name, or with the hash of another cell's weights or ONNX file."""
    for entry, condition, link in evidence.by_state.get("foreign", []):
        yield Fault(entry, link.stage, link.reason, condition)
    owners = _owners(evidence)
    for entry, condition, link in _misfits(evidence):
        if (owner := owners.get(_source(link))) is not None:
            what = "weights" if link.stage == "export" else "ONNX file"
            reason = f"the {link.stage} record is of {what} {short(_source(link))}, which is that of {owner}"
            yield Fault(entry, link.stage, reason, condition)


def broken_chain(evidence: Evidence) -> Iterator[Fault]:
    """A record whose weights or ONNX file are not those that the stage before left."""
    owners = _owners(evidence)
    for entry, condition, link in _misfits(evidence):
        if _source(link) not in owners:
            yield Fault(entry, link.stage, link.reason, condition)


def _misfits(evidence: Evidence) -> Iterator[tuple[Entry, str, Link[Record]]]:
    """Records that do not fit the one before, although that one stands."""
    for entry, condition, link in evidence.by_state.get("orphaned", []):
        if link.stage != "train" and not _waits(entry, link.stage):
            yield entry, condition, link


def _source(link: Link[Record]) -> str | None:
    """The hash of what a record says that it was made from."""
    name = "weights_sha256" if link.stage == "export" else "onnx_sha256"
    return getattr(link.record, name, None)


def _owners(evidence: Evidence) -> dict[str | None, str]:
    """Hash of weights or ONNX file -> the cell whose train or export record has it."""
    owners: dict[str | None, str] = {}
    for entry in evidence.entries.values():
        train, export = entry.train, entry.export
        owners |= {train.weights_sha256: entry.cell.id} if train else {}
        owners |= {export.onnx_sha256: entry.cell.id} if export else {}
    owners.pop(None, None)
    return owners


def changed_file(evidence: Evidence) -> Iterator[Fault]:
    """An ONNX file on this machine that is not the one on record."""
    owners = _owners(evidence)
    for entry in evidence.entries.values():
        export, found = entry.export, entry.onnx_file_sha256
        if export and found and found != export.onnx_sha256:
            whom = f", which is that of {owners[found]}" if found in owners else ""
            reason = (
                f"the ONNX file has sha256 {short(found)}{whom}; the export record says {short(export.onnx_sha256)}"
            )
            yield Fault(entry, "export", reason)


def duplicate_model(evidence: Evidence) -> Iterator[Fault]:
    """Two models with the same weights, or two rows with one ONNX file: at least one is not what its row says."""
    yield from _duplicates(evidence, TrainRecord.stage)
    yield from _duplicates(evidence, ExportRecord.stage)


def _key(entry: Entry, stage: StageName) -> str:
    return entry.cell.trained.key if stage == "train" else entry.cell.spec.key


def _duplicates(evidence: Evidence, stage: StageName) -> Iterator[Fault]:
    what = "weights" if stage == "train" else "ONNX file"
    by_hash: dict[str, list[Entry]] = {}
    for entry in evidence.entries.values():
        train, export = entry.train, entry.export
        sha256 = (train and train.weights_sha256) if stage == "train" else (export and export.onnx_sha256)
        if sha256:
            by_hash.setdefault(sha256, []).append(entry)
    for sha256, entries in by_hash.items():
        for entry in entries:
            # Exports of one trained model share its weights, and protocols may agree on what makes a cell.
            if others := [other.cell.id for other in entries if _key(other, stage) != _key(entry, stage)]:
                yield Fault(entry, stage, f"{what} {short(sha256)} is also that of {', '.join(others)}")
