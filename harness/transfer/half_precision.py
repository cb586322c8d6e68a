"""Weights in half precision: half the bytes to carry, allowed where accuracy stays what it was.

Only convolution and classifier weights are rounded, to IEEE float16; BatchNorm's numbers and biases, a fraction of a
percent of all, stay as they are (a running variance may exceed float16's range). Rounded weights are another model:
they have another hash, and whoever unpacks them gets a train record that says so (harness.store.records.Rounded).
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file

from harness.architectures.resnet import ResNet50, load_weights, save_weights
from harness.errors import HarnessError
from harness.files import atomic_path, file_sha256
from harness.plan.planning import Cell, Plan
from harness.store.paths import Paths, answers_file
from harness.training import data
from harness.training.device import Device, choose_device
from harness.training.loop import accuracy_pct, answers
from harness.transfer.manifest import WEIGHTS, Half
from harness.transfer.packing import require_file, train_record, write_pack

# In percentage points: five of 10,000 images.
LARGEST_LOSS = 0.05


def pack_half(plan: Plan, paths: Paths, cell: Cell, out: Path, part_mib: float, device: Device | None = None) -> Path:
    """Pack a cell's weights in half precision; HarnessError where that changes accuracy by more than 0.05 points.

    Both accuracies are measured here, on all test images, and are in the manifest.
    """
    record = train_record(plan, paths, cell)
    if record.rounded_from:
        raise HarnessError(f"{cell.id}: the weights here came in half precision already; pack them as they are")
    weights = cell.artifacts(paths.artifacts, plan.profile) / WEIGHTS
    require_file(weights, record.weights_sha256)
    with tempfile.TemporaryDirectory(prefix="harness-half-") as scratch:
        narrow, wide = Path(scratch) / WEIGHTS, Path(scratch) / "wide.safetensors"
        narrow_down(weights, narrow)
        widen(narrow, wide)
        images = data.load(plan.data, paths.data, train=False)

        def given(path: Path) -> torch.Tensor:
            on = device or choose_device("fp32")
            model: ResNet50 = load_weights(path)[0]
            on.place(model)
            return answers(model, images, plan.settings.data.image_size, on)

        rounded = given(wide)
        half = judged(cell, accuracy_pct(given(weights), images), accuracy_pct(rounded, images), file_sha256(wide))
        np.save(answers_file(Path(scratch)), rounded.to(torch.uint8).numpy())
        files = [narrow, answers_file(Path(scratch))]
        return write_pack(plan, cell, out, part_mib, files, "float16", str(record.weights_sha256), half)


def judged(cell: Cell, before: float, after: float, weights_sha256: str) -> Half:
    """What the manifest says of rounding; HarnessError where accuracy (%) moved too far."""
    # a little room, so that a difference of exactly the limit does not hang on rounding
    if not abs(after - before) <= LARGEST_LOSS + 1e-9:
        raise HarnessError(
            f"{cell.id}: {after:.2f} % in half precision, {before:.2f} % before; more than {LARGEST_LOSS} points. "
            f"Pack it without --half"
        )
    return Half(accuracy_pct=after, accuracy_before_pct=before, weights_sha256=weights_sha256)


def narrow_down(weights: Path, path: Path) -> None:
    """Write weights with every tensor of two dimensions and more in float16."""
    tensors = {name: value.half() if value.dim() > 1 else value for name, value in load_file(weights).items()}
    _, metadata = load_weights(weights)
    save_file(tensors, path, {"metadata": json.dumps(metadata, sort_keys=True)})


def widen(narrow: Path, path: Path, expected: str | None = None) -> None:
    """Write the rounded weights in single precision again, as everything here reads them.

    Raises HarnessError, with nothing written, where that does not give the file that was `expected`.
    """
    with safetensors.safe_open(narrow, "pt") as file:
        metadata = json.loads(file.metadata()["metadata"])
    widths, stem = metadata.pop("widths"), metadata.pop("stem")
    model = ResNet50(widths, stem)
    model.load_state_dict({name: _single(value) for name, value in load_file(narrow).items()})
    with atomic_path(path) as temporary:
        save_weights(temporary, model, metadata)
        if expected and file_sha256(temporary) != expected:
            raise HarnessError(f"{path}: the rounded weights came out otherwise than when they were packed")


def _single(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.dtype == torch.float16 else value
