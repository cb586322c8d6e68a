"""Where a row's figures come from: records, the hashes that join them, and the settings that their keys stand for."""

from collections.abc import Iterator, Sequence
from typing import Any

from harness.files import digest
from harness.plan.planning import Plan
from harness.plan.specs import Stage
from harness.reporting.rows import Row
from harness.store.records import LatencyRecord, Record

JSON = dict[str, Any]
# What a record says beside its figures, where it says it.
TOLD = ("pruning", "rounded_from", "warnings", "code_kept")
# What many records have in common, and the digits of the hash that names it.
CIRCUMSTANCES = ("runtime", "threads", "session", "instruction_set", "code", "environment")
SHORT = 12


def records_of(row: Row) -> dict[str, Record]:
    """The standing records behind a row: train, export, latency (the headline), accuracy, and those under the other
    conditions, by the condition's name."""
    found: dict[str, Record | None] = {
        "train": row.train,
        "export": row.export,
        "latency": row.latency,
        "accuracy": row.accuracy,
        **{record.condition: record for record in row.beside},
    }
    return {name: record for name, record in found.items() if record}


def origins(plan: Plan, rows: Sequence[Row]) -> JSON:
    """What stands behind the rows.

    `models`: by cell id, its title, key and records. `settings`: by key, those of a stage with the key of its parent;
    the key of every record is among them, and so are all before it, up to the teacher's. What many have in common is
    there once, in `shared`, and named by a hash: `hashes` and `circumstances` of records, and a stage's `own` settings.
    """
    models: JSON = {}
    settings: JSON = {}
    shared: JSON = {}

    def name(value: JSON) -> str:
        shared.setdefault(digest(value, SHORT), value)
        return digest(value, SHORT)

    for row in rows:
        records = {}
        for place, record in records_of(row).items():
            told, hashes, circumstances = _told(record)
            records[place] = {**told, "hashes": name(hashes), "circumstances": name(circumstances)}
        models[row.cell.id] = {"title": row.cell.title, "key": row.cell.spec.key, "records": records}
        for stage in _stages(plan, row):
            settings[stage.key] = {"own": name(stage.own), **({"parent": stage.parent.key} if stage.parent else {})}
    return {"models": models, "settings": settings, "shared": shared}


def _stages(plan: Plan, row: Row) -> Iterator[Stage]:
    yield from row.cell.spec.lineage
    yield plan.accuracy(row.cell)
    yield from (plan.latency(row.cell, record.condition) for record in (row.latency, *row.beside) if record)


def _told(record: Record) -> tuple[JSON, JSON, JSON]:
    """What the page tells of a record, its hashes, and the circumstances that it was made in."""
    document = record.model_dump(mode="json", exclude_none=True)
    folder = f"{record.stage}/{record.condition}" if isinstance(record, LatencyRecord) else record.stage
    told = {
        # below the folder that the page lies in
        "file": f"{folder}/{record.cell}.json",
        "key": record.key,
        "finished_at": record.finished_at,
        "seconds": record.seconds,
        **{name: document[name] for name in TOLD if document.get(name)},
    }
    hashes = {name: value for name, value in document.items() if name.endswith("_sha256")}
    return told, hashes, {name: document[name] for name in CIRCUMSTANCES if document.get(name)}
