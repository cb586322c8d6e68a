import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from harness.architectures.resnet import ResNet50, parameter_count
from harness.errors import HarnessError
from harness.export import onnx_export as module
from harness.export.onnx_export import Exported, export, flush, fold, parity
from harness.files import file_sha256
from harness.training.augment import MEAN, STD, normalise, resize
from harness.training.data import Images
from tests.training_kit import network, pruned_widths, same_weights

PROVENANCE = {"cell": "c", "key": "k" * 16, "title": "C", "weights_sha256": "0" * 64, "data": "stand-in", "n": 3}
SIZE = 16


@pytest.fixture(scope="module")
def model() -> ResNet50:
    return network(widths=pruned_widths())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export") / "model.onnx"


@pytest.fixture(scope="module")
def exported(model: ResNet50, path: Path, images: Images) -> Exported:
    return export(model, path, images, SIZE, PROVENANCE)


@pytest.fixture(scope="module")
def graph(exported: Exported, path: Path) -> onnx.ModelProto:
    return onnx.load(path)


# --- The file --------------------------------------------------------------------------------------------------------


def test_what_is_said_about_the_file_is_true(exported: Exported, path: Path) -> None:
    assert exported.onnx_sha256 == file_sha256(path)
    assert exported.onnx_bytes == path.stat().st_size
    assert list(path.parent.iterdir()) == [path]


def test_the_export_passes_its_parity_gate(exported: Exported) -> None:
    assert exported.parity_max_abs_diff < 1e-4
    assert exported.parity_top1_agreement_pct == 100


def test_batchnorm_is_gone_and_its_parameters_with_it(
    graph: onnx.ModelProto, exported: Exported, model: ResNet50
) -> None:
    kinds = [node.op_type for node in graph.graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Conv") == sum(isinstance(module, nn.Conv2d) for module in model.modules())
    shifts = sum(module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert exported.params == parameter_count(model) - shifts


def test_an_old_runtime_can_read_it(graph: onnx.ModelProto) -> None:
    assert graph.ir_version == 9
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 17)]


@pytest.mark.parametrize("batch", [1, 3])
def test_the_batch_size_is_free(exported: Exported, path: Path, model: ResNet50, batch: int) -> None:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = torch.randn(batch, 3, SIZE, SIZE)
    (found,) = session.run(["output"], {"input": given.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, model(given).numpy(), atol=1e-4)
    assert session.get_inputs()[0].shape == ["batch", 3, SIZE, SIZE]


def test_the_file_says_where_it_comes_from_and_how_to_feed_it(graph: onnx.ModelProto) -> None:
    said = {entry.key: entry.value for entry in graph.metadata_props}
    assert {name: said[name] for name in PROVENANCE} == {**PROVENANCE, "n": "3"}
    assert json.loads(said["mean"]) == list(MEAN) and json.loads(said["std"]) == list(STD)
    assert json.loads(said["image_size"]) == SIZE


def test_exporting_leaves_the_model_as_it_was(exported: Exported, model: ResNet50) -> None:
    assert same_weights(model, network(widths=pruned_widths()))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_same_model_is_exported_to_the_same_bytes(
    tmp_path: Path, exported: Exported, model: ResNet50, images: Images
) -> None:
    assert export(model, tmp_path / "again.onnx", images, SIZE, PROVENANCE) == exported


# --- Folding and flushing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_a_folded_network_answers_alike_without_batchnorm(stem: str) -> None:
    whole = network(widths=pruned_widths(), stem=stem)
    folded = fold(whole)
    given = torch.randn(2, 3, 32, 32)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in whole.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(given), whole(given), atol=1e-4, rtol=1e-4)


def test_flushing_zeroes_what_cannot_matter_and_counts_it() -> None:
    layer = nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1e-21, -1e-30, 1e-42, 2e-20, -0.5, 0.0]]))
    assert flush(layer) == 3
    assert layer.weight.tolist()[0] == pytest.approx([0, 0, 0, 2e-20, -0.5, 0], rel=1e-6, abs=0)
    assert flush(layer) == 0


def test_denormal_weights_do_not_reach_the_file(tmp_path: Path, model: ResNet50, images: Images) -> None:
    tiny = deepcopy(model)
    with torch.no_grad():
        tiny.fc.weight[:3] = 1e-40
        tiny.fc.weight[3] = 1e-25
    done = export(tiny, tmp_path / "m.onnx", images, SIZE, {})
    assert done.flushed_weights == 4 * tiny.fc.in_features
    assert done.denormal_weights == 0
    for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer:
        values = np.abs(numpy_helper.to_array(tensor))
        assert not ((values > 0) & (values < 1e-20)).any()


# --- The gate --------------------------------------------------------------------------------------------------------


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(model: ResNet50) -> ResNet50:
        folded = fold(model)
        with torch.no_grad():
            folded.conv1.weight[0, 0, 1, 1] += 1.0
        return folded

    monkeypatch.setattr(module, "fold", damaged)


@pytest.mark.usefixtures("damage")
def test_one_wrong_weight_fails_the_gate_and_leaves_no_file(tmp_path: Path, model: ResNet50, images: Images) -> None:
    with pytest.raises(HarnessError, match=r"parity gate.*differs from torch by .* top-1 agrees on"):
        export(model, tmp_path / "m.onnx", images, SIZE, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("damage")
def test_a_good_file_outlives_a_failed_export(tmp_path: Path, model: ResNet50, images: Images) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"good")
    with pytest.raises(HarnessError):
        export(model, path, images, SIZE, {})
    assert path.read_bytes() == b"good" and list(tmp_path.iterdir()) == [path]


def test_a_model_whose_answers_are_not_numbers_fails_the_gate(tmp_path: Path, model: ResNet50, images: Images) -> None:
    broken = deepcopy(model)
    nn.init.constant_(broken.fc.bias, float("nan"))
    with pytest.raises(HarnessError, match="parity gate"):
        export(broken, tmp_path / "m.onnx", images, SIZE, {})


class Session:
    """A runtime whose logits are torch's, with one changed."""

    def __init__(self, logits: Any, row: int, by: float) -> None:
        self.logits, self.row, self.by = logits.copy(), row, by

    def __call__(self, *_: Any, **__: Any) -> "Session":
        return self

    def run(self, *_: Any) -> list[Any]:
        self.logits[self.row, 5] += self.by
        return [self.logits]


@pytest.mark.parametrize("row", [0, 255])
@pytest.mark.parametrize(("part", "passes"), [(0.9, True), (1.2, False)])
def test_the_gate_looks_at_all_its_images_with_the_tolerance_it_states(
    model: ResNet50, images: Images, monkeypatch: pytest.MonkeyPatch, row: int, part: float, passes: bool
) -> None:
    with torch.no_grad():
        logits = model(normalise(resize(images.pixels[:256], SIZE))).numpy()
    limit = 1e-3 * max(1.0, float(np.abs(logits).max()))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session(logits, row, part * limit))
    if passes:
        assert parity(model, Path("m.onnx"), images, SIZE)[0] == pytest.approx(part * limit, rel=1e-2)
    else:
        with pytest.raises(HarnessError, match="parity gate"):
            parity(model, Path("m.onnx"), images, SIZE)


def test_a_file_that_the_runtime_cannot_read_is_named(tmp_path: Path, model: ResNet50, images: Images) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not onnx")
    with pytest.raises(HarnessError, match=r"m\.onnx: ONNX Runtime cannot run the export"):
        parity(model, tmp_path / "m.onnx", images, SIZE)
