"""The other machine's results: a folder of records of the same profile, judged by the same chain as those here."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness import predictions
from harness.errors import HarnessError
from harness.files import read_json
from harness.plan.planning import Cell, Plan
from harness.plan.specs import key_of
from harness.store.chain import Chain, Link
from harness.store.records import (
    AccuracyRecord,
    ExportRecord,
    LatencyRecord,
    Record,
    TrainRecord,
    load,
    record_path,
)
from harness.transfer.foreign_files import files_inside, require_file_inside, require_inside

KINDS: tuple[type[Record], ...] = (TrainRecord, ExportRecord, AccuracyRecord, LatencyRecord)


@dataclass(frozen=True)
class Place:
    """Where one record of a plan belongs: a stage of a cell, and for a latency the condition."""

    kind: type[Record]
    cell: Cell
    condition: str = ""

    @property
    def file(self) -> str:
        """The record's file, relative to the profile's folder: "train/teacher-s0.json"."""
        name = self.cell.model_id if self.kind is TrainRecord else self.cell.id
        return file_of(self.kind, name, self.condition)

    def link(self, chain: Chain) -> Link[Any]:
        """What a chain says of the record at this place."""
        if self.kind is TrainRecord:
            return chain.train(self.cell)
        if self.kind is ExportRecord:
            return chain.export(self.cell)
        return chain.accuracy(self.cell) if self.kind is AccuracyRecord else chain.latency(self.cell, self.condition)


def file_of(kind: type[Record], name: str, condition: str = "") -> str:
    """A record's file, relative to the profile's folder."""
    return record_path(Path(), "", kind.stage, name, condition).as_posix()


def places(plan: Plan) -> list[Place]:
    """Every place of a plan's records, the teacher's first, and each record after those that it depends on."""
    found: dict[str, Place] = {}
    for cell in plan.cells:
        for kind in (TrainRecord, ExportRecord, AccuracyRecord):
            place = Place(kind, cell)
            found.setdefault(place.file, place)
    for cell in plan.cells:
        for condition in plan.settings.bench.conditions:
            place = Place(LatencyRecord, cell, condition)
            found[place.file] = place
    return list(found.values())


class Source:
    """The records of another machine. `folder` is the profile's: it has train/, export/, latency/, accuracy/ in it.

    `chain` judges them; a record that lies outside the folder, or whose settings do not give its key, is unreadable.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.folder = folder
        self.chain = Chain(plan, folder, self._read)
        self._places = {place.file for place in places(plan)}

    def _read(self, kind: type[Record], name: str, condition: str) -> Record | None:
        path = self.folder / file_of(kind, name, condition)
        if not path.exists() and not path.is_symlink():
            return None
        require_file_inside(self.folder, path)
        record = load(path, kind)
        if record.status == "done" and (key := _key(record)) != record.key:
            raise HarnessError(f"its settings do not give its key ({key}, not {record.key})")
        return record

    def others(self) -> list[str]:
        """The files beside the records that are no record of the plan, relative to the folder."""
        patterns = [f"{kind.stage}/{'*/' if kind is LatencyRecord else ''}*" for kind in KINDS]
        found = [path for pattern in patterns for path in files_inside(self.folder, pattern)]
        names = [path.relative_to(self.folder).as_posix() for path in found]
        return [name for name in names if name not in self._places and not self._goes_with_a_record(name)]

    def _goes_with_a_record(self, name: str) -> bool:
        """Whether a file is one of the predictions that go where their record goes."""
        place = PurePosixPath(name)
        if place.parts[0] != AccuracyRecord.stage or place.suffix != ".npy":
            return False
        return place.name.startswith(predictions.LABELS) or place.with_suffix(".json").as_posix() in self._places

    def predictions_of(self, record: AccuracyRecord) -> dict[str, bytes]:
        """The files of predictions that a record names, relative to the folder, with what they hold.

        HarnessError where one is missing, lies outside the folder, or is not the one that the record names.
        """
        files = predictions.named(record)
        for name in files:
            require_file_inside(self.folder, self.folder / name)
        predictions.read(self.folder, record)
        return {name: (self.folder / name).read_bytes() for name in files}


def _key(record: Record) -> str:
    """The key that a record's settings give."""
    try:
        return key_of(record.spec)
    except ValueError:
        return "none"


def profile_folder(given: Path, profile: str) -> Path:
    """The profile's folder in `given`, which may be a results folder or that folder itself; HarnessError if neither."""
    stages = [kind.stage for kind in KINDS]
    for folder in (given / profile, given):
        if any((folder / stage).is_dir() for stage in stages):
            require_inside(given, folder)
            return folder
    raise HarnessError(
        f"{given}: no records of profile {profile} here; name a folder like results or results/{profile}"
    )


def dataset_of(folder: Path) -> str | None:
    """The data set that a folder's models were trained on, as its first readable train record has it."""
    for path in files_inside(folder, f"{TrainRecord.stage}/*.json"):
        try:
            spec: Any = load(path, TrainRecord).spec
            while "parent" in spec:
                spec = spec["parent"]
            return str(spec["data"]["dataset"]["name"])
        except (HarnessError, KeyError, TypeError):
            continue
    return None


def run_of(record: Record) -> str:
    """The bench run that a record is of."""
    return str(record.environment.get("run", "unknown"))


def history(folder: Path) -> Iterator[tuple[Path, str]]:
    """pytest-benchmark's files in a profile's folder, each with the bench run that it keeps; unreadable ones are left
    out.
    """
    for path in files_inside(folder, "pytest-benchmark/*/[0-9][0-9][0-9][0-9]_*.json"):
        try:
            run = read_json(path)["machine_info"]["run"]
        except (HarnessError, KeyError, TypeError):
            continue
        yield path, str(run)
