"""Where things lie, and which data set a profile has at hand. No torch here: planning must stay instant."""

import os
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.plan import registry
from harness.plan.planning import Cell
from harness.plan.settings import Settings
from harness.store.records import TrainRecord, load, record_path

CIFAR_FOLDER = "cifar-100-python"


@dataclass(frozen=True)
class Paths:
    """The folders of one run: committed results, artifacts that are not, and the data set's root."""

    results: Path
    artifacts: Path
    data: Path

    def testset(self, profile: str, dataset: str) -> Path:
        """The test images as the bench reads them."""
        return self.artifacts / profile / f"testset-{registry.find('dataset', dataset).label}.npz"

    def folder(self, profile: str, cell: Cell) -> Path:
        """Where a cell's weights, model file and checkpoint lie."""
        return cell.artifacts(self.artifacts, profile)

    def weights(self, profile: str, cell: Cell) -> Path:
        """A cell's trained weights."""
        return weights_file(self.artifacts, profile, cell)

    def model_file(self, profile: str, cell: Cell) -> Path:
        """A cell's exported model."""
        return model_file(self.artifacts, profile, cell)

    def checkpoint(self, profile: str, cell: Cell) -> Path:
        """What a cell that was stopped in training is resumed from."""
        return self.folder(profile, cell) / "checkpoint.pt"

    def dataset(self, settings: Settings, profile: str) -> str:
        """The data set that the profile's cells are trained on, as far as can be told without a download.

        Where it is not here that is what the models on record were trained on, and before there are any the fallback,
        if it has been used.
        """
        data = settings.data
        if data.fallback is None or has_dataset(self.data, data.dataset):
            return data.dataset
        recorded = self.recorded_dataset(settings, profile)
        used = recorded or (data.fallback if self.testset(profile, data.fallback).is_file() else None)
        return data.fallback if used == data.fallback else data.dataset

    def recorded_dataset(self, settings: Settings, profile: str) -> str | None:
        """The data set that the teacher on record was trained on; None where no such record can be read."""
        path = record_path(self.results, profile, "train", f"teacher-s{settings.teacher.seed}")
        try:
            record = load(path, TrainRecord)
            return str(record.spec["data"]["dataset"]["name"]) if record.status == "done" else None
        except (HarnessError, KeyError, TypeError):
            return None

    def dataset_is_known(self, settings: Settings, profile: str) -> bool:
        """Whether this machine has the profile's data set, or models on record, or has used the fallback."""
        fallback = settings.data.fallback
        used = fallback is not None and self.testset(profile, fallback).is_file()
        return used or bool(self.recorded_dataset(settings, profile)) or has_dataset(self.data, settings.data.dataset)


def weights_file(artifacts: Path, profile: str, cell: Cell) -> Path:
    """A cell's trained weights."""
    return cell.artifacts(artifacts, profile) / "weights.safetensors"


def model_file(artifacts: Path, profile: str, cell: Cell) -> Path:
    """A cell's exported model; each form of a trained model has a file of its own."""
    form = cell.spec.form
    return cell.artifacts(artifacts, profile) / ("model.onnx" if form == "fp32" else f"model-{form}.onnx")


def has_dataset(root: Path, dataset: str) -> bool:
    """Whether a data set lies in a folder: the file or folder that its plug-in names as MARKER. HarnessError where this
    user may not look into it."""
    marker = registry.find("dataset", dataset).constants.get("MARKER")
    try:
        return marker is not None and (root / marker).exists()
    except PermissionError as error:
        raise HarnessError(
            f"{root}: this user may not read it; make it readable (chmod -R a+rX) or name another in DATA_DIR"
        ) from error


def data_root(given: Path | None = None) -> Path:
    """The folder given, or else DATA_DIR, or ./data; either may also name cifar-100-python itself."""
    root = given or Path(os.environ.get("DATA_DIR") or "data")
    return root.parent if root.name == CIFAR_FOLDER else root


def answers_file(folder: Path) -> Path:
    """In a cell's folder: the class that torch gives each test image (harness.predictions)."""
    return folder / "answers.npy"
