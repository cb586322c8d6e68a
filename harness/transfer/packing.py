"""Large files in parts below a size limit, and back: PACKS/<profile>/<cell>-<key>/ with the parts and a manifest.

The manifest names the cell, its key, and the SHA-256 of every part and of every whole file. Records are not in it: they
are small, are carried by merge, and say which weights are the cell's. So unpacking needs the cell's train record here,
and takes nothing that it does not name.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import HarnessError
from harness.files import file_sha256, write_text
from harness.plan.planning import Cell, Plan
from harness.store.paths import Paths, answers_file
from harness.store.records import ExportRecord, Rounded, TrainRecord, find, now, save
from harness.transfer.manifest import MANIFEST, ONNX, WEIGHTS, Half, Manifest, join, parts, read_manifest, split

MIB = 2**20


@dataclass(frozen=True)
class Unpacked:
    """What became of one pack: the files that were put in place, those that were there, and what to know about it."""

    cell: str
    placed: list[str]
    there: list[str]
    notes: list[str]


# --- Packing ---------------------------------------------------------------------------------------------------------


def chosen(plan: Plan, paths: Paths, names: Sequence[str]) -> list[Cell]:
    """The cells that `names` mean: ids, "teacher", "best" (student by accuracy), "all" whose weights are here."""
    cells: dict[str, Cell] = {}
    for name in names or ["all"]:
        if name == "teacher":
            found = [plan.teacher]
        elif name in ("all", "best"):
            found = [cell for cell in plan.cells if trained(plan, paths, cell)]
        else:
            found = plan.named([name])
        if name == "best":
            students = [cell for cell in found if not cell.is_teacher]
            found = sorted(students, key=lambda cell: -(trained(plan, paths, cell) or 0.0))[:1]
        if not found:
            raise HarnessError(f"profile {plan.profile} has no trained weights here to pack as {name!r}")
        cells |= {cell.id: cell for cell in found}
    return list(cells.values())


def trained(plan: Plan, paths: Paths, cell: Cell) -> float | None:
    """Torch's accuracy (%) of a cell whose weights are here and on record; None of any other."""
    record = find(paths.results, plan.profile, cell.id, cell.key, TrainRecord)
    here = (cell.artifacts(paths.artifacts, plan.profile) / WEIGHTS).is_file()
    return record.accuracy_pct if record and record.status == "done" and here else None


def train_record(plan: Plan, paths: Paths, cell: Cell) -> TrainRecord:
    """The cell's done train record; HarnessError where there is none."""
    record = find(paths.results, plan.profile, cell.id, cell.key, TrainRecord)
    if record is None or record.status != "done" or record.weights_sha256 is None:
        raise HarnessError(
            f"{cell.id}: no train record under its present key here; merge the records first: harness merge FOLDER"
        )
    return record


def pack(plan: Plan, paths: Paths, cell: Cell, out: Path, part_mib: float, onnx: bool = False) -> Path:
    """Pack a cell's weights, torch's answers, and its ONNX file if asked for; returns the pack's folder.

    Raises HarnessError where the files are not here or not those on record.
    """
    record = train_record(plan, paths, cell)
    folder = cell.artifacts(paths.artifacts, plan.profile)
    files = {folder / WEIGHTS: record.weights_sha256}
    if answers_file(folder).is_file():
        files[answers_file(folder)] = None
    if onnx:
        export = find(paths.results, plan.profile, cell.id, cell.key, ExportRecord)
        if export is None or export.weights_sha256 != record.weights_sha256:
            raise HarnessError(f"{cell.id}: no export record of these weights; run: make train-matrix, or leave --onnx")
        files[folder / ONNX] = export.onnx_sha256
    for path, expected in files.items():
        require_file(path, expected)
    return write_pack(plan, cell, out, part_mib, list(files), "float32", str(record.weights_sha256))


def size_mib(folder: Path) -> float:
    """What a pack takes, in MiB."""
    return sum(path.stat().st_size for path in folder.iterdir()) / MIB


def require_file(path: Path, expected: str | None) -> None:
    """HarnessError where a file is missing or not the one on record."""
    if not path.is_file():
        raise HarnessError(f"{path}: not on this machine")
    if expected and (found := file_sha256(path)) != expected:
        raise HarnessError(f"{path}: sha256 is {found[:12]}..., the record says {expected[:12]}...; train it again")


def write_pack(
    plan: Plan,
    cell: Cell,
    out: Path,
    part_mib: float,
    files: Sequence[Path],
    dtype: Literal["float32", "float16"],
    weights_sha256: str,
    half: Half | None = None,
) -> Path:
    """Write parts and manifest; the folder takes its place when it is whole, and one that holds the same is kept."""
    folder = cell.artifacts(out, plan.profile)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # beside its place, so that it can be renamed into it
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pack-") as scratch:
        made = Path(scratch) / "pack"
        made.mkdir()
        packed = [split(path, made, int(part_mib * MIB)) for path in files]
        manifest = Manifest(
            cell=cell.id,
            title=cell.title,
            profile=plan.profile,
            key=cell.key,
            dtype=dtype,
            weights_sha256=weights_sha256,
            half=half,
            packed_at=now(),
            files=packed,
        )
        write_text(made / MANIFEST, manifest.model_dump_json(indent=1, exclude_none=True) + "\n")
        if folder.exists():
            if _same(folder, manifest):
                return folder
            shutil.rmtree(folder)
        made.rename(folder)
    return folder


def _same(folder: Path, manifest: Manifest) -> bool:
    """Whether a pack holds the same already, and is whole."""
    try:
        before = read_manifest(folder / MANIFEST)
        for file in before.files:
            parts(folder, file)
    except HarnessError:
        return False
    return before.model_copy(update={"packed_at": manifest.packed_at}) == manifest


# --- Unpacking -------------------------------------------------------------------------------------------------------


def unpack(plan: Plan, paths: Paths, path: Path) -> Unpacked:
    """Put a pack's files where training, export and bench look for them.

    Raises HarnessError, with nothing put in place, where a part is missing or damaged, or where the train record here
    names other weights. Weights in half precision get a train record that says so; what was made from the unrounded
    ones is then out of date, and is exported and measured again.
    """
    manifest = read_manifest(path)
    cells = {cell.id: cell for cell in plan.cells}
    cell = cells.get(manifest.cell)
    if manifest.profile != plan.profile or cell is None or cell.key != manifest.key:
        now_is = f"key {cell.key}" if cell else "not in this matrix.toml"
        raise HarnessError(
            f"{path}: {manifest.cell} of profile {manifest.profile}, key {manifest.key}; here {now_is} "
            f"(profile {plan.profile})"
        )
    record = train_record(plan, paths, cell)
    for file in manifest.files:
        parts(path.parent, file)
    if manifest.dtype == "float16":
        return _unpack_half(plan, paths, path, manifest, cell, record)
    if manifest.weights_sha256 != record.weights_sha256:
        raise HarnessError(
            f"{path}: weights {manifest.weights_sha256[:12]}..., the train record here names "
            f"{str(record.weights_sha256)[:12]}...; merge the records that belong to the pack"
        )
    return _place(plan, paths, path, manifest, cell)


def _place(plan: Plan, paths: Paths, path: Path, manifest: Manifest, cell: Cell) -> Unpacked:
    folder = cell.artifacts(paths.artifacts, plan.profile)
    export = find(paths.results, plan.profile, cell.id, cell.key, ExportRecord)
    done = Unpacked(cell.id, [], [], [])
    for file in manifest.files:
        if file.name == ONNX and (export is None or export.onnx_sha256 != file.sha256):
            done.notes.append("the ONNX file is not the one on record here; left, to be exported again")
        elif (folder / file.name).is_file() and file_sha256(folder / file.name) == file.sha256:
            done.there.append(file.name)
        else:
            join(path.parent, file, folder / file.name)
            done.placed.append(file.name)
    return done


def _unpack_half(plan: Plan, paths: Paths, path: Path, manifest: Manifest, cell: Cell, record: TrainRecord) -> Unpacked:
    from harness.transfer.half_precision import widen

    folder, half = cell.artifacts(paths.artifacts, plan.profile), manifest.half
    weights = folder / WEIGHTS
    assert half, "a pack in half precision says what that did"
    before = record.rounded_from.weights_sha256 if record.rounded_from else record.weights_sha256
    if before != manifest.weights_sha256:
        raise HarnessError(
            f"{path}: rounded from weights {manifest.weights_sha256[:12]}..., the train record here names "
            f"{str(before)[:12]}...; merge the records that belong to the pack"
        )
    if weights.is_file() and file_sha256(weights) in (record.weights_sha256, half.weights_sha256):
        # the trained weights themselves are better than their rounded copy
        return Unpacked(cell.id, [], [WEIGHTS], [])
    (file,) = [one for one in manifest.files if one.name == WEIGHTS]
    with tempfile.TemporaryDirectory(prefix="harness-unpack-") as scratch:
        narrow = Path(scratch) / WEIGHTS
        join(path.parent, file, narrow)
        widen(narrow, weights, half.weights_sha256)
    if record.weights_sha256 != half.weights_sha256:
        assert record.accuracy_pct is not None, "a done train record has its accuracy"
        rounded = Rounded(dtype="float16", weights_sha256=before, accuracy_pct=record.accuracy_pct)
        changes = {"weights_sha256": half.weights_sha256, "accuracy_pct": half.accuracy_pct, "rounded_from": rounded}
        save(paths.results, record.model_copy(update=changes))
    note = f"in half precision: {half.accuracy_pct:.2f} %, before {half.accuracy_before_pct:.2f} %; the record says so"
    for other in manifest.files:
        if other is not file:
            join(path.parent, other, folder / other.name)
    return Unpacked(cell.id, [one.name for one in manifest.files], [], [note])
