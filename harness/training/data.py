"""CIFAR-100 as uint8 tensors, whole, and batches of it that are a function of (seed, epoch, step) alone.

Where the data set can neither be found nor downloaded, the quick profile falls back on a stand-in that is drawn by
code: one hundred classes told apart by colour and grating, learnable, and labelled as what it is in every row.
"""

import hashlib
import os
import pickle
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.files import atomic_path
from harness.plan.planning import DataName
from harness.store.paths import CIFAR_FOLDER as FOLDER
from harness.training.augment import augment, normalise

# The official files' MD5 sums, as torchvision checks them.
OFFICIAL = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
HOW = (
    "give its folder with DATA_DIR=... (the folder that holds cifar-100-python/ with the official files train, test "
    "and meta), or run where a download is possible"
)


@dataclass(frozen=True)
class Images:
    """Images uint8 [N, 3, 32, 32] with labels int64 [N]."""

    pixels: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Images":
        """The same on a device."""
        return Images(self.pixels.to(device), self.labels.to(device))

    def first(self, count: int) -> "Images":
        """The first `count` of them."""
        return Images(self.pixels[:count], self.labels[:count])


def find(root: Path) -> bool:
    """Whether the official files are there, whole (MD5). A damaged copy is an error, not an absence."""
    folder = root / FOLDER
    if not folder.is_dir():
        return False
    for name, md5 in OFFICIAL.items():
        path = folder / name
        if not path.is_file():
            raise HarnessError(f"{path}: missing; delete {folder} to download it again, or {HOW}")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() != md5:
                raise HarnessError(f"{path}: not the official file (MD5 differs); delete {folder}, or {HOW}")
    return True


def provide(root: Path, allow_stand_in: bool, download: bool = True) -> DataName:
    """Make the data set available and say which it is.

    Downloads where `download` and not yet there. Where that fails: "stand-in" if allowed, else HarnessError.
    """
    if find(root):
        return "cifar100"
    if os.environ.get("DATA_DIR") and not allow_stand_in:
        raise HarnessError(f"DATA_DIR={os.environ['DATA_DIR']}: no {FOLDER} in it; {HOW}")
    reason = "not downloaded"
    if download and not os.environ.get("DATA_DIR"):
        before = socket.getdefaulttimeout()
        try:
            socket.setdefaulttimeout(20)
            _download(root)
            return "cifar100"
        except (OSError, RuntimeError) as error:
            reason = f"download failed: {error}"
        finally:
            socket.setdefaulttimeout(before)
    if allow_stand_in:
        return "stand-in"
    raise HarnessError(f"CIFAR-100 is not in {root} ({reason}); {HOW}")


def _download(root: Path) -> None:
    # imported here: nothing else needs it, and every start would wait for it
    from torchvision.datasets import CIFAR100

    CIFAR100(root, download=True)


def load(name: DataName, root: Path, train: bool) -> Images:
    """The training or the test images."""
    if name == "stand-in":
        return draw_stand_in(5_000 if train else 10_000, seed=1 if train else 2)
    file = root / FOLDER / ("train" if train else "test")
    try:
        # Only after find() has held the MD5 against the official one: these are pickles.
        content = pickle.loads(file.read_bytes(), encoding="latin1")
    except FileNotFoundError:
        raise HarnessError(f"{file}: missing; {HOW}") from None
    except (pickle.UnpicklingError, EOFError, ValueError) as error:
        raise HarnessError(f"{file}: not a CIFAR-100 file ({error}); delete it, or {HOW}") from error
    return Images(
        torch.from_numpy(content["data"].reshape(-1, 3, 32, 32)),
        torch.tensor(content["fine_labels"], dtype=torch.int64),
    )


def draw_stand_in(count: int, seed: int) -> Images:
    """`count` drawn images: ten hues times ten gratings (upright or level, five widths), shifted, dimmed, with noise.

    No class is another one's mirror image, so flips are harmless.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 100)
    angle = (labels % 2) * np.pi / 2
    frequency = np.array([0.25, 0.5, 0.85, 1.3, 1.9])[labels // 2 % 5]
    hue = labels // 10 / 10
    y, x = np.mgrid[0:32, 0:32]
    phase = rng.uniform(0, 2 * np.pi, count)
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    stripes = 0.5 + 0.5 * np.sin(frequency[:, None, None] * along + phase[:, None, None])
    colour = 0.5 + 0.5 * np.cos(2 * np.pi * (hue[:, None] + np.array([0, 1 / 3, 2 / 3])))
    picture = colour[:, :, None, None] * (0.35 + 0.65 * stripes[:, None])
    picture = picture * rng.uniform(0.7, 1.0, (count, 1, 1, 1)) + rng.normal(0, 0.08, picture.shape)
    return Images(
        torch.from_numpy((picture.clip(0, 1) * 255).astype(np.uint8)), torch.from_numpy(labels.astype(np.int64))
    )


def save_testset(path: Path, images: Images) -> None:
    """The test images for the bench, which has no torch: npz with images uint8 [N, H, W, 3] and labels int64 [N]."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=images.pixels.permute(0, 2, 3, 1).contiguous().numpy(), labels=images.labels.numpy())


@dataclass(frozen=True)
class Stream:
    """Training batches that depend on (seed, epoch, step) and on nothing else: all who ask see the same.

    A batch is float32 [B, 3, S, S], augmented and normalised, with labels [B]; the last, smaller batch is left out.
    """

    images: Images
    batch_size: int
    image_size: int
    augmentations: tuple[str, ...]
    seed: int

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return max(1, len(self.images.labels) // self.batch_size)

    def batches(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch from step `first` on."""
        order = torch.randperm(len(self.images.labels), generator=_generator(self.seed, epoch, -1))
        order = order.to(self.images.labels.device, non_blocking=True)
        for step in range(first, self.steps):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            pixels = augment(
                self.images.pixels.index_select(0, chosen),
                self.augmentations,
                self.image_size,
                _generator(self.seed, epoch, step),
            )
            yield normalise(pixels), self.images.labels.index_select(0, chosen)


def _generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """Random numbers drawn on the CPU whatever the device, so that a GPU sees the batches a CPU would."""
    text = f"{seed}/{epoch}/{step}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:7], "big"))
