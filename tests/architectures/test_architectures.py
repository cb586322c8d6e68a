"""What holds for every architecture: how networks are rebuilt, copied, initialised and read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness.architectures import (
    Architecture,
    architecture_of,
    build,
    copy_of,
    fresh,
    network_of,
    parameter_count,
    rebuild,
    tapped,
    widths_of,
)
from harness.errors import HarnessError
from harness.plan import registry
from harness.plan.specs import Choice, Network
from tests.drop_in import ARCHITECTURE, imported
from tests.training_kit import network, same_weights, scatter, shapes_of, thin

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network from outside the package: depthwise convolutions, LayerNorm and Linear layers."""
    folder = tmp_path_factory.mktemp("outside")
    ARCHITECTURE.write(folder)
    with imported(folder):
        spec = Network(Choice(ARCHITECTURE.name, {"expansion": 2}), 10, 0.5, "cifar")
        build(spec)
        yield spec


# --- In the package --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("architecture"))
def test_every_file_defines_an_architecture(name: str) -> None:
    architecture = architecture_of(thin(name))
    assert isinstance(architecture, Architecture)
    with torch.device("meta"):
        model = build(thin(name))
        assert isinstance(model.get_submodule(architecture.classifier), nn.Linear)
    assert min(widths_of(model).values()) == registry.find("architecture", name).constants["CHANNELS"] / 16


# --- Rebuilding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("architecture"))
def test_an_unpruned_network_is_rebuilt_as_it_was(name: str) -> None:
    model = network(spec=thin(name))
    again = rebuild(thin(name), shapes_of(model))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(IMAGES), model(IMAGES))
    assert network_of(again) == thin(name)


def smaller(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of the network of tests.drop_in with five of eight channels, seven of sixteen, and nine of 32."""
    return {
        **shapes,
        "stem.weight": (5, 3, 3, 3),
        "stem.bias": (5,),
        "depthwise.weight": (5, 1, 3, 3),
        "depthwise.bias": (5,),
        **{f"bn.{part}": (5,) for part in ("weight", "bias", "running_mean", "running_var")},
        "pointwise.weight": (7, 5, 1, 1),
        "pointwise.bias": (7,),
        "norm.weight": (7,),
        "norm.bias": (7,),
        "hidden.weight": (9, 7),
        "hidden.bias": (9,),
        "head.weight": (10, 9),
    }


def test_a_pruned_network_with_depthwise_convolutions_layernorm_and_linear_is_rebuilt(small: Network) -> None:
    shapes = smaller(shapes_of(build(small)))
    model = scatter(rebuild(small, shapes))
    architecture_of(small).initialise(model)
    assert shapes_of(model) == shapes
    depthwise, hidden = model.get_submodule("depthwise"), model.get_submodule("hidden")
    assert isinstance(depthwise, nn.Conv2d) and isinstance(hidden, nn.Linear)
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (5, 5, 5)
    assert (hidden.in_features, hidden.out_features) == (7, 9)
    assert model(IMAGES).shape == (2, 10) and model(IMAGES).isfinite().all()


def test_depthwise_convolutions_with_several_outputs_a_channel_keep_their_ratio() -> None:
    class Twofold(Architecture):
        def build(self, network: Network) -> nn.Module:
            return nn.Sequential(nn.Conv2d(8, 16, 3, groups=8))

    spec = Network(Choice("twofold"), 1, 1.0, "cifar")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", lambda *_: Twofold())
        model = rebuild(spec, {"0.weight": (6, 1, 3, 3), "0.bias": (6,)})
    layer = model.get_submodule("0")
    assert isinstance(layer, nn.Conv2d)
    assert (layer.groups, layer.in_channels, layer.out_channels) == (3, 3, 6)
    assert model(torch.zeros(1, 3, 4, 4)).shape == (1, 6, 2, 2)


@pytest.mark.parametrize("change", ["larger", "flat", "empty", "kernel"])
def test_shapes_that_no_pruning_gives_are_refused_by_name(change: str) -> None:
    shapes = shapes_of(build(thin()))
    whole = shapes["layer2.0.conv1.weight"]
    wrong = {"larger": (2**40, *whole[1:]), "flat": whole[:2], "empty": (0, *whole[1:]), "kernel": (*whole[:2], 3, 3)}
    shapes["layer2.0.conv1.weight"] = wrong[change]
    message = f"layer2.0.conv1.weight is {list(wrong[change])}, and {list(whole)} in the unpruned network"
    with pytest.raises(HarnessError, match=re.escape(message)):
        rebuild(thin(), shapes)


def test_missing_and_unknown_layers_are_refused_by_name() -> None:
    shapes = shapes_of(build(thin()))
    with pytest.raises(HarnessError, match=r"not a resnet50 with its layer names \(differs in aux\.weight\)"):
        rebuild(thin(), {**shapes, "aux.weight": (1,)})
    del shapes["fc.bias"]
    with pytest.raises(HarnessError, match=r"differs in fc\.bias"):
        rebuild(thin(), shapes)


def test_rebuilding_draws_no_random_numbers() -> None:
    shapes = shapes_of(build(thin()))
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    rebuild(thin(), shapes)
    assert torch.equal(torch.random.get_rng_state(), before)


# --- Copies and new weights ------------------------------------------------------------------------------------------


def test_a_copy_has_the_weights_and_nothing_that_was_attached() -> None:
    model = network(pruned=True)
    model.register_forward_hook(lambda *_: None)
    copied = copy_of(model)
    assert same_weights(copied, model) and copied is not model
    assert not copied._forward_hooks
    assert type(copied) is type(model) and network_of(copied) == thin()


def test_new_weights_have_the_pruned_shape_and_depend_on_the_seed_alone() -> None:
    model = network(pruned=True)
    one, again, other = (fresh(model, seed) for seed in (1, 1, 2))
    assert shapes_of(one) == shapes_of(model)
    assert same_weights(one, again) and not same_weights(one, other)
    assert same_weights(model, network(pruned=True)), "the network given is left alone"


def test_new_weights_of_a_resnet_are_those_of_a_network_just_built() -> None:
    """He's initialisation for convolutions: the same spread as in a network that was never trained."""
    built, renewed = build(thin()), fresh(network(), seed=1)
    for name, parameter in renewed.named_parameters():
        expected = built.get_parameter(name)
        assert parameter.std(correction=0).item() == pytest.approx(expected.std(correction=0).item(), abs=0.15), name
        if name.endswith("conv2.weight"):
            fan_out = parameter.shape[0] * 9
            assert parameter.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.3)
    assert all(value.abs().sum() == 0 for name, value in renewed.named_buffers() if name.endswith("running_mean"))


def test_counts_are_those_of_the_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    assert parameter_count(model) == (8 * 3 * 9 + 8) + 16 + (16 + 2)
    assert widths_of(model) == {"0": 8}


# --- Reading features by hooks ---------------------------------------------------------------------------------------


def layers(inplace: bool) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace), nn.Flatten(), nn.Linear(4 * 14 * 14, 2)).eval()


def test_features_of_any_network_are_read_by_the_names_of_its_modules() -> None:
    model = layers(inplace=False)
    seen = tapped(model, IMAGES, frozenset({"0", "1"}))
    assert torch.equal(seen.features["0"], model[0](IMAGES))
    assert torch.equal(seen.features["1"], model[0](IMAGES).relu())
    assert torch.equal(seen.logits, model(IMAGES))


def test_no_hook_stays_behind() -> None:
    class Faulty(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("faulty")

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Faulty())
    with pytest.raises(RuntimeError, match="faulty"):
        tapped(model, IMAGES, frozenset({"0"}))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("grad", [True, False])
def test_a_feature_that_is_overwritten_in_place_is_refused(grad: bool) -> None:
    model = layers(inplace=True)
    with torch.set_grad_enabled(grad), pytest.raises(HarnessError, match=r"^0 is overwritten in place.*`tapped`"):
        tapped(model, IMAGES, frozenset({"0"}))
    with torch.set_grad_enabled(grad):
        assert tapped(model, IMAGES, frozenset({"1"})).features["1"].min() == 0


def test_a_tap_that_does_not_exist_is_named() -> None:
    with pytest.raises(HarnessError, match="nothing called 7, nothing to read features from"):
        tapped(layers(inplace=False), IMAGES, frozenset({"0", "7", "nothing"}))


def test_a_network_that_hands_out_its_features_refuses_unknown_taps_too() -> None:
    with pytest.raises(HarnessError, match=r"layer5\.sum"):
        tapped(network(), IMAGES, frozenset({"stem", "layer5.sum"}))


# --- From outside the package ----------------------------------------------------------------------------------------


def test_a_network_from_outside_the_package_reads_its_own_parameters(small: Network) -> None:
    wider = Network(Choice(small.architecture.name, {"expansion": 4}), 10, 0.5, "cifar")
    assert shapes_of(build(wider))["hidden.weight"] == (64, 16)
    assert shapes_of(build(small))["hidden.weight"] == (32, 16)


def test_a_module_that_is_no_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "something_else.py").write_text("NAME = print\n")
    with imported(tmp_path), pytest.raises(HarnessError, match=r"something_else:NAME.*is no Architecture"):
        architecture_of(Network(Choice("something_else:NAME"), 10, 1.0, "cifar"))
