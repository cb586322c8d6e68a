"""The ResNets against torchvision's, with the same weights: answers, and the features that distillation reads."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from harness.architectures import (
    Architecture,
    architecture_of,
    build,
    network_of,
    parameter_count,
    rebuild,
    tapped,
    widths_of,
)
from harness.plan.specs import Choice, Network
from tests.training_kit import network, scatter, shapes_of, thin

BATCH = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
NAMES = ["resnet18", "resnet50"]
LAST = {"resnet18": ("1.bn2", [1, 1, 1, 1]), "resnet50": ("bn3", [2, 3, 5, 2])}
RESNET50: Architecture = architecture_of(thin())
STAGES = RESNET50.stages
TAPS = ["stem", *(tap for stage in STAGES for tap in (stage.first, stage.norm, stage.sum))]
ALL = frozenset(TAPS)


def full(name: str, stem: str = "imagenet") -> Network:
    return Network(Choice(name), 100, 1.0, stem)


def of_torchvision(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.get_model(name, num_classes=100)
    return scatter(model).eval()


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """Ours and torchvision's, with the same weights."""
    theirs = of_torchvision(name)
    ours = build(full(name)).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


# --- The network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_with_the_same_weights_the_logits_equal_torchvisions(name: str) -> None:
    ours, theirs = pair(name)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image))


@pytest.mark.parametrize(("name", "millions"), [("resnet50", 23.705), ("resnet18", 11.22)])
def test_the_full_width_has_the_known_number_of_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        assert parameter_count(build(full(name, "cifar"))) / 1e6 == pytest.approx(millions, abs=5e-4)


@pytest.mark.parametrize(("stem", "stem_size"), [("cifar", 16), ("imagenet", 8)])
def test_the_stem_decides_how_soon_images_shrink(stem: str, stem_size: int) -> None:
    seen = tapped(network(spec=thin(stem=stem)), BATCH, ALL)
    sizes = {tap: value.shape[-1] for tap, value in seen.features.items()}
    first = 16 if stem == "cifar" else 4
    assert sizes["stem"] == stem_size
    assert [sizes[stage.sum] for stage in STAGES] == [max(1, first >> n) for n in range(4)]
    assert seen.logits.shape == (2, 100)


@pytest.mark.parametrize("width", [0.0625, 0.125, 1.0])
def test_the_width_multiplies_every_channel_count(width: float) -> None:
    with torch.device("meta"):
        thinner, widest = (widths_of(build(thin(width=one))) for one in (width, 1.0))
    assert thinner == {name: channels * width for name, channels in widest.items()}


def test_the_number_of_classes_is_that_of_the_spec() -> None:
    with torch.device("meta"):
        model = build(Network(Choice("resnet18"), 7, 0.125, "cifar"))
    assert model.get_submodule("fc").get_parameter("weight").shape[0] == 7
    assert network_of(model).classes == 7


# --- Taps ------------------------------------------------------------------------------------------------------------


def test_without_taps_no_features_are_kept() -> None:
    model = network()
    seen = tapped(model, BATCH)
    assert seen.features == {}
    assert torch.equal(seen.logits, model(BATCH))


@pytest.mark.parametrize("tap", TAPS)
def test_only_the_features_asked_for_are_kept(tap: str) -> None:
    assert list(tapped(network(), BATCH, frozenset({tap})).features) == [tap]


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_taps_before_and_after_the_residual_sum_differ_by_the_shortcut(number: int) -> None:
    model, stage = network(), STAGES[number]
    block = model.get_submodule(stage.last_conv.rpartition(".")[0])
    entered: list[Tensor] = []
    block.get_submodule("conv1").register_forward_pre_hook(lambda _, args: entered.append(args[0].clone()))
    features = tapped(model, BATCH, ALL).features
    before, after = features[stage.norm], features[stage.sum]
    assert not torch.equal(before, after)
    assert torch.equal(after, torch.relu(before + entered[0]))


def test_reading_one_feature_leaves_the_others_unchanged() -> None:
    features = tapped(network().train(), BATCH, ALL).features
    for tap, value in features.items():
        assert torch.equal(value, tapped(network().train(), BATCH, frozenset({tap})).features[tap])


@pytest.mark.parametrize("name", NAMES)
def test_taps_name_layers_of_the_network(name: str) -> None:
    architecture = architecture_of(full(name))
    with torch.device("meta"):
        widths = widths_of(build(full(name)))
    assert architecture.stem_conv in widths and len(architecture.stages) == 4
    assert all(layer in widths for stage in architecture.stages for layer in (stage.first_conv, stage.last_conv))
    features = tapped(network(spec=thin(name, width=0.125)), BATCH, frozenset(s.sum for s in architecture.stages))
    assert [value.shape[1] for value in features.features.values()] == [
        widths[stage.last_conv] / 8 for stage in architecture.stages
    ]


def hooked(model: nn.Module, image: Tensor, names: dict[str, str]) -> dict[str, Tensor]:
    """What hooks on an eager model are left with once the forward pass has ended."""
    seen: dict[str, Tensor] = {}

    def remember(tap: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            seen[tap] = output

        return hook

    for tap, name in names.items():
        model.get_submodule(name).register_forward_hook(remember(tap))
    with torch.no_grad():
        model(image)
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_the_tap_sum_is_what_hooks_on_an_eager_torchvision_model_read(name: str) -> None:
    """torchvision adds the shortcut to the last BatchNorm's output in place, and so does the ReLU after it."""
    ours, theirs = pair(name)
    stages = architecture_of(full(name)).stages
    norms = {stage.sum: stage.last_conv.replace("conv", "bn") for stage in stages}
    image = torch.randn(1, 3, 64, 64)
    expected = hooked(theirs, image, {**norms, **{stage.first: stage.first_conv for stage in stages}, "stem": "bn1"})
    with torch.no_grad():
        found = tapped(ours, image, frozenset(expected)).features
    for tap, value in expected.items():
        torch.testing.assert_close(found[tap], value, msg=tap)
        assert value.min() >= 0 or tap.endswith("conv1")


@pytest.mark.parametrize("name", NAMES)
def test_the_tap_norm_is_the_last_batchnorm_that_torch_fx_reads_before_the_sum(name: str) -> None:
    """A torch.fx graph keeps the BatchNorm's output apart as long as the addition makes a new tensor."""
    ours, theirs = pair(name)
    stages = architecture_of(full(name)).stages
    norms = {stage.last_conv.replace("conv", "bn"): stage.norm for stage in stages}
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = create_feature_extractor(theirs, norms)(image)
        found = tapped(ours, image, frozenset(norms.values())).features
    assert expected.keys() == found.keys()
    for tap, value in expected.items():
        torch.testing.assert_close(found[tap], value, msg=tap)
        assert value.min() < 0


# --- Pruned ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_pruned_resnet_is_rebuilt_from_its_shapes(name: str) -> None:
    spec = thin(name)
    shapes = shapes_of(build(spec))
    for layer in ("layer1.0", "layer3.1"):
        kept, entering = 1, shapes[f"{layer}.conv1.weight"][1]
        shapes[f"{layer}.conv1.weight"] = (kept, entering, *shapes[f"{layer}.conv1.weight"][2:])
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{layer}.bn1.{part}"] = (kept,)
        conv2 = shapes[f"{layer}.conv2.weight"]
        shapes[f"{layer}.conv2.weight"] = (conv2[0], kept, *conv2[2:])
    model = rebuild(spec, shapes)
    architecture_of(spec).initialise(model)
    assert shapes_of(model) == shapes
    assert widths_of(model)["layer1.0.conv1"] == widths_of(model)["layer3.1.conv1"] == 1
    assert model.train()(BATCH).isfinite().all()
