import platform
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.bench.engines.onnxruntime import ENGINE
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


def convolutions(model: bytes) -> tuple[int, int]:
    facts = ENGINE.facts(model, threads=1)
    return facts["convolutions"], facts["nchwc_convolutions"]


def test_the_version_is_the_installed_package_s() -> None:
    assert ENGINE.version() == onnxruntime.__version__


def test_a_model_that_is_opened_can_be_run() -> None:
    infer = ENGINE.open(tiny_network(8, 1.0, {}).SerializeToString(), threads=1)
    images = np.stack([np.full((3, 8, 8), value, np.float32) for value in (1, 2)])
    (output,) = infer({"input": images})
    np.testing.assert_allclose(output, [[1] * 3, [2] * 3])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_session_gets_the_options_that_go_on_record(threads: int) -> None:
    given, recorded = ENGINE.session_options(threads), ENGINE.options(threads)
    session = onnxruntime.InferenceSession(tiny_network(8, 1.0, {}).SerializeToString(), given)
    assert recorded["intra_op_num_threads"] == threads
    assert recorded["session.set_denormal_as_zero"] == "1"
    assert recorded["provider"] == "CPUExecutionProvider"
    used = session.get_session_options()
    for name, value in recorded.items():
        if name.startswith("session."):
            assert used.get_session_config_entry(name) == value
        elif name != "provider":
            assert getattr(used, name) == value or getattr(used, name).name == value


# --- Convolutions in the fast layout ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 5])
def test_every_convolution_is_counted(length: int) -> None:
    assert convolutions(chain([3] + [32] * length))[0] == length


def test_a_model_without_convolutions_has_none() -> None:
    assert convolutions(chain([3])) == (0, 0)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have other layouts")
def test_channels_that_do_not_fit_the_vector_width_leave_the_fast_layout() -> None:
    assert convolutions(chain([3, 32, 32, 32])) == (3, 3)
    # the convolution that reads 30 channels
    assert convolutions(chain([3, 30, 32, 32])) == (3, 2)


def test_metadata_does_not_get_in_the_way_of_counting() -> None:
    network = tiny_network(8, 1.0, {"key": "value " * 1000})
    assert convolutions(network.SerializeToString())[0] == 1
