"""One model at a time, with the reference study's options: train one student, export one file."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.architectures.resnet import PLANES, ResNet50, full_widths, load_weights, widths_of
from harness.errors import HarnessError
from harness.export.onnx_export import Exported, export
from harness.files import atomic_path, digest, file_sha256
from harness.plan.planning import make_plan
from harness.plan.settings import Settings, load_settings
from harness.store.paths import Paths, data_root
from harness.store.revision import revision
from harness.training import data
from harness.training.device import choose_device
from harness.training.finishing import Reporter
from harness.training.pipeline import make_cells


@dataclass(frozen=True)
class Request:
    """The options of `harness train`; without `teacher` it is the teacher that gets trained."""

    teacher: Path | None
    prune_amount: float
    prune_method: str
    kd_method: str
    seed: int
    protocol: str
    epochs: int | None
    batch_size: int | None


def train_one(
    request: Request,
    matrix: Path,
    profile: str,
    out: Path,
    data_dir: Path | None,
    reporter: Reporter,
    keep_going: Callable[[], bool],
) -> Path | None:
    """Train what is asked for and save it under its title in `out`; None where `keep_going` ended it.

    Checkpoints and records lie in `out`/run, so that the same call goes on. Raises HarnessError on bad options or
    where training fails.
    """
    settings = _settings(request, load_settings(matrix, profile))
    paths = Paths(out / "run" / "results", out / "run" / "artifacts", data_dir or data_root())
    plan = make_plan(settings, profile, data.provide(paths.data, allow_stand_in=profile == "quick"), ["one"])
    cell = plan.cells[0 if request.teacher is None else -1]
    device = choose_device(settings.precision)
    summary = make_cells(plan, paths, device, reporter, keep_going, [cell])
    if summary.failed:
        raise HarnessError("; ".join(summary.failed.values()))
    if not summary.complete:
        return None
    target = out / f"{cell.title}.safetensors"
    with atomic_path(target) as temporary:
        shutil.copyfile(cell.artifacts(paths.artifacts, profile) / "weights.safetensors", temporary)
    return target


def _settings(request: Request, settings: Settings) -> Settings:
    """The profile's settings with the options laid over them: one experiment of one cell."""
    document: dict[str, Any] = settings.model_dump()
    document["experiments"] = ["one"]
    document["experiment"] = [
        {
            "name": "one",
            "title": "one model",
            "protocol": request.protocol,
            "prune_amount": [request.prune_amount],
            "prune_method": [request.prune_method],
            "kd_method": [request.kd_method],
            "seed": [request.seed],
        }
    ]
    recipe = "teacher" if request.teacher is None else "student"
    for name in ("epochs", "batch_size"):
        if (given := getattr(request, name)) is not None:
            document[recipe][name] = given
    if request.teacher is not None:
        model, _ = load_weights(request.teacher)
        document["teacher"]["checkpoint"] = str(request.teacher)
        document["model"] = {"width": _width(model, request.teacher), "stem": model.stem}
    else:
        document["teacher"]["seed"] = request.seed
    try:
        return Settings.model_validate(document)
    except ValueError as error:
        reason = str(error).splitlines()
        raise HarnessError(f"options: {reason[1] if len(reason) > 1 else error}: {reason[2].strip()}") from error


def _width(model: ResNet50, path: Path) -> float:
    width = model.conv1.out_channels / PLANES[0]
    if widths_of(model) != full_widths(width):
        raise HarnessError(f"{path}: is already pruned; --orig-model takes an unpruned ResNet50")
    return width


def export_one(torch_file: Path, out_file: Path) -> Exported:
    """Export a stored model; the parity gate runs on the test images, or on drawn ones where those are not here."""
    model, metadata = load_weights(torch_file)
    root = data_root()
    name = data.provide(root, allow_stand_in=True, download=False)
    sha256 = file_sha256(torch_file)
    provenance = {
        "cell": metadata.get("cell", torch_file.stem),
        "title": torch_file.stem,
        "key": metadata.get("key") or digest(sha256, 16),
        "weights_sha256": sha256,
        "data": name,
        "harness_revision": revision(),
    }
    size = metadata.get("image_size") or (32 if model.stem == "cifar" else 224)
    return export(model, out_file, data.load(name, root, train=False), size, provenance)
