import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from harness.architectures import build, network_of, rebuild, widths_of
from harness.errors import HarnessError
from harness.model_files import weights
from harness.model_files.weights import load_weights, read_metadata, save_weights
from harness.plan.specs import Choice, Network, plain
from tests.drop_in import ARCHITECTURE, imported
from tests.training_kit import WIDTH, network, same_weights, shapes_of, thin

STEMS = ["cifar", "imagenet"]
NAMES = ["resnet18", "resnet50"]
SIZES = [1, 7, 200, 100_000]


# --- Our own files ---------------------------------------------------------------------------------------------------


def test_a_pruned_network_is_loaded_with_its_shape_and_metadata(tmp_path: Path) -> None:
    model = network(pruned=True)
    save_weights(tmp_path / "w.safetensors", model, {"cell": "c", "log": [{"loss": 1.5}]})
    loaded, metadata = load_weights(tmp_path / "w.safetensors")
    assert same_weights(loaded, model)
    assert widths_of(loaded) == widths_of(model) and network_of(loaded) == thin()
    assert (metadata["cell"], metadata["log"]) == ("c", [{"loss": 1.5}])
    assert metadata == read_metadata(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stem", STEMS)
def test_a_file_says_of_what_network_it_is(tmp_path: Path, name: str, stem: str) -> None:
    spec = Network(Choice(name), 7, 0.125, stem)
    model = build(spec)
    save_weights(tmp_path / "w.safetensors", model, {})
    loaded, _ = load_weights(tmp_path / "w.safetensors")
    assert network_of(loaded) == spec and same_weights(loaded, model)


def test_a_network_from_outside_the_package_is_loaded_where_its_module_is_on_the_path(tmp_path: Path) -> None:
    ARCHITECTURE.write(tmp_path)
    path = tmp_path / "w.safetensors"
    with imported(tmp_path):
        model = build(Network(Choice(ARCHITECTURE.name, {"expansion": 3}), 10, 1.0, "cifar"))
        save_weights(path, model, {})
        loaded, _ = load_weights(path)
        assert same_weights(loaded, model)
    assert "no module dropped_in_network" in refused(path)


def test_equal_networks_are_stored_as_equal_bytes(tmp_path: Path) -> None:
    contents = set()
    for name in ("a", "b", "c"):
        save_weights(tmp_path / f"{name}.safetensors", network(), {"cell": "c", "key": "k", "image_size": 16})
        contents.add((tmp_path / f"{name}.safetensors").read_bytes())
    assert len(contents) == 1


def test_weights_in_channels_last_order_are_stored_as_the_others(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", network(), {})
    save_weights(tmp_path / "b.safetensors", network().to(memory_format=torch.channels_last), {})  # type: ignore[call-overload]
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


# --- Files from elsewhere --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("stem", STEMS)
def test_a_state_dict_is_recognised_by_its_shapes(tmp_path: Path, stem: str, pruned: bool) -> None:
    model = network(pruned=pruned, spec=thin(stem=stem))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    loaded, metadata = load_weights(tmp_path / "w.pt")
    assert same_weights(loaded, model)
    assert (network_of(loaded), metadata) == (thin(stem=stem), {})
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded.eval()(images), model(images))


@pytest.mark.parametrize("width", [WIDTH, 0.125, 0.40625, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_the_width_and_the_number_of_classes_are_recognised(tmp_path: Path, name: str, width: float) -> None:
    spec = Network(Choice(name), 11, width, "cifar")
    torch.save(build(spec).state_dict(), tmp_path / "w.pt")
    assert network_of(load_weights(tmp_path / "w.pt")[0]) == spec


def test_a_network_of_which_every_layer_was_pruned_is_recognised(tmp_path: Path) -> None:
    spec = thin("resnet18")
    pruned = {
        name: (*(n * 3 // 4 if n > 3 else n for n in shape[:2]), *shape[2:])
        for name, shape in shapes_of(build(spec)).items()
    }
    pruned["fc.weight"], pruned["fc.bias"] = (100, pruned["fc.weight"][1]), (100,)
    model = rebuild(spec, pruned)
    nn.init.zeros_(model.get_parameter("fc.bias"))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    assert widths_of(load_weights(tmp_path / "w.pt")[0]) == widths_of(model)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stem", STEMS)
def test_safetensors_from_elsewhere_are_recognised_whatever_their_order(tmp_path: Path, name: str, stem: str) -> None:
    model = network(spec=thin(name, stem))
    backwards = dict(reversed(model.state_dict().items()))
    save_file(backwards, tmp_path / "w.safetensors", {"format": "pt"})
    loaded, metadata = load_weights(tmp_path / "w.safetensors")
    assert same_weights(loaded, model) and metadata == {}
    assert network_of(loaded) == thin(name, stem)


@pytest.mark.parametrize(
    ("entries", "prefix"),
    [
        (["net"], ""),
        (["model"], "module."),
        (["state_dict"], "model."),
        (["model_state_dict"], "_orig_mod."),
        (["state_dict", "model"], "_orig_mod.module."),
        (["model", "state_dict"], "module._orig_mod."),
        ([], "model._orig_mod."),
    ],
)
def test_what_trainers_wrap_around_a_state_dict_is_removed(tmp_path: Path, entries: list[str], prefix: str) -> None:
    model = network()
    content: Any = {prefix + name: value for name, value in model.state_dict().items()}
    for entry in entries:
        content = {entry: content, "epoch": 3, "args": {"lr": 0.1}}
    torch.save(content, tmp_path / "w.pt")
    assert same_weights(load_weights(tmp_path / "w.pt")[0], model)


def test_prefixes_are_removed_in_safetensors_too(tmp_path: Path) -> None:
    model = network()
    save_file({f"module.{name}": value for name, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    assert same_weights(load_weights(tmp_path / "w.safetensors")[0], model)


# --- What is refused -------------------------------------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(HarnessError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert str(path) in message and message.isprintable() and len(message) < 500
    return message


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    assert "no such checkpoint" in refused(tmp_path / name)


@pytest.mark.parametrize("keep", [0, *SIZES])
def test_a_truncated_safetensors_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, network(), {})
    path.write_bytes(path.read_bytes()[:keep])
    assert "cut short" in refused(path)


@pytest.mark.parametrize("keep", [0, *SIZES])
def test_a_truncated_pt_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w.pt"
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert "cannot be loaded" in refused(path)


def test_a_pickled_model_is_refused_because_loading_it_would_run_code(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    assert "run code" in refused(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [[1, 2], {"lr": 0.1}, 3, {}, {"net": {"lr": 0.1}}])
def test_a_pt_file_without_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert "no state dict" in refused(tmp_path / "w.pt")


def test_a_checkpoint_that_contains_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 3}
    content["model"] = content
    torch.save(content, tmp_path / "w.pt")
    assert "no state dict" in refused(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["resnet34", "mobilenet_v3_small"])
def test_another_architecture_is_refused_and_the_known_ones_are_named(tmp_path: Path, name: str) -> None:
    torch.save(torchvision.models.get_model(name, num_classes=100).state_dict(), tmp_path / "w.pt")
    message = refused(tmp_path / "w.pt")
    assert "not a state dict of a known network" in message and "ResNet18, ResNet50" in message


@pytest.mark.parametrize("change", ["missing", "more", "flat", "scalar", "empty", "kernel", "wide"])
def test_a_state_dict_with_a_layer_of_another_form_is_refused(tmp_path: Path, change: str) -> None:
    state = network().state_dict()
    layer = "layer3.2.conv2.weight"
    if change == "missing":
        del state[layer]
    elif change == "more":
        state["extra.weight"] = torch.zeros(2)
    else:
        whole = state[layer].shape
        state[layer] = {
            "flat": torch.zeros(whole[0]),
            "scalar": torch.zeros(()),
            "empty": torch.zeros(0, *whole[1:]),
            "kernel": torch.zeros(*whole[:2], 5, 5),
            "wide": torch.zeros(whole[0], 2000, 3, 3),
        }[change]
    torch.save(state, tmp_path / "w.pt")
    message = refused(tmp_path / "w.pt")
    assert "known network" in message or layer in message


def test_safetensors_of_something_else_are_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert "not a state dict of a known network" in refused(tmp_path / "w.safetensors")


def tampered(path: Path, **network_fields: Any) -> Path:
    """A file of ours whose metadata claims something else than its tensors are."""
    state = {name: value.contiguous() for name, value in network().state_dict().items()}
    save_file(state, path, {"network": json.dumps({**plain(thin()), **network_fields})})
    return path


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"width": 40_000.0}, "width"),
        ({"width": -1.0}, "width"),
        ({"width": "wide"}, "width"),
        ({"stem": "other"}, "stem"),
        ({"classes": 10}, "10 classes, and its classifier has [100]"),
        ({"classes": 2**40}, "classes"),
        ({"architecture": {"name": "vgg", "parameters": {}}}, "vgg"),
        ({"architecture": {"name": "resnet50", "parameters": {"depth": 9}}}, "depth"),
        ({"architecture": {"name": "resnet18", "parameters": {}}}, "not a resnet18 with its layer names"),
        ({"architecture": "resnet50"}, "cannot be loaded"),
        ({"colour": "red"}, "cannot be loaded"),
    ],
)
def test_metadata_that_does_not_fit_the_tensors_is_refused(tmp_path: Path, claims: dict[str, Any], said: str) -> None:
    assert said in refused(tampered(tmp_path / "w.safetensors", **claims))


def test_a_network_larger_than_its_metadata_allows_is_refused_before_its_tensors_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = network(spec=thin(width=0.125)).state_dict()
    save_file(state, tmp_path / "w.safetensors", {"network": json.dumps(plain(thin()))})

    def read(*_: Any) -> None:
        raise AssertionError("the tensors were read")

    monkeypatch.setattr(weights, "load_file", read)
    message = refused(tmp_path / "w.safetensors")
    assert "in the unpruned network" in message


@pytest.mark.parametrize("text", ["[1, 2", "3", '{"name": 1}', "[" * 100_000])
def test_metadata_that_is_no_network_is_refused(tmp_path: Path, text: str) -> None:
    save_file(network().state_dict(), tmp_path / "w.safetensors", {"network": text})
    refused(tmp_path / "w.safetensors")
