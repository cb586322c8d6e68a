"""Images of one's own: DATA_DIR with a folder `train` and a folder `test`, in each a folder of images per class.

matrix.toml says which images they are, so that a model is never taken for one of other images:

    [data]
    dataset = "image_folder"
    [dataset.image_folder]
    classes = 10
    size = 32                # images are scaled (bilinear) to a square of this side
    sha256 = "..."           # `harness data` prints it
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from harness.datasets import Dataset, Images, Parameters
from harness.errors import HarnessError

TITLE = "image folder"
CLASSES = 0
MARKER = "train"
FOLDERS = ("train", "test")
PARAMETERS = {"classes": 0, "size": 32, "sha256": ""}
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")


class ImageFolder(Dataset):
    """Whatever images the folder holds; classes go by the names of their folders, in alphabetical order."""

    how = "give the folder that holds train/<class>/ and test/<class>/ with DATA_DIR=..."

    def find(self, root: Path, parameters: Parameters) -> bool:
        """See the base class."""
        if not (root / "train").is_dir():
            return False
        if not (root / "test").is_dir():
            raise HarnessError(f"{root}: has a folder train and no folder test; {self.how}")
        files = _files(root, "train") + _files(root, "test")
        classes = _classes(root)
        if _classes(root, "test") != classes:
            raise HarnessError(f"{root}: train and test do not have the same class folders")
        found = _sha256(root, tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files))
        wanted = f'[dataset.image_folder] classes = {len(classes)}, sha256 = "{found}"'
        if (parameters["classes"], parameters["sha256"]) != (len(classes), found):
            raise HarnessError(
                f"{root}: holds {len(files)} images of {len(classes)} classes, which are not those that matrix.toml "
                f"names; for these write {wanted}"
            )
        return True

    def load(self, root: Path, parameters: Parameters, train: bool) -> Images:
        """See the base class."""
        size = int(parameters["size"])
        learnt = _read(root, "train", size)
        pixels, labels = learnt if train else _read(root, "test", size)
        mean, std = _mean_and_deviation(learnt[0])
        return Images(
            torch.from_numpy(pixels),
            torch.from_numpy(labels),
            (float(mean[0]), float(mean[1]), float(mean[2])),
            (float(std[0]), float(std[1]), float(std[2])),
        )


def _classes(root: Path, part: str = "train") -> list[str]:
    folder = root / part
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and _belongs(path, root))


def _belongs(path: Path, root: Path) -> bool:
    """Whether a file or folder is part of the data set: no link out of it, and nothing hidden, as editors leave."""
    return path.resolve().is_relative_to(root.resolve()) and not path.name.startswith(".")


def _files(root: Path, part: str) -> list[Path]:
    """The images of a part, class by class."""
    found = [
        path
        for name in _classes(root, part)
        for path in sorted((root / part / name).iterdir())
        if path.suffix.lower() in SUFFIXES and path.is_file() and _belongs(path, root)
    ]
    if not found:
        raise HarnessError(f"{root / part}: no images in class folders ({', '.join(SUFFIXES)})")
    return found


@lru_cache(maxsize=4)
def _sha256(root: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 over the images' names and contents."""
    hasher = hashlib.sha256()
    for path, _, _ in files:
        content = path.read_bytes()
        hasher.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return hasher.hexdigest()


@lru_cache(maxsize=2)
def _read(root: Path, part: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [N, 3, size, size] and labels int64 [N]."""
    from PIL import Image

    places = {name: place for place, name in enumerate(_classes(root))}
    pixels, labels = [], []
    for path in _files(root, part):
        try:
            with Image.open(path) as image:
                picture = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        except Exception as error:  # a damaged file can raise nearly anything
            raise HarnessError(f"{path}: not a readable image ({error})") from error
        pixels.append(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1))
        labels.append(places[path.parent.name])
    return np.stack(pixels), np.asarray(labels, dtype=np.int64)


def _mean_and_deviation(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each channel, on the 0..1 scale, from sums of whole numbers: no copy of all images in floating point."""
    axes, count = (0, 2, 3), pixels.size / pixels.shape[1]
    mean = pixels.sum(axis=axes, dtype=np.int64) / count
    squares = np.square(pixels, dtype=np.uint16).sum(axis=axes, dtype=np.int64) / count
    return mean / 255, np.sqrt(squares - mean**2) / 255


DATASET = ImageFolder()
