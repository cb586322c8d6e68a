"""Large files in parts below a size limit: PACKS/<profile>/<cell>-<key>/ with the parts and a manifest.

The manifest names the cell, the key of its training, and the SHA-256 of every part and of every whole file. Records are
not in it: they are small, are merged, and say which weights are the cell's (harness.transfer.unpacking).
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.errors import HarnessError
from harness.files import file_sha256, write_text
from harness.plan.planning import Cell, Plan
from harness.predictions import save_classes
from harness.store.chain import Chain, short
from harness.store.paths import Paths, answers_file
from harness.store.records import TrainRecord, now
from harness.transfer.manifest import MANIFEST, Half, Manifest, checked_parts, read_manifest, split

if TYPE_CHECKING:
    from harness.training.device import Device

MIB = 2**20


def chosen(plan: Plan, paths: Paths, names: Sequence[str]) -> list[Cell]:
    """The cells that `names` mean: ids, "teacher", "best" (student by accuracy), "all" whose weights are here."""
    chain = Chain(plan, paths.results)
    accuracies = {
        cell.id: record.accuracy_pct or 0.0
        for cell in plan.cells
        if (record := chain.train(cell).standing) and paths.weights(plan.profile, cell).is_file()
    }
    cells: dict[str, Cell] = {}
    for name in names or ["all"]:
        if name == "teacher":
            found = [plan.teacher]
        elif name in ("all", "best"):
            found = [cell for cell in plan.cells if cell.id in accuracies]
        else:
            found = plan.named([name])
        if name == "best":
            students = [cell for cell in found if not cell.is_teacher]
            found = sorted(students, key=lambda cell: -accuracies[cell.id])[:1]
        if not found:
            raise HarnessError(f"profile {plan.profile} has no trained weights here to pack as {name!r}")
        cells |= {cell.id: cell for cell in found}
    return list(cells.values())


def train_record(plan: Plan, paths: Paths, cell: Cell) -> TrainRecord:
    """The cell's standing train record; HarnessError where there is none."""
    link = Chain(plan, paths.results).train(cell)
    if link.standing is None or link.standing.weights_sha256 is None:
        raise HarnessError(f"{cell.id}: {link.reason}; merge the records first: harness merge FOLDER")
    return link.standing


def pack(plan: Plan, paths: Paths, cell: Cell, out: Path, part_mib: float, onnx: bool = False) -> Path:
    """Pack a cell's weights, torch's answers, and its ONNX file if asked for; returns the pack's folder.

    Raises HarnessError where the files are not here or not those on record.
    """
    record = train_record(plan, paths, cell)
    weights = paths.weights(plan.profile, cell)
    files = {weights: record.weights_sha256}
    if answers_file(weights.parent).is_file():
        files[answers_file(weights.parent)] = record.answers_sha256
    if onnx:
        export = Chain(plan, paths.results).export(cell).standing
        if export is None:
            raise HarnessError(f"{cell.id}: no export record of these weights; run: make train-matrix, or leave --onnx")
        files[paths.model_file(plan.profile, cell)] = export.onnx_sha256
    for path, expected in files.items():
        _require_file(path, expected)
    return _write_pack(plan, cell, out, part_mib, list(files), "float32", str(record.weights_sha256))


def pack_half(plan: Plan, paths: Paths, cell: Cell, out: Path, part_mib: float, device: "Device | None" = None) -> Path:
    """Pack a cell's weights in half precision; HarnessError where that changes accuracy by more than 0.05 points.

    Both accuracies are measured here, on all test images, and are in the manifest.
    """
    from harness import datasets
    from harness.training.device import choose_device
    from harness.transfer.half_precision import effect_of_rounding, narrow, require_harmless, widen

    record = train_record(plan, paths, cell)
    if record.rounded_from:
        raise HarnessError(f"{cell.id}: the weights here came in half precision already; pack them as they are")
    weights = paths.weights(plan.profile, cell)
    _require_file(weights, record.weights_sha256)
    data = cell.teacher.data
    images = datasets.load(data.dataset.name, data.dataset.parameters, paths.data, train=False)
    with tempfile.TemporaryDirectory(prefix="harness-half-") as scratch:
        narrowed, wide, given = (
            Path(scratch) / weights.name,
            Path(scratch) / "wide.safetensors",
            answers_file(Path(scratch)),
        )
        narrow(weights, narrowed)
        widen(narrowed, wide)
        half, classes = effect_of_rounding(weights, wide, images, data.image_size, device or choose_device("fp32"))
        require_harmless(cell.id, half)
        save_classes(given, classes.numpy())
        return _write_pack(plan, cell, out, part_mib, [narrowed, given], "float16", str(record.weights_sha256), half)


def size_mib(folder: Path) -> float:
    """What a pack takes, in MiB."""
    return sum(path.stat().st_size for path in folder.iterdir()) / MIB


def _require_file(path: Path, expected: str | None) -> None:
    """HarnessError where a file is missing or not the one on record."""
    if not path.is_file():
        raise HarnessError(f"{path}: not on this machine")
    if expected and (found := file_sha256(path)) != expected:
        raise HarnessError(f"{path}: sha256 is {short(found)}, the record says {short(expected)}; make it again")


def _write_pack(
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
    try:
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
                key=cell.trained.key,
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
    except OSError as error:
        raise HarnessError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return folder


def _same(folder: Path, manifest: Manifest) -> bool:
    """Whether a pack holds the same already, and is whole."""
    try:
        before = read_manifest(folder / MANIFEST)
        for file in before.files:
            checked_parts(folder, file)
    except HarnessError:
        return False
    return before.model_copy(update={"packed_at": manifest.packed_at}) == manifest
