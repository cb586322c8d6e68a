"""Data sets, one file each: what one has to bring, and how it is found, fetched and loaded.

A data set's file defines DATASET, a `Dataset`, and these constants (harness.plan.registry): TITLE, its name in tables;
CLASSES and, where it is fixed, TRAIN_IMAGES; MARKER, the file or folder below DATA_DIR by which planning sees that it
is here; FOLDERS, all that it consists of there, where that is more than MARKER; PARAMETERS, settings of its own (a
parameter `classes` takes the place of CLASSES).
"""

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import HarnessError
from harness.files import atomic_path, worded
from harness.plan import registry
from harness.plan.settings import Settings
from harness.store.paths import Paths

Parameters = Mapping[str, Any]


class DamagedDataError(HarnessError):
    """A data set that is here, but not whole."""


Three = tuple[float, float, float]


@dataclass(frozen=True)
class Images:
    """Images uint8 [N, 3, H, W] with labels int64 [N]. `mean` and `std` are the training set's, on the 0..1 scale."""

    pixels: Tensor
    labels: Tensor
    mean: Three
    std: Three

    def to(self, device: torch.device) -> "Images":
        """The same on a device."""
        return Images(self.pixels.to(device), self.labels.to(device), self.mean, self.std)

    def first(self, count: int) -> "Images":
        """The first `count` of them; HarnessError where there are fewer."""
        if count > len(self.labels):
            raise HarnessError(f"data.train_images: the data set has {len(self.labels)} training images, not {count}")
        return Images(self.pixels[:count], self.labels[:count], self.mean, self.std)


class Dataset(ABC):
    """What a data set's file brings. Subclass it, and name an instance DATASET."""

    # What a user can do where it is not here.
    how: str = "give the folder that holds it with DATA_DIR=..."

    @abstractmethod
    def find(self, root: Path, parameters: Parameters) -> bool:
        """Whether it is below `root`, whole: its hash is checked. A damaged copy raises DamagedDataError."""

    def fetch(self, root: Path, parameters: Parameters) -> None:
        """Download it to `root`, in place of what may be there. Raises OSError or RuntimeError where that fails."""
        raise OSError("it cannot be downloaded")

    @abstractmethod
    def load(self, root: Path, parameters: Parameters, train: bool) -> Images:
        """The training or the test images. Called only after `find` has returned True."""


def load(name: str, parameters: Parameters, root: Path, train: bool) -> Images:
    """The training or the test images of a data set, verified before they are opened."""
    dataset: Dataset = registry.load("dataset", name, Dataset)
    if not dataset.find(root, parameters):
        raise HarnessError(f"{registry.find('dataset', name).title} is not in {root}; {dataset.how}")
    return dataset.load(root, parameters, train)


def provide(settings: Settings, root: Path, given_by: str = "") -> str:
    """Make the data set of the settings available, downloaded where it is not here or is damaged; return its name.

    Where it cannot be had, the name is that of `data.fallback`. `given_by` says what named the folder (like
    "--data-dir x"), if anything but the default or DATA_DIR did: in a folder that somebody named, nothing is
    downloaded and no fallback is used. HarnessError where there is neither the data set nor a fallback, or where what
    is here is damaged.
    """
    data = settings.data
    dataset: Dataset = registry.load("dataset", data.dataset, Dataset)
    title, parameters = registry.find("dataset", data.dataset).title, settings.parameters("dataset", data.dataset)
    variable = os.environ.get("DATA_DIR")
    given_by = given_by or (f"DATA_DIR={variable}" if variable else "")
    damage = None
    try:
        if dataset.find(root, parameters):
            return data.dataset
    except DamagedDataError as error:
        # a download of ours that was interrupted is made again; what somebody else has put there is not touched
        if given_by:
            raise
        damage = error
    if given_by:
        raise HarnessError(f"{given_by}: {title} is not in it; {dataset.how}, or name no folder")
    try:
        with _patience(seconds=20):
            dataset.fetch(root, parameters)
        return data.dataset
    except (OSError, RuntimeError) as error:
        reason = f"download failed: {worded(error) if isinstance(error, OSError) else error}"
    if damage:
        raise DamagedDataError(f"{damage} ({reason})")
    if data.fallback:
        return data.fallback
    raise HarnessError(f"{title} is not in {root} ({reason}); {dataset.how}")


def provide_for(paths: Paths, settings: Settings, profile: str) -> str:
    """`provide` for a profile's matrix: its fallback takes no place in which models of the data set are on record.

    Otherwise a shell in which DATA_DIR is forgotten would make finished models anew, on other images.
    """
    if paths.recorded_dataset(settings, profile) != settings.data.dataset:
        return provide(settings, paths.data)
    data = settings.data.model_copy(update={"fallback": None})
    try:
        return provide(settings.model_copy(update={"data": data}), paths.data)
    except DamagedDataError:
        raise
    except HarnessError as error:
        raise HarnessError(f"{error}; the models of profile {profile} that are on record were trained on it") from error


def normalise(pixels: Tensor, mean: Three, std: Three) -> Tensor:
    """Pixels [N, 3, H, W], uint8 or on the 0..1 scale, to zero mean and unit variance, float32."""
    scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    return (scaled - per_channel(mean, pixels.device)) / per_channel(std, pixels.device)


@cache
def per_channel(values: Three, device: torch.device) -> Tensor:
    """A number for each channel [1, 3, 1, 1], sent to the device once."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def resize(pixels: Tensor, size: int) -> Tensor:
    """Bilinear, half-pixel centres; uint8 becomes float on the 0..1 scale unless the size is already right."""
    if pixels.shape[-1] == size:
        return pixels
    scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    return F.interpolate(scaled, size=(size, size), mode="bilinear", align_corners=False)


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def save_testset(path: Path, images: Images) -> None:
    """The test images for the bench, which has no torch: npz with images uint8 [N, H, W, 3] and labels int64 [N]."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=images.pixels.permute(0, 2, 3, 1).contiguous().numpy(), labels=images.labels.numpy())
