"""One network in every form that a file may have: it has the same number of parameters in each of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

from harness.model_files.parameters import onnx_parameter_count

Array = npt.NDArray[np.float32]
WEIGHTS = {"kernel": (8, 3, 3, 3), "bias": (8,), "matrix": (8, 10), "shift": (10,)}
PARAMS = 8 * 27 + 8 + 80 + 10


def drawn() -> list[TensorProto]:
    generator = np.random.default_rng(0)
    return [
        numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)
        for name, shape in WEIGHTS.items()
    ]


def network(
    initializers: list[TensorProto] | None = None, before: list[NodeProto] | None = None, prefix: str = ""
) -> ModelProto:
    """Convolution, ReLU6, pooling, and a matrix with a bias of its own; shapes and bounds are no parameters."""
    own = [
        numpy_helper.from_array(np.array([0, -1]), "shape"),
        numpy_helper.from_array(np.array(0, np.float32), "low"),
        numpy_helper.from_array(np.array(6, np.float32), "high"),
    ]
    nodes = [
        *(before or []),
        helper.make_node("Conv", ["input", f"{prefix}kernel", f"{prefix}bias"], ["convolved"]),
        helper.make_node("Clip", ["convolved", "low", "high"], ["clipped"]),
        helper.make_node("GlobalAveragePool", ["clipped"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", f"{prefix}matrix"], ["product"]),
        helper.make_node("Add", ["product", f"{prefix}shift"], ["output"]),
    ]
    weights = drawn() if initializers is None else initializers
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 10])],
        [*weights, *own],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return model


def as_constants() -> ModelProto:
    return network([], [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in drawn()])


def of_another_type(kind: int) -> ModelProto:
    """Weights stored in fewer bits and widened when they are used."""
    small = [
        helper.make_tensor(tensor.name, kind, tensor.dims, numpy_helper.to_array(tensor).flatten())
        for tensor in drawn()
    ]
    casts = [helper.make_node("Cast", [name], [f"wide-{name}"], to=TensorProto.FLOAT) for name in WEIGHTS]
    return network(small, casts, prefix="wide-")


class Images(CalibrationDataReader):  # type: ignore[misc]  # the quantiser has no type hints
    """What the quantiser is calibrated with."""

    def __init__(self) -> None:
        self.left = 3

    def get_next(self) -> dict[str, Array] | None:
        self.left -= 1
        images = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
        return {"input": images} if self.left >= 0 else None


def quantised(folder: Path, form: QuantFormat, per_channel: bool) -> ModelProto:
    onnx.save(network(), folder / "float.onnx")
    quantize_static(folder / "float.onnx", folder / "int8.onnx", Images(), quant_format=form, per_channel=per_channel)
    return onnx.load(folder / "int8.onnx")


def quantised_as_it_runs(folder: Path) -> ModelProto:
    onnx.save(network(), folder / "float.onnx")
    quantize_dynamic(folder / "float.onnx", folder / "int8.onnx")
    return onnx.load(folder / "int8.onnx")


def beside_the_file(folder: Path) -> ModelProto:
    """Weights in a file of their own, which is not here."""
    onnx.save(network(), folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "w.bin").unlink()
    return onnx.load(folder / "m.onnx", load_external_data=False)


def within_a_branch(_: Path) -> ModelProto:
    """The last weight is used in a branch of a condition, and is part of it."""
    graph = network().graph
    kept = {tensor.name: tensor for tensor in graph.initializer}

    def branch(name: str, node: NodeProto, weights: list[TensorProto]) -> GraphProto:
        return helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 10])], weights
        )

    added = branch("added", helper.make_node("Add", ["product", "shift"], ["added"]), [kept.pop("shift")])
    plain = branch("plain", helper.make_node("Identity", ["product"], ["plain"]), [])
    nodes = [
        *graph.node[:-1],
        helper.make_node("Constant", [], ["chosen"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["chosen"], ["output"], then_branch=added, else_branch=plain),
    ]
    whole = helper.make_graph(nodes, "conditional", graph.input, graph.output, list(kept.values()))
    model = helper.make_model(whole, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return model


FORMS: dict[str, Callable[[Path], ModelProto]] = {
    "float32": lambda _: network(),
    "constants": lambda _: as_constants(),
    "float16": lambda _: of_another_type(TensorProto.FLOAT16),
    "bfloat16": lambda _: of_another_type(TensorProto.BFLOAT16),
    "float64": lambda _: of_another_type(TensorProto.DOUBLE),
    "int8 between QDQ": lambda folder: quantised(folder, QuantFormat.QDQ, per_channel=False),
    "int8 between QDQ, a scale for each channel": lambda folder: quantised(folder, QuantFormat.QDQ, per_channel=True),
    "int8 in operators": lambda folder: quantised(folder, QuantFormat.QOperator, per_channel=False),
    "external data": beside_the_file,
    "in a branch": within_a_branch,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_network_has_as_many_parameters_in_every_form(tmp_path: Path, form: str) -> None:
    model = FORMS[form](tmp_path)
    assert onnx_parameter_count(model) == PARAMS
    if form != "external data":
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
        (answer,) = session.run(None, {"input": np.ones((1, 3, 8, 8), np.float32)})
        assert answer.shape == (1, 10), "it is a network that runs"


def test_what_only_says_how_to_read_integers_does_not_count(tmp_path: Path) -> None:
    """Dynamic quantisation leaves a single product of scales, which no rule can tell from a weight."""
    assert 0 <= onnx_parameter_count(quantised_as_it_runs(tmp_path)) - PARAMS <= 4


def test_a_weight_counts_once_however_often_it_is_used() -> None:
    again = [helper.make_node("Mul", ["shift", "shift"], ["square"])]
    assert onnx_parameter_count(network(before=again)) == PARAMS


def test_only_headers_are_read() -> None:
    model = network()
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == "kernel")
    kernel.dims[0] = 2**40
    assert onnx_parameter_count(model) == PARAMS + (2**40 - 8) * 27
