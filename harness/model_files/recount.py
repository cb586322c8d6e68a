"""What a model's files say of it, counted anew: so that figures on record can be held against the files they are of."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch_pruning as tp
from onnx import numpy_helper
from torch import nn

from harness.architectures import parameter_count, widths_of
from harness.errors import HarnessError
from harness.model_files.parameters import onnx_parameter_count
from harness.model_files.weights import load_weights

DENORMAL = float(np.finfo(np.float32).tiny)


def macs_of(model: nn.Module, image_size: int) -> int:
    """Multiply-adds of one inference, as Torch-Pruning counts them."""
    example = torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device)
    return int(tp.utils.count_ops_and_params(model, example)[0])


def graph_figures(proto: onnx.ModelProto) -> dict[str, int]:
    """What an ONNX graph says of itself. `params` counts the weights, BatchNorm folded in, as the study does."""
    floats = [weight for weight in map(numpy_helper.to_array, proto.graph.initializer) if weight.dtype == np.float32]
    return {
        "ir_version": proto.ir_version,
        "params": onnx_parameter_count(proto),
        "denormal_weights": sum(int(((weight != 0) & (np.abs(weight) < DENORMAL)).sum()) for weight in floats),
        "convolutions": sum(node.op_type == "Conv" for node in proto.graph.node),
    }


def of_onnx(path: Path) -> dict[str, Any]:
    """The figures of an ONNX file, by the names that records have for them; HarnessError where it is not readable."""
    try:
        proto = onnx.load(path)
    except Exception as error:  # protobuf's decoding errors have no public class
        raise HarnessError(f"{path.name}: not a readable ONNX file ({' '.join(str(error).split())})") from error
    return {"onnx_bytes": path.stat().st_size, **graph_figures(proto)}


def of_weights(path: Path, image_size: int) -> dict[str, Any]:
    """The figures of trained weights, by the names that records have for them; HarnessError where not readable."""
    model, metadata = load_weights(path)
    trained_at = {"image_size": metadata["image_size"]} if "image_size" in metadata else {}
    counted = {"params": parameter_count(model), "macs": macs_of(model.eval(), image_size), "widths": widths_of(model)}
    return {**counted, **trained_at}
