"""Weights in half precision: half the bytes to move, allowed where accuracy stays what it was.

Only convolution and classifier weights are rounded, to IEEE float16. BatchNorm's numbers and biases, a fraction of a
percent of all, stay as they are (a running variance may exceed float16's range). Rounded weights are another model:
they have another hash, and unpacking them writes a train record that says so (harness.store.records.Rounded).
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from harness.architectures import parameter_count, widths_of
from harness.datasets import Images
from harness.errors import HarnessError
from harness.files import atomic_path, file_sha256
from harness.model_files.weights import load_weights, read_metadata, save_weights
from harness.plan.specs import Teacher, plain
from harness.store.records import TrainRecord
from harness.training.device import Device
from harness.training.loop import accuracy_pct, answers
from harness.transfer.manifest import Half

# In percentage points: five of 10,000 images.
LARGEST_LOSS = 0.05


def narrow(weights: Path, path: Path) -> None:
    """Write weights with every tensor of two dimensions and more in float16."""
    model, metadata = load_weights(weights)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = parameter.data.half()
    save_weights(path, model, metadata)


def widen(narrowed: Path, path: Path, expected: str | None = None) -> None:
    """Write the rounded weights in single precision again, as everything here reads them.

    Raises HarnessError, with nothing written, where that does not give the file that was `expected`.
    """
    model, metadata = load_weights(narrowed)
    with atomic_path(path) as temporary:
        save_weights(temporary, model, metadata)
        if expected and file_sha256(temporary) != expected:
            raise HarnessError(f"{path}: not put in place: the rounded weights are not those that the manifest names")


def effect_of_rounding(
    weights: Path, rounded: Path, images: Images, image_size: int, device: Device
) -> tuple[Half, Tensor]:
    """What rounding did to a model on all test images, and the class that the rounded one gives each, int64 [N]."""

    def given(path: Path) -> Tensor:
        model: nn.Module = load_weights(path)[0]
        device.place(model)
        return answers(model, images, image_size, device)

    after = given(rounded)
    before_pct, after_pct = accuracy_pct(given(weights), images), accuracy_pct(after, images)
    return Half(accuracy_pct=after_pct, accuracy_before_pct=before_pct, weights_sha256=file_sha256(rounded)), after


def require_harmless(cell: str, half: Half) -> None:
    """HarnessError where accuracy moved by more than 0.05 points."""
    # a little room, so that a difference of exactly the limit does not depend on rounding
    if abs(half.accuracy_pct - half.accuracy_before_pct) > LARGEST_LOSS + 1e-9:
        raise HarnessError(
            f"{cell}: {half.accuracy_pct:.2f} % in half precision, {half.accuracy_before_pct:.2f} % before; more than "
            f"{LARGEST_LOSS} points. Pack it without --half"
        )


def require_network(path: Path, teacher: Teacher, record: TrainRecord) -> None:
    """HarnessError where a file of weights is not of the network that a train record describes.

    Of weights in half precision no record here has the hash. What is asked for is known from the plan, and is compared
    before anything is built from the file.
    """
    said: dict[str, Any] = read_metadata(path)
    if (said.get("network"), said.get("key")) != (plain(teacher.network), record.key):
        raise HarnessError(f"{path.name}: not weights of {record.cell} under its present key")
    model, _ = load_weights(path)
    if (widths_of(model), parameter_count(model)) != (record.widths, record.params):
        raise HarnessError(f"{path.name}: not the network that the train record of {record.cell} describes")
