"""What a model answered to each test image: the files, and the hashes by which records know them.

The counts of an accuracy record say how many answers are right. On which images two models differ, and so how well
their difference is known, only the answers themselves say. They lie beside the record:

    results/<profile>/accuracy/<cell>.npy               the answers, a byte an image for up to 256 classes
    results/<profile>/accuracy/labels-<its hash>.npy    the right ones, once for all models with this test set

Here rather than among the artifacts, because an interval in a table has to follow from what is committed: a fresh
clone, or a machine that was sent the records alone, has no artifacts, and no test set either (30 MB). At 10 kB a model
the answers are no larger than a latency record. And here rather than within the record, which is there to be read.

Neither file counts for anything by itself: the record names both by SHA-256, so the answers of another model, or of
another measurement of the same one, are noticed wherever they are read.

Torch's own answers, `answers.npy` among the artifacts, have the same form, and their hash is on the train record.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
import numpy.typing as npt

from harness.errors import HarnessError
from harness.files import atomic_path, file_sha256, require_file
from harness.store.records import AccuracyRecord

LABELS = "labels-"
Classes = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The class that a model gave each test image and the right one, both [N], in the data set's order."""

    given: Classes
    labels: Classes

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each image was answered rightly, [N]."""
        return np.asarray(self.given == self.labels)


def encoded(classes: Classes) -> bytes:
    """Class numbers [N] as the bytes of a .npy file, in the smallest unsigned type; the same on every machine."""
    kind = np.min_scalar_type(classes.max()).newbyteorder("<")
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(classes, dtype=kind), allow_pickle=False)
    return buffer.getvalue()


def save_classes(path: Path, classes: Classes) -> str:
    """Write class numbers [N] atomically; returns the file's SHA-256."""
    content = encoded(classes)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def load_classes(path: Path) -> Classes:
    """Class numbers [N] from a file, of which nothing is taken on trust; HarnessError where it holds anything else."""
    require_file(path)
    try:
        # Mapped, so that a header cannot ask for more than the file holds. Objects, which are pickled, are refused.
        array = np.lib.format.open_memmap(path, mode="r")
        plain = array.ndim == 1 and array.dtype.kind in "iu" and array.min() >= 0
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TokenError) as error:
        raise HarnessError(f"{path}: no array of class numbers ({error})") from error
    if not plain:
        raise HarnessError(f"{path}: no array of class numbers ({array.dtype} {array.shape})")
    return np.array(array)


def keep(results: Path, profile: str, cell: str, given: Classes, labels: Classes) -> dict[str, str]:
    """Write a model's answers and the labels [N] beside its accuracy record; returns the record's fields with their
    hashes. The record has to be saved after that, so that it never names what is not there.
    """
    content = encoded(labels)
    fields = {"labels_sha256": hashlib.sha256(content).hexdigest()}
    path = results / profile / labels_name(fields["labels_sha256"])
    if not path.is_file() or file_sha256(path) != fields["labels_sha256"]:
        save_classes(path, labels)
    return {**fields, "predictions_sha256": save_classes(results / profile / answers_name(cell), given)}


def answers_name(cell: str) -> str:
    """A model's answers, relative to the profile's folder."""
    return f"{AccuracyRecord.stage}/{cell}.npy"


def labels_name(sha256: str) -> str:
    """The labels with this hash, relative to the profile's folder."""
    return answers_name(f"{LABELS}{sha256[:12]}")


def named(record: AccuracyRecord) -> dict[str, str]:
    """The files that a record names, relative to the profile's folder, with their SHA-256; none before predictions
    were kept.
    """
    answers, labels = record.predictions_sha256, record.labels_sha256
    return {
        **({answers_name(record.cell): answers} if answers else {}),
        **({labels_name(labels): labels} if labels else {}),
    }


def are_here(folder: Path, record: AccuracyRecord) -> bool:
    """Whether the profile's `folder` has the files that a record names, and they are the ones that it means."""
    return all(
        (path := folder / name).is_file() and file_sha256(path) == sha256 for name, sha256 in named(record).items()
    )


def read(folder: Path, record: AccuracyRecord) -> Predictions | None:
    """A record's predictions, from the profile's `folder`; None where it names none.

    HarnessError where a file is missing or not named, is not the one that the record names, holds anything but class
    numbers, or is not about as many images as the record.
    """
    files = named(record)
    if not files:
        return None
    if len(files) == 1:
        raise HarnessError(f"{next(iter(files))}: the accuracy record names answers and labels only together")
    for name, sha256 in files.items():
        if not (folder / name).is_file():
            raise HarnessError(f"{name}: not there, though the accuracy record names it")
        if (found := file_sha256(folder / name)) != sha256:
            raise HarnessError(f"{name}: sha256 is {found[:12]}..., the accuracy record says {sha256[:12]}...")
    given, labels = (load_classes(folder / name) for name in files)
    if not len(given) == len(labels) == record.images:
        raise HarnessError(
            f"{next(iter(files))}: {len(given)} answers and {len(labels)} labels, where the accuracy record has "
            f"{record.images} images"
        )
    return Predictions(given, labels)
