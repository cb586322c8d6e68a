import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.bench.environments import bench_python
from harness.commands.measure_one import _folder, measure_one
from harness.datasets.stand_in import CLASSES, MEAN, STD
from harness.errors import HarnessError
from tests.bench_kit import OLD_PYTHON
from tests.command import tiny_matrix

SIZE = 16
PARAMS = 3 * CLASSES + CLASSES


def network(path: Path, **metadata: Any) -> Path:
    """A file that answers every image with class 7, whatever it shows."""
    weight = numpy_helper.from_array(np.zeros((3, CLASSES), np.float32), "weight")
    bias = numpy_helper.from_array(np.eye(CLASSES, dtype=np.float32)[7], "bias")
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["output"]),
        ],
        "constant",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", CLASSES])],
        [weight, bias],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    says = {"key": "v2-0", "mean": str(list(MEAN)), "std": str(list(STD)), "image_size": str(SIZE), "data": "stand_in"}
    helper.set_model_props(model, {name: text for name, text in (says | metadata).items() if text is not None})
    onnx.save(model, path)
    return path


@pytest.mark.skipif(not OLD_PYTHON.is_file(), reason="no .venvs/bench-1.16.0: `make setup` makes it")
@pytest.mark.parametrize("batch", ["n", 7])
def test_a_file_that_says_nothing_of_itself_is_measured_with_what_it_was_assumed_to_be(
    tmp_path: Path, batch: int | str
) -> None:
    model = onnx.load(network(tmp_path / "ours.onnx"))
    del model.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        dimension.Clear()
        setattr(dimension, "dim_param" if isinstance(batch, str) else "dim_value", batch)
    onnx.save(model, tmp_path / "theirs.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    matrix = tiny_matrix(tmp_path, ["base"])
    found = measure_one(tmp_path / "theirs.onnx", matrix, "quick", tmp_path / "no-data")
    assert (found.params, found.accuracy_pct) == (PARAMS, 1.0)
    assert any("normalised with the data set's mean" in text for text in found.assumptions)


def test_a_file_that_says_how_it_is_normalised_is_not_told_otherwise(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="says itself how its images are normalised"):
        measure_one(
            network(tmp_path / "a.onnx"), tiny_matrix(tmp_path, ["base"]), "quick", None, ((0.5, 0.5, 0.5), None)
        )


@pytest.mark.skipif(not OLD_PYTHON.is_file(), reason="no .venvs/bench-1.16.0: `make setup` makes it")
def test_a_file_is_measured_on_the_data_set_that_it_was_trained_on(tmp_path: Path) -> None:
    assert bench_python("onnxruntime-1.16.0") == OLD_PYTHON
    matrix = tiny_matrix(tmp_path, ["base"])
    found = measure_one(network(tmp_path / "model.onnx"), matrix, "quick", tmp_path / "no-data")
    # one image in a hundred is of class 7
    assert (found.params, found.accuracy_pct) == (PARAMS, 1.0)
    assert (found.runtime, found.threads) == ("onnxruntime 1.16.0", 1)
    assert (found.measured_on, found.trained_on_it) == ("stand-in images", True)
    assert found.latency.value > 0
    assert found.latency.covers(found.latency.value)
    assert not list(tmp_path.rglob("*.json")), "it leaves no records"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"data": "imagenet"}, "unknown dataset 'imagenet'"),
    ],
)
def test_a_file_that_says_too_little_of_itself_is_named(tmp_path: Path, metadata: dict[str, Any], said: str) -> None:
    model = network(tmp_path / "model.onnx", **metadata)
    with pytest.raises(HarnessError, match=said):
        measure_one(model, tiny_matrix(tmp_path, ["base"]), "quick")


def test_a_log_that_an_error_names_stays_and_nothing_else_does() -> None:
    with pytest.raises(HarnessError), _folder() as here:
        (here / "raw/threads-1").mkdir(parents=True)
        (here / "raw/threads-1/model.log").write_text("why")
        raise HarnessError("see raw/threads-1/model.log")
    assert (here / "raw/threads-1/model.log").read_text() == "why"
    shutil.rmtree(here)
    with pytest.raises(HarnessError), _folder() as here:
        (here / "raw").mkdir()
        raise HarnessError("no log")
    assert not here.exists()


def test_a_named_folder_without_the_data_is_an_error(tmp_path: Path) -> None:
    model = network(tmp_path / "model.onnx", data="cifar100")
    with pytest.raises(HarnessError, match=rf"--data-dir {tmp_path}: CIFAR-100 is not in it"):
        measure_one(model, tiny_matrix(tmp_path, ["base"]), "quick", tmp_path)


@pytest.mark.parametrize("content", [None, b"cut short"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    said = "model.onnx: no such file" if content is None else "model.onnx: not a readable ONNX file"
    with pytest.raises(HarnessError, match=said):
        measure_one(path, tiny_matrix(tmp_path, ["base"]), "quick")
