"""The test set, and how its images become a model's input, without torch."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
import numpy.typing as npt

from harness.bench.engines import Array
from harness.bench.job import ModelInput
from harness.errors import HarnessError
from harness.files import require_file


@dataclass(frozen=True)
class Testset:
    """Images uint8 [N, H, W, 3] and labels int64 [N], in the data set's order."""

    # pytest would take the name for a test class
    __test__ = False
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def load_testset(path: Path) -> Testset:
    """Read the .npz that the export stage leaves; a missing, truncated or foreign file is a HarnessError."""
    remedy = "delete it and run the export again"
    require_file(path, "no such test set; run the export first")
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        TokenError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise HarnessError(f"{path}: not a readable test set ({error}); {remedy}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise HarnessError(f"{path}: images are {images.dtype} {images.shape}, not uint8 [N, H, W, 3]; {remedy}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1] or labels.min() < 0:
        raise HarnessError(
            f"{path}: labels are {labels.dtype} {labels.shape}, not int64 [{len(images)}] >= 0; {remedy}"
        )
    return Testset(images=images, labels=labels)


def preprocess(images: npt.NDArray[np.uint8], wanted: ModelInput) -> Array:
    """uint8 [N, H, W, 3] -> normalised, contiguous, of the model's own type: [N, 3, size, size], or channels last.

    Scaled to 0..1, resized bilinearly where the size differs, then (x - mean) / std.
    """
    size = wanted.size
    scaled = images.astype(np.float32) / np.float32(255)
    if scaled.shape[1:3] != (size, size):
        rows, columns = resize_matrix(scaled.shape[1], size), resize_matrix(scaled.shape[2], size)
        scaled = np.einsum("ih,nhwc,jw->nijc", rows, scaled, columns, optimize=True)
    normalised = (scaled - np.asarray(wanted.mean, np.float32)) / np.asarray(wanted.std, np.float32)
    ordered = normalised if wanted.channels_last else normalised.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(ordered, dtype=wanted.dtype)


def resize_matrix(old: int, new: int) -> Array:
    """Bilinear interpolation of one axis as a matrix [new, old]: resizing an image is rows @ image @ columns.T.

    As torch does with align_corners=False and without antialiasing: pixel centres at half integers, borders repeated.
    """
    centres = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    below = np.floor(centres).astype(int)
    above = np.minimum(below + 1, old - 1)
    weight = centres - below
    matrix = np.zeros((new, old), dtype=np.float64)
    matrix[np.arange(new), below] += 1 - weight
    matrix[np.arange(new), above] += weight
    return matrix.astype(np.float32)
