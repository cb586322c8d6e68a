import platform
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.bench.layout import convolutions
from harness.bench.session import build_options
from tests.bench_kit import tiny_network


def chain(channels: list[int]) -> bytes:
    """Convolutions one after the other, with these numbers of channels between them."""
    nodes, kernels, last = [], [], "input"
    for number, (before, after) in enumerate(pairwise(channels)):
        kernel = np.full((after, before, 3, 3), 0.1, np.float32)
        kernels.append(numpy_helper.from_array(kernel, f"kernel{number}"))
        nodes.append(helper.make_node("Conv", [last, f"kernel{number}"], [f"conv{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"]))
        last = f"relu{number}"
    graph = helper.make_graph(
        [*nodes, helper.make_node("GlobalAveragePool", [last], ["output"])],
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", channels[0], 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", channels[-1], 1, 1])],
        kernels,
    )
    model: onnx.ModelProto = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    return model.SerializeToString()


@pytest.mark.parametrize("length", [1, 2, 5])
def test_every_convolution_is_counted(length: int) -> None:
    assert convolutions(chain([3] + [32] * length), build_options(1))[0] == length


def test_a_model_without_convolutions_has_none() -> None:
    assert convolutions(chain([3]), build_options(1)) == (0, 0)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have other layouts")
def test_channels_that_do_not_fit_the_vector_width_fall_out_of_the_fast_layout() -> None:
    assert convolutions(chain([3, 32, 32, 32]), build_options(1)) == (3, 3)
    # the one that reads 30 channels
    assert convolutions(chain([3, 30, 32, 32]), build_options(1)) == (3, 2)


def test_a_file_with_metadata_is_read_as_well() -> None:
    network = tiny_network(8, 1.0, {"key": "value " * 1000})
    assert convolutions(network.SerializeToString(), build_options(1))[0] == 1
