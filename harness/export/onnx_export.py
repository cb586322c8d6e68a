"""From weights to an ONNX file that onnxruntime 1.16.0 loads, and the gate it must pass.

BatchNorm is folded into the convolutions, numbers too small to matter are set to zero (denormals slow a CPU by a
factor of 5 and more), provenance goes into the file's metadata, and the result is held against torch on real images.
"""

import copy
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from harness.architectures.resnet import ResNet50
from harness.errors import HarnessError
from harness.files import atomic_path, file_sha256
from harness.training.augment import MEAN, STD, normalise, resize
from harness.training.data import Images

OPSET = 17
# onnxruntime 1.16.0 reads IR up to 9.
IR_VERSION = 9
# Weights below this cannot change a logit in float32: activations here are of the order of 1.
TINY = 1e-20
DENORMAL = float(np.finfo(np.float32).tiny)
PARITY_IMAGES = 256
PARITY_TOLERANCE = 1e-3
PARITY_TOP1_PCT = 99.5


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares with torch."""

    onnx_sha256: str
    onnx_bytes: int
    params: int
    flushed_weights: int
    denormal_weights: int
    parity_max_abs_diff: float
    parity_top1_agreement_pct: float


def export(model: ResNet50, path: Path, images: Images, image_size: int, provenance: Mapping[str, Any]) -> Exported:
    """Write `model` to `path` as ONNX: `input` float32 [N, 3, S, S], normalised, to `output` [N, classes].

    The file takes its place only after the parity gate: logits within 1e-3 of torch's, relative to their largest, and
    top-1 agreement of 99.5 % on the first 256 test images. Raises HarnessError where it fails.
    """
    plain = copy.deepcopy(model).cpu().float().eval()
    plain = plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    folded = fold(plain)
    flushed = flush(folded)
    with atomic_path(path) as temporary:
        _write(folded, temporary, image_size, provenance)
        # The gate reads the very file that will be measured, and torch's answer is that of the unfolded model.
        difference, agreement = parity(plain, temporary, images, image_size)
        graph = onnx.load(temporary).graph
    weights = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    floats = [weight for weight in weights if weight.dtype == np.float32]
    return Exported(
        onnx_sha256=file_sha256(path),
        onnx_bytes=path.stat().st_size,
        params=sum(weight.size for weight in floats),
        flushed_weights=flushed,
        denormal_weights=sum(int(((weight != 0) & (np.abs(weight) < DENORMAL)).sum()) for weight in floats),
        parity_max_abs_diff=difference,
        parity_top1_agreement_pct=agreement,
    )


def fold(model: ResNet50) -> ResNet50:
    """A copy with every BatchNorm folded into the convolution before it."""
    folded = copy.deepcopy(model)
    for parent in [folded, *(module for module in folded.modules() if isinstance(module, nn.Sequential))]:
        _fold_children(parent)
    for block in folded.modules():
        if hasattr(block, "conv3"):
            _fold_children(block)
    return folded


def _fold_children(parent: nn.Module) -> None:
    """Replace each (convolution, BatchNorm) pair of direct children, by order of definition."""
    previous: tuple[str, nn.Conv2d] | None = None
    for name, child in list(parent.named_children()):
        if isinstance(child, nn.BatchNorm2d) and previous:
            setattr(parent, previous[0], fuse_conv_bn_eval(previous[1], child))
            setattr(parent, name, nn.Identity())
        previous = (name, child) if isinstance(child, nn.Conv2d) else None


@torch.no_grad()
def flush(model: nn.Module) -> int:
    """Set weights of less than 1e-20 to zero; returns how many there were."""
    count = 0
    for parameter in model.parameters():
        tiny = (parameter != 0) & (parameter.abs() < TINY)
        count += int(tiny.sum())
        parameter.masked_fill_(tiny, 0.0)
    return count


def _write(model: ResNet50, path: Path, image_size: int, provenance: Mapping[str, Any]) -> None:
    example = torch.zeros(2, 3, image_size, image_size)
    with warnings.catch_warnings():
        # The TorchScript exporter is marked as legacy. The newer one froze the batch size and wrote wrong bias shapes
        # on pruned ResNets; this one is right, and the parity gate would tell if it were not.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            model,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        )
    proto = onnx.load(path)
    proto.ir_version = IR_VERSION
    properties = {**provenance, "mean": list(MEAN), "std": list(STD), "image_size": image_size}
    onnx.helper.set_model_props(
        proto, {name: value if isinstance(value, str) else json.dumps(value) for name, value in properties.items()}
    )
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def parity(model: ResNet50, path: Path, images: Images, image_size: int) -> tuple[float, float]:
    """Largest logit difference and top-1 agreement (%) between torch and ONNX Runtime; HarnessError past the limits."""
    batch = normalise(resize(images.pixels[:PARITY_IMAGES].cpu(), image_size))
    with torch.no_grad():
        expected = model(batch).numpy()
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (found,) = session.run(["output"], {"input": batch.numpy()})
    except Exception as error:  # onnxruntime has many exception classes of its own
        raise HarnessError(f"{path.name}: ONNX Runtime cannot run the export ({error})") from error
    difference = float(np.abs(found - expected).max())
    agreement = float(100 * (found.argmax(1) == expected.argmax(1)).mean())
    limit = PARITY_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not np.isfinite(found).all() or not difference <= limit or agreement < PARITY_TOP1_PCT:
        raise HarnessError(
            f"parity gate: the exported model differs from torch by {difference:.2g} (limit {limit:.2g}), "
            f"top-1 agrees on {agreement:.1f} % of {len(batch)} images (limit {PARITY_TOP1_PCT} %)"
        )
    return difference, agreement
