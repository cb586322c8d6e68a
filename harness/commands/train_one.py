"""One model at a time, with the reference study's options: train one student, export one file."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness import datasets
from harness.architectures import build, network_of, widths_of
from harness.errors import HarnessError
from harness.files import atomic_path, digest, file_sha256, sweep
from harness.model_files.onnx_export import PARITY_IMAGES, RUNTIME, Exported, export
from harness.model_files.weights import load_weights, read_metadata
from harness.plan import registry
from harness.plan.loading import load_settings
from harness.plan.planning import Cell, make_plan
from harness.plan.settings import Recipe, Settings
from harness.store.paths import Paths, data_root
from harness.store.revision import revision
from harness.training.device import choose_device
from harness.training.finishing import Reporter
from harness.training.pipeline import make_cells


@dataclass(frozen=True)
class OneModel:
    """The options of `harness train`; without `teacher` it is the teacher that gets trained."""

    teacher: Path | None
    prune_amount: float
    prune_method: str
    kd_method: str
    seed: int
    protocol: str
    epochs: int | None
    batch_size: int | None
    image_size: int | None = None


@dataclass(frozen=True)
class OneExport:
    """What `harness export` has written, and how it was compared with torch: in which runtime, on how many images.

    `compared_on` is the data set by its title; `trained_on_it` is whether the model says that it was trained on it.
    """

    done: Exported
    runtime: str
    images: int
    compared_on: str
    trained_on_it: bool


def train_one(
    request: OneModel,
    matrix: Path,
    profile: str,
    out: Path,
    data_dir: Path | None,
    reporter: Reporter,
    keep_going: Callable[[], bool],
    expect: Callable[[Sequence[Cell]], None] = lambda _: None,
) -> Path | None:
    """Train what is asked for and save it under its title in `out`; None where `keep_going` ended it.

    Checkpoints and records lie in `out`/run, so that the same call resumes, and finds what it has made already. Raises
    HarnessError on bad options, where training fails, and where `out` holds another model of that title.
    """
    settings = _settings(request, load_settings(matrix, profile), reporter)
    paths = Paths(out / "run" / "results", out / "run" / "artifacts", data_root(data_dir))
    plan = make_plan(settings, profile, datasets.provide(settings, paths.data, _given_by(data_dir)), ["one"])
    cell = plan.cells[0 if request.teacher is None else -1]
    target = out / f"{cell.title}.safetensors"
    if target.exists():
        if _key_of(target) != cell.trained.key:
            raise HarnessError(
                f"{target}: is there already, made with other options; move it away, or give another --outp-dir"
            )
        # found by its key, whatever else has been trained into the same folder since
        return target
    wanted, used = (registry.find("dataset", name).title for name in (settings.data.dataset, plan.dataset))
    instead = "" if used == wanted else f", in place of {wanted}, which can neither be found nor downloaded"
    reporter.stage(f"{cell.title}: trained on {used}{instead}")
    expect([cell])
    device = choose_device(settings.precision)
    summary = make_cells(plan, paths, device, reporter, keep_going, [cell])
    if summary.failed:
        raise HarnessError("; ".join(summary.failed.values()))
    if not summary.complete:
        return None
    with atomic_path(target) as temporary:
        shutil.copyfile(paths.weights(profile, cell), temporary)
    return target


def _given_by(data_dir: Path | None) -> str:
    """What named the folder of the data set, for messages."""
    return f"--data-dir {data_dir}" if data_dir else ""


def _key_of(path: Path) -> str | None:
    """The key of the model in a file; None where it is not one of ours."""
    try:
        return read_metadata(path).get("key")
    except HarnessError:
        return None


def _settings(request: OneModel, settings: Settings, reporter: Reporter) -> Settings:
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
    _shorten_warmup(document[recipe], getattr(settings, recipe), reporter)
    size = request.image_size
    if request.teacher is not None:
        model, metadata = load_weights(request.teacher)
        network = network_of(model)
        if widths_of(model) != widths_of(build(network)):
            raise HarnessError(f"{request.teacher}: is already pruned; --orig-model takes an unpruned network")
        document["teacher"]["checkpoint"] = str(request.teacher)
        document["model"] = {"architecture": network.architecture.name, "width": network.width, "stem": network.stem}
        size = size or metadata.get("image_size") or _usual_size(network.stem, settings)
    else:
        document["teacher"]["seed"] = request.seed
    if size is not None:
        document["data"]["image_size"] = size
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "experiment" and not isinstance(part, int))
        message = first["msg"].removeprefix("Value error, ")
        raise HarnessError(f"options: {place + ': ' if place else ''}{message}") from error


def _shorten_warmup(recipe: dict[str, Any], before: Recipe, reporter: Reporter) -> None:
    """Keep the warm-up's share of the epochs where --epochs leaves no epoch after it, and say so."""
    epochs = recipe["epochs"]
    if 0 < epochs <= recipe["warmup_epochs"]:
        recipe["warmup_epochs"] *= epochs / before.epochs
        reporter.stage(
            f"warm-up: {recipe['warmup_epochs']:g} of {epochs} epochs, the same share as "
            f"{before.warmup_epochs:g} of the profile's {before.epochs}"
        )


def _usual_size(stem: str, settings: Settings) -> int:
    """What a teacher is taken to be for that does not say it: the ImageNet stem makes nothing of small images."""
    return settings.data.image_size if stem == "cifar" else max(settings.data.image_size, 224)


def export_one(torch_file: Path, out_file: Path, matrix: Path, profile: str, data_dir: Path | None) -> OneExport:
    """Export a stored model; the parity gate runs on the test images of the data set that the model was trained on.

    Of a model that does not say what it was trained on, the gate runs on the profile's data set, and the file does not
    say it either. HarnessError where the data set is not here.
    """
    model, metadata = load_weights(torch_file)
    settings = load_settings(matrix, profile)
    name = metadata.get("dataset", settings.data.dataset)
    sha256 = file_sha256(torch_file)
    provenance = {
        "cell": metadata.get("cell", torch_file.stem),
        "title": torch_file.stem,
        "key": metadata.get("key") or digest(sha256, 16),
        "weights_sha256": sha256,
        **({"data": name} if "dataset" in metadata else {}),
        "harness_revision": revision(),
    }
    images = datasets.load(name, settings.parameters("dataset", name), data_root(data_dir), train=False)
    size = metadata.get("image_size") or _usual_size(network_of(model).stem, settings)
    # what an export that was killed has left beside its file
    sweep(out_file.parent, below=False)
    done = export(model, out_file, images, size, settings.export.opset, provenance)
    count = min(PARITY_IMAGES, len(images.labels))
    return OneExport(done, RUNTIME, count, registry.find("dataset", name).title, "dataset" in metadata)
