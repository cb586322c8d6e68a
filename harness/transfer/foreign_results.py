"""Another results folder of the same profile, as it was carried here: what is in it, and what is wrong with it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from harness.errors import HarnessError
from harness.files import digest
from harness.plan.planning import DataName, Plan, ancestry
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
KINDS: tuple[type[Record], ...] = (TrainRecord, ExportRecord, AccuracyRecord, LatencyRecord)
Place = tuple[Stage, str, str]


@dataclass(frozen=True)
class Found:
    """A record and the file it was read from, which is copied as it is."""

    path: Path
    record: Record


@dataclass(frozen=True)
class Left:
    """A file that was not taken, and why. A fault is something to see to; anything else is as it should be."""

    name: str
    reason: str
    fault: bool = False


@dataclass(frozen=True)
class Source:
    """The records of a folder that are this plan's, by stage, cell and condition; and the files that are not, and why.

    `folder` is the profile's: it has train/, export/, latency/ and accuracy/ in it.
    """

    folder: Path
    found: dict[Place, Found]
    left: list[Left] = field(default_factory=list)

    def get(self, kind: type[R], cell: str) -> R | None:
        """A cell's record of one stage; latencies are looked at run by run."""
        one = self.found.get((kind.stage, cell, ""))
        return one.record if one and isinstance(one.record, kind) else None

    def latencies(self) -> Iterator[tuple[Found, LatencyRecord]]:
        """All latency records, with their files."""
        return ((one, one.record) for one in self.found.values() if isinstance(one.record, LatencyRecord))


def profile_folder(given: Path, profile: str) -> Path:
    """The profile's folder in `given`, which may be a results folder or that folder itself; HarnessError if neither."""
    stages = [kind.stage for kind in KINDS]
    for folder in (given / profile, given):
        if any((folder / stage).is_dir() for stage in stages):
            return folder
    raise HarnessError(
        f"{given}: no records of profile {profile} here; name a folder like results or results/{profile}"
    )


def read_source(folder: Path, plan: Plan) -> Source:
    """Every record file of a profile's folder, held against the plan."""
    source = Source(folder, {})
    for kind in KINDS:
        pattern = "*/*.json" if kind is LatencyRecord else "*.json"
        for path in sorted((folder / kind.stage).glob(pattern)):
            name = path.relative_to(folder).as_posix()
            try:
                record = load(path, kind)
            except HarnessError as error:
                source.left.append(Left(name, str(error).split("; delete it")[0], fault=True))
                continue
            reason = foreign(record, path, plan)
            if reason:
                source.left.append(Left(name, reason, fault=True))
            else:
                condition = record.condition if isinstance(record, LatencyRecord) else ""
                source.found[kind.stage, record.cell, condition] = Found(path, record)
    return source


def foreign(record: Record, path: Path, plan: Plan) -> str | None:
    """Why a record that can be read is none of this plan's; None where it is."""
    cells = {cell.id: cell for cell in plan.cells}
    cell = cells.get(record.cell)
    condition = record.condition if isinstance(record, LatencyRecord) else ""
    where = record_path(Path(), record.profile, record.stage, record.cell, condition)
    if record.profile != plan.profile:
        return f"is of profile {record.profile}"
    if path.name != where.name or (condition and path.parent.name != condition):
        return f"says that it is {where}"
    if cell is None:
        return f"{record.cell} is no cell of profile {plan.profile} in this matrix.toml"
    if record.key != cell.key:
        return f"was made under other settings (key {record.key}, here {cell.key})"
    if isinstance(record, TrainRecord) and record.status == "done" and digest(record.settings, 16) != record.key:
        return f"its settings do not give its key ({digest(record.settings, 16)}, not {record.key})"
    if condition and condition not in plan.settings.bench.conditions:
        return f"condition {condition} is not asked for; there are {', '.join(plan.settings.bench.conditions)}"
    return None


def data_of(folder: Path) -> DataName | None:
    """The data set that a folder's models were trained on, as its first readable train record has it."""
    for path in sorted((folder / TrainRecord.stage).glob("*.json")):
        try:
            name: Literal["cifar100", "stand-in"] = ancestry(load(path, TrainRecord).settings)[0]["data"]["name"]
        except (HarnessError, KeyError):
            continue
        return name
    return None


def run_of(record: Record) -> str:
    """The bench run that a record is of."""
    return str(record.environment.get("run", "unknown"))


def history(folder: Path) -> Iterator[tuple[Path, str]]:
    """pytest-benchmark's files of a profile's folder with the bench run that each keeps, less unreadable ones."""
    for path in sorted((folder / "pytest-benchmark").glob("*/*.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))["machine_info"]["run"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        yield path, str(run)
