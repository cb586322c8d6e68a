"""ONNX files of every kind that people have, made here or (tests/foreign_onnx) by other programs."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

FOREIGN = Path(__file__).parent / "foreign_onnx"
CLASSES, SIZE, WIDTH = 10, 8, 8
# of the plain network: a convolution, its bias, and a linear layer with its bias
PARAMS = 3 * WIDTH * 9 + WIDTH + WIDTH * CLASSES + CLASSES


def weights(dtype: Any = np.float32) -> dict[str, np.ndarray[Any, Any]]:
    """The plain network's."""
    random = np.random.default_rng(0)
    shapes = {"kernel": (WIDTH, 3, 3, 3), "offset": (WIDTH,), "matrix": (WIDTH, CLASSES), "bias": (CLASSES,)}
    return {name: random.normal(0, 0.3, shape).astype(dtype) for name, shape in shapes.items()}


def network(
    batch: int | str = "n",
    size: int | str = SIZE,
    opset: int = 17,
    dtype: Any = np.float32,
    channels_last: bool = False,
    before: Sequence[NodeProto] = (),
    classes: int = CLASSES,
) -> ModelProto:
    """Conv, ReLU, mean over the image, linear: images -> logits [batch, classes]."""
    known = weights(dtype)
    known["matrix"], known["bias"] = (
        np.resize(known[name], (*known[name].shape[:-1], classes)) for name in ("matrix", "bias")
    )
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shape = [batch, size, size, 3] if channels_last else [batch, 3, size, size]
    images = "ordered" if channels_last or before else "input"
    nodes = [
        *before,
        *([helper.make_node("Transpose", ["input"], ["ordered"], perm=[0, 3, 1, 2])] if channels_last else []),
        helper.make_node("Conv", [images, "kernel", "offset"], ["features"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix", "bias"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info("output", kind, [batch, classes])],
        [numpy_helper.from_array(values, name) for name, values in known.items()],
    )
    return _model(graph, opset)


def _model(graph: onnx.GraphProto, opset: int, *domains: tuple[str, int]) -> ModelProto:
    """What onnxruntime 1.16.0 reads as well: IR 9 at most, and below what the operator set needs."""
    ids = [helper.make_opsetid("", opset), *(helper.make_opsetid(*domain) for domain in domains)]
    return helper.make_model(graph, ir_version=6 if opset < 13 else 10 if opset > 20 else 8, opset_imports=ids)


def with_constants(opset: int = 17) -> ModelProto:
    """Weights as Constant nodes instead of initializers."""
    model = network(opset=opset)
    constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    nodes = [*constants, *copy.deepcopy(model.graph.node)]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def with_weights_as_inputs() -> ModelProto:
    """As exporters of 2018 wrote it: every initializer is a graph input as well, and so cannot be folded."""
    model = network()
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in model.graph.initializer
    )
    return model


def qdq(opset: int = 13) -> ModelProto:
    """int8 as quantisers write it today: int8 weights, each behind a DequantizeLinear, and int32 biases."""
    known = weights()
    nodes, tensors = (
        [],
        [
            numpy_helper.from_array(np.array(0.02, np.float32), "scale"),
            numpy_helper.from_array(np.array(0, np.int8), "zero"),
            numpy_helper.from_array(np.array(0, np.int32), "zero32"),
        ],
    )
    for name, values in known.items():
        small = values.ndim == 1
        kind = np.int32 if small else np.int8
        tensors.append(numpy_helper.from_array((values / 0.02).round().clip(-127, 127).astype(kind), f"{name}_q"))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero32" if small else "zero"], [name])
        )
    nodes += [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["input_q"]),
        helper.make_node("DequantizeLinear", ["input_q", "scale", "zero"], ["images"]),
    ]
    model = network(opset=opset)
    rest = copy.deepcopy(model.graph.node)
    rest[0].input[0] = "images"
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(tensors)
    model.graph.node.extend([*nodes, *rest])
    return model


def qoperator(opset: int = 13) -> ModelProto:
    """int8 in operators of their own: QLinearConv on uint8 images, with an int32 bias."""
    known = weights()
    tensors = [
        numpy_helper.from_array(np.array(0.02, np.float32), "scale"),
        numpy_helper.from_array(np.array(128, np.uint8), "middle"),
        numpy_helper.from_array(np.array(0, np.int8), "zero"),
        numpy_helper.from_array((known["kernel"] / 0.02).round().astype(np.int8), "kernel_q"),
        numpy_helper.from_array((known["offset"] / 0.0004).round().astype(np.int32), "offset_q"),
    ]
    convolution = ["input", "scale", "middle", "kernel_q", "scale", "zero", "scale", "middle", "offset_q"]
    nodes = [
        helper.make_node("QLinearConv", convolution, ["features"], kernel_shape=[3, 3]),
        helper.make_node("DequantizeLinear", ["features", "scale", "middle"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "qoperator",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", WIDTH, SIZE - 2, SIZE - 2])],
        tensors,
    )
    return _model(graph, opset)


def token_ids(rows: int = 16, opset: int = 17) -> ModelProto:
    """An embedding, a mask and truth values: three inputs of other types, with an open sequence."""
    table = np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"]),
        helper.make_node("Cast", ["mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["wide"]),
        helper.make_node("Mul", ["embedded", "wide"], ["masked"]),
        helper.make_node("Cast", ["flags"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["masked", "numbers"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tokens",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "sequence"]),
            helper.make_tensor_value_info("mask", TensorProto.INT32, ["n", "sequence"]),
            helper.make_tensor_value_info("flags", TensorProto.BOOL, [4]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", "sequence", 4])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([2]), "last")],
    )
    return _model(graph, opset)


def two_inputs() -> ModelProto:
    """Two images of other sizes, and two outputs."""
    images = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, size, size])
        for name, size in (("left", 8), ("right", 4))
    ]
    nodes = [
        *(helper.make_node("GlobalAveragePool", [name], [f"{name}_mean"]) for name in ("left", "right")),
        helper.make_node("Sub", ["left_mean", "right_mean"], ["difference"]),
        helper.make_node("Add", ["left_mean", "right_mean"], ["sum"]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 1, 1]) for name in ("difference", "sum")]
    return _model(helper.make_graph(nodes, "pair", images, outputs), 17)


def doubles() -> ModelProto:
    """A linear layer in double precision, for which the runtime has no convolution."""
    matrix = numpy_helper.from_array(weights(np.float64)["matrix"], "matrix")
    given = helper.make_tensor_value_info("input", TensorProto.DOUBLE, ["n", WIDTH])
    answer = helper.make_tensor_value_info("output", TensorProto.DOUBLE, ["n", CLASSES])
    node = helper.make_node("MatMul", ["input", "matrix"], ["output"])
    return _model(helper.make_graph([node], "doubles", [given], [answer], [matrix]), 17)


def with_branches() -> ModelProto:
    """An If whose branches hold weights of their own, chosen by an input."""

    def branch(name: str, factor: float) -> onnx.GraphProto:
        value = numpy_helper.from_array(np.full(3, factor, np.float32), f"{name}_weight")
        node = helper.make_node("Mul", ["input", f"{name}_weight"], [f"{name}_out"])
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, ["n", 3])
        return helper.make_graph([node], name, [], [out], [value])

    node = helper.make_node("If", ["flag"], ["output"], then_branch=branch("yes", 2.0), else_branch=branch("no", 3.0))
    inputs = [
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3]),
    ]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 3])]
    return _model(helper.make_graph([node], "branches", inputs, outputs), 17)


def save_external(model: ModelProto, path: Path) -> Path:
    """The model with its weights in a file beside it."""
    onnx.save_model(
        model, path, save_as_external_data=True, location=f"{path.stem}.data", size_threshold=0, convert_attribute=False
    )
    return path


def save_legacy_torch(path: Path) -> Path:
    """A small network as torch's older exporter writes it."""
    import warnings

    import torch

    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.Hardswish(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layers.eval(), (torch.zeros(1, 3, SIZE, SIZE),), path, dynamo=False, opset_version=17)
    return path


# kind -> how it is made
MADE: dict[str, Callable[[], ModelProto]] = {
    "fp32": network,
    "fp16": lambda: network(dtype=np.float16),
    "double": doubles,
    "int8 QDQ": qdq,
    "int8 QOperator, uint8 input": qoperator,
    "fixed batch": lambda: network(batch=4),
    "open size": lambda: network(size="side"),
    "NHWC": lambda: network(channels_last=True),
    "two inputs, two outputs": two_inputs,
    "token ids, mask, truth values": token_ids,
    "constants instead of initializers": with_constants,
    "initializers that are inputs": with_weights_as_inputs,
    "branches with weights": with_branches,
    "opset 11": lambda: network(opset=11),
    "opset 13": lambda: network(opset=13),
    "opset 15": lambda: network(opset=15),
    "opset 19": lambda: network(opset=19),
    "opset 21": lambda: network(opset=21),
}
DIMS = {"sequence": 5, "side": 9}
# what onnxruntime 1.16.0 is too old for
TOO_NEW = ("opset 21", "torch, newer exporter")


def write_all(folder: Path) -> dict[str, Path]:
    """Every kind as a file in the folder; the plain one, which others can be compared with, is first."""
    written = {}
    for number, (kind, make) in enumerate(MADE.items()):
        written[kind] = folder / f"{number:02d}.onnx"
        onnx.save(make(), written[kind])
    written["external data"] = save_external(network(), folder / "external.onnx")
    written["torch, older exporter"] = save_legacy_torch(folder / "legacy.onnx")
    return {
        **written,
        "torch, newer exporter": FOREIGN / "dynamo.onnx",
        "scikit-learn's forest": FOREIGN / "forest.onnx",
    }
