"""From weights to an ONNX file that onnxruntime 1.16.0 loads, and the gate that it must pass.

The exporter folds BatchNorm into the convolutions; numbers too small to matter are set to zero (denormals slow a CPU by
a factor of 5 and more); provenance goes into the file's metadata; and the result is compared with torch on real images.
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

from harness.datasets import Images, normalise, resize
from harness.errors import HarnessError
from harness.files import atomic_path, file_sha256
from harness.model_files.recount import graph_figures
from harness.store.records import PARITY_TOP1_PCT, parity_limit

# onnxruntime 1.16.0 reads IR up to 9.
IR_VERSION = 9
# Weights below this cannot change a logit in float32: activations here are of the order of 1.
TINY = 1e-20
PARITY_IMAGES = 256
# What the gate runs the file with.
RUNTIME = f"onnxruntime {onnxruntime.__version__}"


@dataclass(frozen=True)
class Parity:
    """How an ONNX file compares with torch: the largest logit, the largest difference, top-1 agreement (%)."""

    largest_logit: float
    max_abs_diff: float
    top1_agreement_pct: float

    @property
    def limit(self) -> float:
        """The largest difference that is allowed."""
        return parity_limit(self.largest_logit)

    @property
    def holds(self) -> bool:
        """Whether the file may be used; a difference that is not a number does not hold."""
        return self.max_abs_diff <= self.limit and self.top1_agreement_pct >= PARITY_TOP1_PCT


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares with torch."""

    onnx_sha256: str
    onnx_bytes: int
    params: int
    flushed_weights: int
    denormal_weights: int
    parity: Parity


def export(
    model: nn.Module, path: Path, images: Images, image_size: int, opset: int, provenance: Mapping[str, Any]
) -> Exported:
    """Write `model` to `path` as ONNX: `input` float32 [N, 3, S, S], normalised, to `output` [N, classes].

    The file takes its place only after the parity gate: logits within 1e-3 of torch's, relative to their largest, and
    top-1 agreement of 99.5 % on the first 256 of `images`. Raises HarnessError where it fails.
    """
    plain = copy.deepcopy(model).cpu().float().eval()
    plain = plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with atomic_path(path) as temporary:
        _trace(plain, temporary, image_size, opset)
        proto = onnx.load(temporary)
        flushed = flush(proto)
        proto.ir_version = IR_VERSION
        properties = {**provenance, "mean": list(images.mean), "std": list(images.std), "image_size": image_size}
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in properties.items()}
        onnx.helper.set_model_props(proto, texts)
        onnx.checker.check_model(proto)
        onnx.save(proto, temporary)
        # The gate reads the very file that will be measured.
        compared = parity(plain, temporary, images, image_size)
        if not compared.holds:
            raise HarnessError(
                f"parity gate: the exported model differs from torch by {compared.max_abs_diff:.2g} "
                f"(limit {compared.limit:.2g}), top-1 agrees on {compared.top1_agreement_pct:.1f} % of the images "
                f"(limit {PARITY_TOP1_PCT} %)"
            )
    counted = graph_figures(proto)
    return Exported(
        onnx_sha256=file_sha256(path),
        onnx_bytes=path.stat().st_size,
        params=counted["params"],
        flushed_weights=flushed,
        denormal_weights=counted["denormal_weights"],
        parity=compared,
    )


def _trace(model: nn.Module, path: Path, image_size: int, opset: int) -> None:
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
            opset_version=opset,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        )


def flush(proto: onnx.ModelProto) -> int:
    """Set weights of less than 1e-20 to zero; returns how many there were."""
    count = 0
    for tensor in proto.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.dtype != np.float32:
            continue
        tiny = (weight != 0) & (np.abs(weight) < TINY)
        if tiny.any():
            count += int(tiny.sum())
            tensor.CopyFrom(numpy_helper.from_array(np.where(tiny, np.float32(0), weight), tensor.name))
    return count


def parity(model: nn.Module, path: Path, images: Images, image_size: int) -> Parity:
    """Compare torch's logits with ONNX Runtime's on the first images; HarnessError where the file does not run."""
    batch = normalise(resize(images.pixels[:PARITY_IMAGES].cpu(), image_size), images.mean, images.std)
    with torch.no_grad():
        expected = model(batch).numpy()
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (found,) = session.run(["output"], {"input": batch.numpy()})
    except Exception as error:  # onnxruntime has many exception classes of its own
        raise HarnessError(f"{path.name}: ONNX Runtime cannot run the export ({error})") from error
    return Parity(
        largest_logit=float(np.abs(expected).max()),
        max_abs_diff=float(np.abs(found - expected).max()),
        top1_agreement_pct=float(100 * (found.argmax(1) == expected.argmax(1)).mean()),
    )
