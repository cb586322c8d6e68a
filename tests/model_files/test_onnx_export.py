import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from harness.architectures import build, parameter_count
from harness.datasets import Images, normalise, resize
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.model_files import onnx_export
from harness.model_files.onnx_export import Exported, export, flush, parity
from harness.plan.specs import Choice, Network
from tests.drop_in import ARCHITECTURE, imported
from tests.training_kit import network, same_weights, scatter, thin

PROVENANCE = {"cell": "c", "key": "k" * 16, "title": "C", "weights_sha256": "0" * 64, "data": "stand_in", "n": 3}
NETWORK = thin("resnet18")
SIZE = 16
OPSET = 17


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return network(0, True, NETWORK)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export") / "model.onnx"


@pytest.fixture(scope="module")
def exported(model: nn.Module, path: Path, images: Images) -> Exported:
    return export(model, path, images, SIZE, OPSET, PROVENANCE)


@pytest.fixture(scope="module")
def graph(exported: Exported, path: Path) -> onnx.ModelProto:
    return onnx.load(path)


def run(path: Path, batch: torch.Tensor) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(["output"], {"input": batch.numpy()})
    return np.asarray(found)


# --- The file --------------------------------------------------------------------------------------------------------


def test_the_reported_facts_are_those_of_the_file(exported: Exported, path: Path) -> None:
    assert exported.onnx_sha256 == file_sha256(path)
    assert exported.onnx_bytes == path.stat().st_size
    assert list(path.parent.iterdir()) == [path]


def test_the_export_passes_its_parity_gate(exported: Exported) -> None:
    assert exported.parity.holds
    assert exported.parity.max_abs_diff < 1e-4
    assert exported.parity.top1_agreement_pct == 100
    assert exported.parity.limit == 1e-3 * max(1.0, exported.parity.largest_logit)


def test_batchnorm_is_folded_and_its_parameters_are_gone(
    graph: onnx.ModelProto, exported: Exported, model: nn.Module
) -> None:
    kinds = [node.op_type for node in graph.graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Conv") == sum(isinstance(module, nn.Conv2d) for module in model.modules())
    shifts = sum(module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert exported.params == parameter_count(model) - shifts


@pytest.mark.parametrize("opset", [13, 17])
def test_an_old_runtime_can_read_it(tmp_path: Path, model: nn.Module, images: Images, opset: int) -> None:
    export(model, tmp_path / "m.onnx", images, SIZE, opset, {})
    graph = onnx.load(tmp_path / "m.onnx")
    assert graph.ir_version == 9
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", opset)]


@pytest.mark.parametrize("batch", [1, 3])
def test_the_batch_size_is_free(exported: Exported, path: Path, model: nn.Module, batch: int) -> None:
    given = torch.randn(batch, 3, SIZE, SIZE)
    with torch.no_grad():
        np.testing.assert_allclose(run(path, given), model(given).numpy(), atol=1e-4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, SIZE, SIZE]


def test_the_file_says_where_it_comes_from_and_how_to_feed_it(graph: onnx.ModelProto, images: Images) -> None:
    said = {entry.key: entry.value for entry in graph.metadata_props}
    assert {name: said[name] for name in PROVENANCE} == {**PROVENANCE, "n": "3"}
    assert json.loads(said["mean"]) == list(images.mean) and json.loads(said["std"]) == list(images.std)
    assert json.loads(said["image_size"]) == SIZE


def test_mean_and_deviation_are_those_of_the_data_set(tmp_path: Path, model: nn.Module, images: Images) -> None:
    other = replace(images, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    export(model, tmp_path / "m.onnx", other, SIZE, OPSET, {})
    said = {entry.key: json.loads(entry.value) for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert (said["mean"], said["std"]) == ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])


def test_exporting_leaves_the_model_unchanged(exported: Exported, model: nn.Module) -> None:
    assert same_weights(model, network(0, True, NETWORK))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_model_in_training_mode_is_exported_as_in_evaluation_mode(
    tmp_path: Path, exported: Exported, images: Images
) -> None:
    model = network(0, True, NETWORK).train()
    assert export(model, tmp_path / "m.onnx", images, SIZE, OPSET, PROVENANCE) == exported
    assert model.training


def test_the_same_model_is_exported_to_the_same_bytes(
    tmp_path: Path, exported: Exported, model: nn.Module, images: Images
) -> None:
    assert export(model, tmp_path / "again.onnx", images, SIZE, OPSET, PROVENANCE) == exported


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("spec", [thin(), thin(stem="imagenet"), thin("resnet18", "imagenet")])
def test_other_networks_and_layouts_pass_the_gate(
    tmp_path: Path, images: Images, spec: Network, channels_last: bool
) -> None:
    model = network(spec=spec)
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    done = export(model, tmp_path / "m.onnx", images, 32, OPSET, {})
    assert done.parity.max_abs_diff < 1e-4
    assert not any(node.op_type == "BatchNormalization" for node in onnx.load(tmp_path / "m.onnx").graph.node)


def test_a_network_from_outside_the_package_passes_the_gate(tmp_path: Path, images: Images) -> None:
    """Depthwise convolutions, LayerNorm and Linear layers."""
    ARCHITECTURE.write(tmp_path)
    with imported(tmp_path):
        model = scatter(build(Network(Choice(ARCHITECTURE.name, {"expansion": 2}), 10, 1.0, "cifar")))
        done = export(model, tmp_path / "m.onnx", images, SIZE, OPSET, {})
    assert done.parity.holds
    kinds = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert "BatchNormalization" not in kinds and "LayerNormalization" in kinds


# --- Folding and flushing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_folding_batchnorm_costs_no_more_than_rounding(tmp_path: Path, images: Images, stem: str) -> None:
    """The file's logits are as near to those in double precision, BatchNorm unfolded, as torch's own are."""
    model = network(pruned=True, spec=thin(stem=stem))
    export(model, tmp_path / "m.onnx", images, 32, OPSET, {})
    batch = normalise(images.pixels[:16], images.mean, images.std)
    with torch.no_grad():
        exact = deepcopy(model).double()(batch.double()).numpy()
        plain = np.abs(model(batch).numpy() - exact).max()
    folded = np.abs(run(tmp_path / "m.onnx", batch) - exact).max()
    assert folded < max(4 * plain, 1e-5 * np.abs(exact).max())


def initialised(*arrays: npt.NDArray[Any]) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, f"t{number}") for number, array in enumerate(arrays)]
    return onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], initializer=tensors))


def test_flushing_sets_weights_that_cannot_matter_to_zero_and_counts_them() -> None:
    weights = np.array([[1e-21, -1e-30, 1e-42, 2e-20, -0.5, 0.0]], dtype=np.float32)
    proto = initialised(weights, np.array([1e-25, 3.0], dtype=np.float32), np.array([0, 1], dtype=np.int64))
    assert flush(proto) == 4
    first, second, third = (numpy_helper.to_array(tensor) for tensor in proto.graph.initializer)
    assert first.tolist() == [[0, 0, 0, weights[0, 3], -0.5, 0]] and first.dtype == np.float32
    assert second.tolist() == [0, 3] and third.tolist() == [0, 1] and third.dtype == np.int64
    assert [tensor.name for tensor in proto.graph.initializer] == ["t0", "t1", "t2"]
    assert flush(proto) == 0


def test_denormal_weights_do_not_reach_the_file(tmp_path: Path, model: nn.Module, images: Images) -> None:
    tiny = deepcopy(model)
    classifier = tiny.get_submodule("fc")
    assert isinstance(classifier, nn.Linear)
    with torch.no_grad():
        classifier.weight[:3] = 1e-40
        classifier.weight[3] = 1e-25
    done = export(tiny, tmp_path / "m.onnx", images, SIZE, OPSET, {})
    assert done.flushed_weights == 4 * classifier.in_features
    assert done.denormal_weights == 0
    for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer:
        values = np.abs(numpy_helper.to_array(tensor))
        assert not ((values > 0) & (values < 1e-20)).any()


# --- The gate --------------------------------------------------------------------------------------------------------


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One weight of the file is wrong before the gate reads it."""

    def damaged(proto: onnx.ModelProto) -> int:
        first = next(tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4)
        values = numpy_helper.to_array(first).copy()
        values[0, 0, 0, 0] += 1.0
        first.CopyFrom(numpy_helper.from_array(values, first.name))
        return flush(proto)

    monkeypatch.setattr(onnx_export, "flush", damaged)
    yield


@pytest.mark.usefixtures("damage")
def test_one_wrong_weight_fails_the_gate_and_leaves_no_file(tmp_path: Path, model: nn.Module, images: Images) -> None:
    with pytest.raises(HarnessError, match=r"parity gate.*differs from torch by .* top-1 agrees on"):
        export(model, tmp_path / "m.onnx", images, SIZE, OPSET, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("damage")
def test_a_failed_export_leaves_the_file_before_it_in_place(tmp_path: Path, model: nn.Module, images: Images) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"good")
    with pytest.raises(HarnessError):
        export(model, path, images, SIZE, OPSET, {})
    assert path.read_bytes() == b"good" and list(tmp_path.iterdir()) == [path]


def test_a_model_whose_logits_are_not_numbers_fails_the_gate(tmp_path: Path, model: nn.Module, images: Images) -> None:
    broken = deepcopy(model)
    nn.init.constant_(broken.get_parameter("fc.bias"), float("nan"))
    with pytest.raises(HarnessError, match="parity gate"):
        export(broken, tmp_path / "m.onnx", images, SIZE, OPSET, {})


@pytest.mark.parametrize("row", [0, 255])
@pytest.mark.parametrize(("part", "holds"), [(0.9, True), (1.2, False)])
def test_the_gate_compares_all_its_images_with_the_stated_tolerance(
    tmp_path: Path, images: Images, row: int, part: float, holds: bool
) -> None:
    """One logit of one image is moved by a part of the tolerance: a step in the model that only that image crosses."""
    logits = torch.rand(300, 5, generator=torch.Generator().manual_seed(0)) * 4
    moved = logits.clone()
    limit = 1e-3 * float(logits[:256].max())
    moved[row, int(logits[row].argmin())] += part * limit
    onnx_export._trace(Lookup(moved, images), tmp_path / "m.onnx", 32, OPSET)
    found = parity(Lookup(logits, images), tmp_path / "m.onnx", images, 32)
    assert found.max_abs_diff == pytest.approx(part * limit, rel=1e-2)
    assert found.largest_logit == pytest.approx(float(logits[:256].max()))
    assert (found.holds, found.top1_agreement_pct) == (holds, 100)


class Lookup(nn.Module):
    """Gives the first images, told apart by their first pixels, the logits of a table."""

    def __init__(self, logits: torch.Tensor, images: Images) -> None:
        super().__init__()
        known = normalise(resize(images.pixels[:256], 32), images.mean, images.std).flatten(1)[:, :64]
        self.register_buffer("known", known)
        self.register_buffer("logits", logits[:256])

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        distance = (batch.flatten(1)[:, None, :64] - self.get_buffer("known")[None]).abs().sum(2)
        return self.get_buffer("logits")[distance.argmin(1)]


def test_a_file_that_the_runtime_cannot_read_is_named(tmp_path: Path, model: nn.Module, images: Images) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not onnx")
    with pytest.raises(HarnessError, match=r"m\.onnx: ONNX Runtime cannot run the export"):
        parity(model, tmp_path / "m.onnx", images, SIZE)
