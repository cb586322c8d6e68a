"""Reading what others have written: all kinds of files, and files that are up to no good."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from harness.errors import HarnessError
from harness.model_files.onnx_file import OnnxFacts, read_facts
from tests.onnx_zoo import (
    DIMS,
    PARAMS,
    network,
    qdq,
    save_external,
    token_ids,
    with_branches,
    with_constants,
    write_all,
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OnnxFacts]:
    return {kind: read_facts(path) for kind, path in write_all(tmp_path_factory.mktemp("zoo")).items()}


def test_every_kind_is_read(zoo: dict[str, OnnxFacts]) -> None:
    assert len(zoo) >= 15
    for facts in zoo.values():
        assert facts.inputs and facts.outputs and facts.size_bytes > 0 and len(facts.sha256) == 64


def test_the_plain_network_s_parameters_count_alike_in_every_form(zoo: dict[str, OnnxFacts]) -> None:
    forms = [kind for kind in zoo if kind.startswith("opset")]
    forms += ["fp32", "fp16", "int8 QDQ", "fixed batch", "open size", "NHWC", "external data"]
    forms += ["constants instead of initializers", "initializers that are inputs"]
    assert {kind: zoo[kind].params for kind in forms} == dict.fromkeys(forms, PARAMS)
    assert zoo["branches with weights"].params == 6


@pytest.mark.parametrize("opset", [11, 13, 15, 19, 21])
def test_the_opset_is_the_one_of_the_standard_operators(zoo: dict[str, OnnxFacts], opset: int) -> None:
    assert zoo[f"opset {opset}"].opset == opset


def test_inputs_are_known_by_name_type_and_shape(zoo: dict[str, OnnxFacts]) -> None:
    spelled = [str(tensor) for tensor in zoo["token ids, mask, truth values"].inputs]
    assert spelled == ["ids: int64 [n, sequence]", "mask: int32 [n, sequence]", "flags: bool [4]"]
    assert [one.name for one in zoo["initializers that are inputs"].inputs] == ["input"]
    assert str(zoo["scikit-learn's forest"].inputs[0]) == "X: float32 [?, 4]"
    assert set(DIMS) <= {str(one) for facts in zoo.values() for tensor in facts.inputs for one in tensor.shape}


def test_external_data_is_hashed_and_counts_to_the_size(tmp_path: Path) -> None:
    path = save_external(network(), tmp_path / "model.onnx")
    before = read_facts(path)
    data = tmp_path / "model.data"
    assert before.size_bytes == path.stat().st_size + data.stat().st_size
    changed = bytearray(data.read_bytes())
    changed[0] ^= 1
    data.write_bytes(changed)
    after = read_facts(path)
    assert after.sha256 == before.sha256
    assert after.external_sha256.keys() == before.external_sha256.keys() == {"model.data"}
    assert after.external_sha256 != before.external_sha256


# --- What is refused -------------------------------------------------------------------------------------------------


def missing(path: Path) -> None:
    pass


def directory(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def empty(path: Path) -> None:
    path.touch()


def no_protobuf(path: Path) -> None:
    path.write_bytes(b"\x3a\xff\x7f")


def text(path: Path) -> None:
    path.write_text("hello")


def two_gigabytes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**31)


def unreadable(path: Path) -> None:
    onnx.save(network(), path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")


def changed(change: Callable[[ModelProto], None], model: Callable[[], ModelProto] = network) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        made = model()
        change(made)
        path.write_bytes(made.SerializeToString())

    return write


def huge_weight(model: ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**40]


def huge_constant(model: ModelProto) -> None:
    model.graph.node[0].attribute[0].t.dims[:] = [2**40, 2**40]


def huge_weight_in_a_branch(model: ModelProto) -> None:
    model.graph.node[0].attribute[0].g.initializer[0].dims[:] = [2**40]


def huge_weight_in_numbers(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0, 2.0])


def short_weight(model: ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-1]


def short_int8(model: ModelProto) -> None:
    tensor = next(one for one in model.graph.initializer if one.data_type == TensorProto.INT8 and one.dims)
    tensor.raw_data = tensor.raw_data[:-1]


def negative(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -8


def unknown_weight_type(model: ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def unknown_input_type(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 99


def bfloat16_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.BFLOAT16


def text_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def sequence_input(model: ModelProto) -> None:
    model.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("input", TensorProto.FLOAT, None))


def dimension_of_zero(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 0


def no_rank(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def no_inputs(model: ModelProto) -> None:
    (value,) = model.graph.input
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 3, 8, 8), np.float32), value.name))


def no_outputs(model: ModelProto) -> None:
    del model.graph.output[:]


def no_nodes(model: ModelProto) -> None:
    del model.graph.node[:]


BAD = {
    "no such file": missing,
    "is a directory, not an ONNX file": directory,
    "is a FIFO": fifo,
    "is a socket": unix_socket,
    "is a device": zeros,
    "cannot be read": unreadable,
    "there is no graph in it": empty,
    "not a readable ONNX file": no_protobuf,
    "2.0 GiB is more than protobuf can read (2 GiB); save the model with its weights as external data": two_gigabytes,
    "tensor 'kernel' claims 1099511627776 x 1099511627776 FLOAT": changed(huge_weight),
    "claims 1099511627776 x 1099511627776 FLOAT": changed(huge_constant, with_constants),
    "tensor 'no_weight' claims 1099511627776 FLOAT": changed(huge_weight_in_a_branch, with_branches),
    "(864 bytes), and 8 are there": changed(huge_weight_in_numbers),
    "(864 bytes), and 863 are there": changed(short_weight),
    "INT8 (216 bytes), and 215 are there": changed(short_int8, qdq),
    "has a negative dimension": changed(negative),
    "tensor 'kernel' is of the unknown data type 99": changed(unknown_weight_type),
    "input 'input' is of the unknown data type 99": changed(unknown_input_type),
    "is of BFLOAT16, which cannot be made from random numbers": changed(bfloat16_input),
    "is of STRING": changed(text_input),
    "is of no tensor type": changed(sequence_input),
    "has a dimension of 0": changed(dimension_of_zero),
    "does not say how many dimensions it has": changed(no_rank),
    "the model has no inputs": changed(no_inputs),
    "the model has no outputs": changed(no_outputs),
    "there is no graph in it ": changed(no_nodes),
}


@pytest.mark.parametrize("said", BAD)
def test_a_bad_file_is_named_with_what_is_wrong_in_one_line(tmp_path: Path, said: str) -> None:
    path = tmp_path / "bad.onnx"
    BAD[said](path)
    with pytest.raises(HarnessError) as caught:
        read_facts(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert said.strip() in message
    assert "\n" not in message


def test_text_is_no_onnx_file(tmp_path: Path) -> None:
    text(tmp_path / "a.onnx")
    with pytest.raises(HarnessError, match=r"not a readable ONNX file|there is no graph in it"):
        read_facts(tmp_path / "a.onnx")


def elsewhere(folder: Path) -> None:
    (folder / "model.data").rename(folder.parent / "model.data")
    (folder / "model.data").symlink_to(folder.parent / "model.data")


def gone(folder: Path) -> None:
    (folder / "model.data").unlink()


def cut(folder: Path) -> None:
    data = folder / "model.data"
    data.write_bytes(data.read_bytes()[:-1])


def named(location: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (elsewhere, "is not in its own folder"),
        (named("../model.data"), "is not in its own folder"),
        (named("/etc/passwd"), "is not in its own folder"),
        (named(""), "is not in its own folder"),
        (gone, "its external data 'model.data' is not beside it"),
        (cut, "are there"),
    ],
)
def test_external_data_is_read_from_the_file_s_own_folder_alone(
    tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    path = save_external(network(), folder / "model.onnx")
    change(folder)
    with pytest.raises(HarnessError, match=said):
        read_facts(path)


def test_a_file_may_be_a_link_and_its_inputs_may_be_token_ids(tmp_path: Path) -> None:
    onnx.save(token_ids(), tmp_path / "real.onnx")
    (tmp_path / "link.onnx").symlink_to(tmp_path / "real.onnx")
    assert read_facts(tmp_path / "link.onnx").sha256 == read_facts(tmp_path / "real.onnx").sha256
