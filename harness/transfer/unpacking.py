"""Puts a pack's files where training, export and bench look for them.

A pack holds a model's weights, torch's answers to the test images, and perhaps its ONNX file; a file of any other name
is refused. What the files have to be is said by the records here, not by the manifest, and each file is hashed after it
has been written and before it takes its place.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.planning import Cell, Plan
from harness.predictions import load_classes
from harness.store.chain import Chain, short
from harness.store.paths import Paths, answers_file
from harness.store.records import Rounded, TrainRecord, save
from harness.transfer.manifest import Half, Manifest, Packed, checked_parts, join, read_manifest
from harness.transfer.packing import train_record


@dataclass(frozen=True)
class Unpacked:
    """What became of one pack: the files that were put in place, those that were there, and what to know about it."""

    cell: str
    placed: list[str]
    there: list[str]
    notes: list[str]


def unpack(plan: Plan, paths: Paths, path: Path) -> Unpacked:
    """Put the files of the pack with this manifest in place.

    Raises HarnessError, with nothing put in place, where a part is missing or damaged, where the pack holds a file that
    it may not hold, and where the weights are not those that the train record here names. Weights in half precision
    get a train record that says so; what was made from the unrounded ones is then out of date, and is exported and
    measured again.
    """
    manifest = read_manifest(path)
    cell = _cell(plan, path, manifest)
    record = train_record(plan, paths, cell)
    if unknown := {file.name for file in manifest.files} - {target.name for target in _targets(plan, paths, cell)}:
        raise HarnessError(f"{path}: holds {', '.join(sorted(unknown))}, which is no file of a model")
    for file in manifest.files:
        checked_parts(path.parent, file)
        if file.name == answers_file(Path()).name:
            _require_answers(path.parent, file, cell.teacher.network.classes)
    trained = record.rounded_from.weights_sha256 if manifest.half and record.rounded_from else record.weights_sha256
    if manifest.weights_sha256 != trained:
        what = "rounded from weights" if manifest.half else "weights"
        raise HarnessError(
            f"{path}: {what} {short(manifest.weights_sha256)}, the train record here names {short(trained)}; "
            f"merge the records that belong to the pack"
        )
    if manifest.half:
        return _unpack_half(plan, paths, path.parent, manifest, manifest.half, cell, record)
    return _unpack_whole(plan, paths, path.parent, manifest, cell, record)


def _cell(plan: Plan, path: Path, manifest: Manifest) -> Cell:
    cell = next((cell for cell in plan.cells if cell.id == manifest.cell), None)
    if manifest.profile != plan.profile or cell is None or cell.trained.key != manifest.key:
        now_is = f"key {cell.trained.key}" if cell else "not in this matrix.toml"
        raise HarnessError(
            f"{path}: {manifest.cell} of profile {manifest.profile}, key {manifest.key}; here {now_is} "
            f"(profile {plan.profile})"
        )
    return cell


def _targets(plan: Plan, paths: Paths, cell: Cell) -> tuple[Path, Path, Path]:
    """Where a pack's weights, answers and ONNX file go: all that it may hold."""
    weights = paths.weights(plan.profile, cell)
    return weights, answers_file(weights.parent), paths.model_file(plan.profile, cell)


def _require_answers(folder: Path, file: Packed, classes: int) -> None:
    """HarnessError where a file is no array of this many classes' numbers: not every train record has its hash."""
    with tempfile.TemporaryDirectory(prefix="harness-unpack-") as scratch:
        joined = Path(scratch) / file.name
        join(folder, file, joined, file.sha256)
        try:
            possible = load_classes(joined).max() < classes
        except HarnessError as error:
            raise HarnessError(f"{folder}: {file.name} is {str(error).partition(': ')[2]}") from error
    if not possible:
        raise HarnessError(f"{folder}: {file.name} is no array of class numbers below {classes}")


def _unpack_whole(
    plan: Plan, paths: Paths, folder: Path, manifest: Manifest, cell: Cell, record: TrainRecord
) -> Unpacked:
    weights, answers, onnx = _targets(plan, paths, cell)
    export = Chain(plan, paths.results).export(cell).standing
    for file in manifest.files:
        _require_on_record(folder, file, {weights.name: record.weights_sha256, answers.name: record.answers_sha256})
    done = Unpacked(cell.id, [], [], [])
    for file in manifest.files:
        target = weights.parent / file.name
        wanted = (export.onnx_sha256 if export else None) if file.name == onnx.name else file.sha256
        if file.name == onnx.name and file.sha256 != wanted:
            done.notes.append("the ONNX file is not the one on record here; left, to be exported again")
        elif target.is_file() and file_sha256(target) == wanted:
            done.there.append(file.name)
        else:
            join(folder, file, target, str(wanted))
            done.placed.append(file.name)
    return done


def _require_on_record(folder: Path, file: Packed, expected: Mapping[str, str | None]) -> None:
    """HarnessError where a file is not the one that the train record names, if it names one."""
    wanted = expected.get(file.name)
    if wanted and file.sha256 != wanted:
        raise HarnessError(
            f"{folder}: {file.name} has SHA-256 {short(file.sha256)}, the train record here names {short(wanted)}"
        )


def _unpack_half(
    plan: Plan, paths: Paths, folder: Path, manifest: Manifest, half: Half, cell: Cell, record: TrainRecord
) -> Unpacked:
    from harness.transfer.half_precision import require_network, widen

    weights, answers, onnx = _targets(plan, paths, cell)
    files = {file.name: file for file in manifest.files}
    if weights.name not in files or onnx.name in files:
        raise HarnessError(f"{folder}: a pack in half precision holds {weights.name}, and no ONNX file")
    if weights.is_file() and file_sha256(weights) == record.weights_sha256:
        # The trained weights themselves are better than their rounded copy.
        return Unpacked(cell.id, [], [weights.name], [])
    rounded_here = record.weights_sha256 == half.weights_sha256
    if answers.name in files and rounded_here:
        _require_on_record(folder, files[answers.name], {answers.name: record.answers_sha256})
    with tempfile.TemporaryDirectory(prefix="harness-unpack-") as scratch:
        narrowed = Path(scratch) / weights.name
        join(folder, files[weights.name], narrowed, files[weights.name].sha256)
        require_network(narrowed, cell.teacher, record)
        widen(narrowed, weights, half.weights_sha256)
    if answers.name in files:
        join(folder, files[answers.name], answers, files[answers.name].sha256)
    if not rounded_here:
        assert record.weights_sha256 is not None and record.accuracy_pct is not None, "a standing record has both"
        rounded = record.rounded_from or Rounded(
            dtype="float16", weights_sha256=record.weights_sha256, accuracy_pct=record.accuracy_pct
        )
        changes = {
            "weights_sha256": half.weights_sha256,
            "answers_sha256": files[answers.name].sha256 if answers.name in files else None,
            "accuracy_pct": half.accuracy_pct,
            "rounded_from": rounded,
        }
        save(paths.results, record.model_copy(update=changes))
    note = f"in half precision: {half.accuracy_pct:.2f} %, before {half.accuracy_before_pct:.2f} %; the record says so"
    return Unpacked(cell.id, list(files), [], [note])
