from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.architectures.resnet import (
    TAPS,
    ResNet50,
    full_widths,
    load_weights,
    parameter_count,
    save_weights,
    widths_of,
)
from harness.errors import HarnessError
from tests.training_kit import network, pruned_widths, same_weights, scatter

BATCH = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
ALL = frozenset(TAPS)


# --- The network -----------------------------------------------------------------------------------------------------


def test_with_the_same_weights_it_answers_as_torchvisions_does() -> None:
    torch.manual_seed(0)
    theirs = scatter(torchvision.models.resnet50(num_classes=100)).eval()
    ours = ResNet50(full_widths(1), "imagenet").eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image))


def test_the_full_size_is_the_studys() -> None:
    with torch.device("meta"):
        assert round(parameter_count(ResNet50(full_widths(1), "cifar")) / 1e6, 3) == 23.705


@pytest.mark.parametrize(("stem", "stem_size"), [("cifar", 16), ("imagenet", 8)])
def test_the_stem_decides_how_soon_images_shrink(stem: str, stem_size: int) -> None:
    model = network(stem=stem)
    seen = model.tapped(BATCH, ALL)
    sizes = {tap: value.shape[-1] for tap, value in seen.features.items()}
    first = 16 if stem == "cifar" else 4
    assert sizes["stem"] == stem_size
    assert [sizes[f"layer{stage}.sum"] for stage in (1, 2, 3, 4)] == [max(1, first >> n) for n in range(4)]
    assert seen.logits.shape == (2, 100)


@pytest.mark.parametrize("width", [0.0625, 0.125, 1.0])
def test_widths_are_read_back_off_the_network(width: float) -> None:
    with torch.device("meta"):
        assert widths_of(ResNet50(full_widths(width), "cifar")) == full_widths(width)


# --- Taps ------------------------------------------------------------------------------------------------------------


def test_without_taps_nothing_is_kept() -> None:
    model = network()
    seen = model.tapped(BATCH, frozenset())
    assert seen.features == {}
    assert torch.equal(seen.logits, model(BATCH))


@pytest.mark.parametrize("tap", TAPS)
def test_only_what_is_asked_for_is_kept(tap: str) -> None:
    assert list(network().tapped(BATCH, frozenset({tap})).features) == [tap]


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_taps_before_and_after_the_residual_sum_differ_by_it(stage: int) -> None:
    model = network()
    block = getattr(model, f"layer{stage}")[-1]
    entered: list[Tensor] = []
    block.conv1.register_forward_pre_hook(lambda _, args: entered.append(args[0].clone()))
    features = model.tapped(BATCH, ALL).features
    before, after = features[f"layer{stage}.bn3"], features[f"layer{stage}.sum"]
    assert not torch.equal(before, after)
    assert torch.equal(after, torch.relu(before + entered[0]))


def test_the_gram_tap_is_the_second_blocks_first_convolution_before_its_batchnorm() -> None:
    model = network()
    left: list[Tensor] = []
    model.get_submodule("layer2.1.conv1").register_forward_hook(lambda _, __, result: left.append(result.clone()))
    assert torch.equal(model.tapped(BATCH, ALL).features["layer2.conv1"], left[0])


def test_no_feature_is_overwritten_by_what_comes_after_it() -> None:
    model = network().train()
    features = model.tapped(BATCH, ALL).features
    again = network().train()
    for tap, value in features.items():
        assert torch.equal(value, again.tapped(BATCH, frozenset({tap})).features[tap])


# --- Weights on disk -------------------------------------------------------------------------------------------------


def test_a_pruned_network_comes_back_with_its_shape_and_metadata(tmp_path: Path) -> None:
    model = network(widths=pruned_widths())
    save_weights(tmp_path / "w.safetensors", model, {"cell": "c", "log": [{"loss": 1.5}]})
    loaded, metadata = load_weights(tmp_path / "w.safetensors")
    assert same_weights(loaded, model)
    assert (widths_of(loaded), loaded.stem) == (pruned_widths(), "cifar")
    assert (metadata["cell"], metadata["log"]) == ("c", [{"loss": 1.5}])


def test_the_same_network_is_stored_as_the_same_bytes(tmp_path: Path) -> None:
    contents = set()
    for name in ("a", "b", "c"):
        save_weights(tmp_path / f"{name}.safetensors", network(), {"cell": "c", "key": "k", "image_size": 16})
        contents.add((tmp_path / f"{name}.safetensors").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_a_state_dict_shows_its_own_shape(tmp_path: Path, wrapped: bool, stem: str) -> None:
    model = network(widths=pruned_widths(), stem=stem)
    state = model.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "w.pt")
    loaded, metadata = load_weights(tmp_path / "w.pt")
    assert same_weights(loaded, model)
    assert (loaded.stem, metadata) == (stem, {})


def test_safetensors_from_elsewhere_show_their_own_shape(tmp_path: Path) -> None:
    model = network()
    save_file(model.state_dict(), tmp_path / "w.safetensors", {"format": "pt"})
    loaded, metadata = load_weights(tmp_path / "w.safetensors")
    assert same_weights(loaded, model) and metadata == {}


def refused(path: Path) -> str:
    with pytest.raises(HarnessError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    assert "no such checkpoint" in refused(tmp_path / name)


@pytest.mark.parametrize("keep", [0, 7, 200, 100_000])
def test_a_truncated_safetensors_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, network(), {})
    path.write_bytes(path.read_bytes()[:keep])
    assert "cut short" in refused(path)


@pytest.mark.parametrize("keep", [0, 7, 200, 100_000])
def test_a_truncated_pt_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w.pt"
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert "cannot be loaded" in refused(path)


def test_a_pickled_model_is_refused_because_loading_it_would_run_code(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    assert "run code" in refused(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [[1, 2], {"lr": 0.1}, 3])
def test_a_pt_file_without_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert "no state dict" in refused(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_another_architecture_is_refused(tmp_path: Path, name: str) -> None:
    torch.save(torchvision.models.get_model(name, num_classes=100).state_dict(), tmp_path / "w.pt")
    assert "not a ResNet50" in refused(tmp_path / "w.pt")


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    state = network().state_dict()
    torch.save(state | {"fc.weight": torch.zeros(10, 128), "fc.bias": torch.zeros(10)}, tmp_path / "w.pt")
    assert "100 classes" in refused(tmp_path / "w.pt")


def test_a_missing_layer_is_refused(tmp_path: Path) -> None:
    state = network().state_dict()
    del state["layer3.2.bn1.weight"]
    torch.save(state, tmp_path / "w.pt")
    assert "layer3.2.bn1.weight" in refused(tmp_path / "w.pt")


def test_safetensors_of_something_else_are_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert "not a ResNet50" in refused(tmp_path / "w.safetensors")
