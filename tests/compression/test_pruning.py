import shutil
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

from harness.architectures.resnet import ResNet50, full_widths, parameter_count, widths_of
from harness.compression import pruning
from harness.compression.pruning import gn, kept_layers, make_pruner, prune, recalibrate, regulariser
from harness.errors import HarnessError
from harness.plan import settings
from harness.plan.settings import method_names
from harness.training.augment import normalise
from harness.training.data import Images
from tests.training_kit import WIDTH, network, same_weights, scatter

EXAMPLE = torch.zeros(1, 3, 16, 16)
METHODS = ["l1", "bn", "gn"]


@pytest.fixture(scope="module")
def full() -> ResNet50:
    """The study's ResNet50, untrained, with scales as different as training would leave them."""
    torch.manual_seed(0)
    return scatter(ResNet50(full_widths(1), "cifar"))


# --- The study's sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "ranges"),
    [
        (0.3, {"base": (11, 12.5), "fmse": (14.5, 16), "gram": (15.5, 17)}),
        (0.4, {"base": (8, 9.5), "fmse": (12, 13.5), "gram": (13, 14.5)}),
    ],
)
@pytest.mark.parametrize("name", ["l1", "bn"])
def test_parameters_are_about_the_published_ones(
    full: ResNet50, name: str, amount: float, ranges: dict[str, tuple[float, float]]
) -> None:
    for kd, (low, high) in ranges.items():
        done = prune(name, deepcopy(full), EXAMPLE, [kd], amount, round_to=8)
        assert low < parameter_count(done.model) / 1e6 < high, kd


# --- What pruning promises -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kd", ["base", "fmse", "gram"])
@pytest.mark.parametrize("name", METHODS)
def test_kept_layers_keep_their_width_and_the_others_are_rounded(name: str, kd: str) -> None:
    before = full_widths(WIDTH)
    done = prune(name, network(), EXAMPLE, [kd], 0.4, round_to=2)
    after = widths_of(done.model)
    assert done.kept_layers == kept_layers([kd])
    assert all(after[layer] == before[layer] for layer in done.kept_layers)
    assert all(width % 2 == 0 for width in after.values())
    assert all(after[layer] <= before[layer] for layer in before)
    assert after != before


@pytest.mark.parametrize("name", METHODS)
def test_what_was_removed_is_what_is_said(name: str) -> None:
    model = network()
    done = prune(name, model, EXAMPLE, ["base"], 0.4, round_to=2)
    assert done.params == (107_912, parameter_count(done.model))
    assert done.channels == (sum(full_widths(WIDTH).values()), sum(widths_of(done.model).values()))
    assert done.channels[1] == pytest.approx(0.6 * done.channels[0], rel=0.15)
    assert 0 < done.macs[1] < done.macs[0]


@pytest.mark.parametrize("name", METHODS)
def test_a_pruned_network_is_a_plain_one(name: str) -> None:
    done = prune(name, network(), EXAMPLE, ["fmse"], 0.4, round_to=2)
    plain = ResNet50(widths_of(done.model), "cifar")
    plain.load_state_dict(done.model.state_dict())
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(done.model.eval()(images), plain.eval()(images))
    assert type(done.model) is ResNet50
    assert {type(module) for module in done.model.modules()} == {type(module) for module in network().modules()}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in done.model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in done.model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_pruning_is_repeatable(name: str) -> None:
    first, second = (prune(name, network(), EXAMPLE, ["base"], 0.4, round_to=1).model for _ in range(2))
    assert same_weights(first, second)


def test_the_methods_disagree_about_what_matters() -> None:
    shapes = [widths_of(prune(name, network(), EXAMPLE, ["base"], 0.4, 1).model) for name in METHODS]
    assert shapes[0] != shapes[1] != shapes[2] != shapes[0]


def test_the_classifier_is_kept_whatever_is_pruned() -> None:
    done = prune("l1", network(), EXAMPLE, ["base"], 0.6, round_to=1)
    assert done.model.fc.out_features == 100
    assert done.model.fc.in_features == widths_of(done.model)["layer4.2.conv3"]


def test_rounding_that_leaves_nothing_to_prune_says_which_setting_to_change() -> None:
    with pytest.raises(HarnessError, match=r"pruning by l1 at 0.1 removed nothing.*rounding to 64.*round_to lower"):
        prune("l1", network(), EXAMPLE, ["fmse"], 0.1, round_to=64)


def test_several_kd_methods_keep_all_their_layers() -> None:
    both = kept_layers(["fmse", "gram"])
    assert set(both) == set(kept_layers(["fmse"])) | set(kept_layers(["gram"]))
    assert kept_layers(["gram", "fmse"]) == both == sorted(both)
    assert kept_layers(["base", "none", "scratch"]) == []


# --- Sparse training -------------------------------------------------------------------------------------------------


def changed(model: ResNet50, name: str, strength: float = 1e-3) -> list[str]:
    """The parameters whose gradient the regulariser of the method changes; every gradient is 0.1 before."""
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.1)
    regulariser(name, model, EXAMPLE, [], strength)()
    after = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in after.values())
    return [name for name, gradient in after.items() if (gradient != 0.1).any()]


def test_l1_adds_nothing_to_gradients() -> None:
    assert changed(network(), "l1") == []


def test_bn_pushes_batchnorm_scales_alone() -> None:
    model = network()
    scales = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert set(changed(model, "bn")) == scales


def test_gn_pushes_convolutions_too() -> None:
    found = changed(network(), "gn")
    assert "layer2.1.conv2.weight" in found and "layer2.1.bn2.weight" in found
    assert not any(name.endswith("bias") for name in found)


@pytest.mark.parametrize("name", ["bn", "gn"])
def test_a_strength_of_zero_is_no_push(name: str) -> None:
    assert changed(network(), name, strength=0.0) == []


@pytest.mark.parametrize("name", ["bn", "gn"])
def test_the_push_is_towards_zero(name: str) -> None:
    model = network()
    changed(model, name)
    scale = model.get_parameter("layer2.1.bn2.weight")
    assert scale.grad is not None
    assert torch.equal((scale.grad - 0.1).sign(), scale.sign())


def constant(model: ResNet50, value: float = 1.0) -> ResNet50:
    """Every channel of a group as important as any other."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            nn.init.constant_(module.weight, value)
    return model


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_gn_survives_channels_that_are_all_alike(value: float) -> None:
    assert changed(constant(network(), value), "gn") or value == 0


def test_gn_survives_scores_that_differ_in_their_last_bit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.full((4,), 0.3)
    scores[1] = torch.nextafter(scores[0], torch.tensor(1.0))
    assert scores.max() > scores.min() and scores.max().sqrt() == scores.min().sqrt()
    monkeypatch.setattr(tp.importance.GroupMagnitudeImportance, "__call__", lambda self, group: scores)
    found = gn.SafeGroupNorm()(None)
    assert found is not None
    roots = found.sqrt()
    assert roots.max() > roots.min()


def test_gn_ranks_as_before_where_channels_differ() -> None:
    model = network()
    found = make_pruner("gn", model, EXAMPLE, [], 0.4, 1, 0.0)
    plain = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="mean", normalizer="max", bias=False)
    for group in found.DG.get_all_groups(ignored_layers=[model.fc]):
        assert torch.equal(found.importance(group), plain(group))


@pytest.mark.parametrize("amount", [0.3, 0.4])
def test_gn_without_sparse_training_is_plain_group_norm_pruning(amount: float) -> None:
    """No regulariser ran, so nothing of the method is left but its ranking (Fang et al., 2023, sect. 3.3)."""
    ours = prune("gn", network(), EXAMPLE, ["base"], amount, round_to=2).model
    model = network()
    importance = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="mean", normalizer="max", bias=False)
    plain = tp.pruner.BasePruner(
        model, EXAMPLE, importance=importance, global_pruning=True, pruning_ratio=amount, iterative_steps=1,
        ignored_layers=[model.fc], round_to=2,
    )  # fmt: skip
    plain.step()
    assert same_weights(ours, model)
    assert widths_of(ours) != widths_of(prune("l1", network(), EXAMPLE, ["base"], amount, round_to=2).model)


# --- BatchNorm's statistics ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batches(images: Images) -> list[Tensor]:
    return [normalise(part) for part in images.pixels[:96, :, ::2, ::2].split(32)]


def gap(model: ResNet50, batch: Tensor) -> float:
    """How far answers with stored statistics are from those with the batch's own."""
    copied = deepcopy(model)
    with torch.no_grad():
        stored, own = copied.eval()(batch), copied.train()(batch)
    assert stored.isfinite().all()
    return float((stored - own).abs().mean())


def test_recalibration_brings_stored_statistics_near_the_real_ones(batches: list[Tensor]) -> None:
    done = prune("l1", network(), EXAMPLE, ["base"], 0.4, round_to=2)
    whole = torch.cat(batches)
    before = gap(done.model, whole)
    recalibrate(done.model, [whole])
    assert gap(done.model, whole) < 0.02 * before


def test_recalibration_leaves_weights_and_momentum_and_ends_in_eval_mode(batches: list[Tensor]) -> None:
    model = network()
    model.bn1.momentum = 0.3
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    recalibrate(model, batches)
    assert [module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)] == [0.3] + [0.1] * 52
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


def test_recalibration_averages_batches_alike(batches: list[Tensor]) -> None:
    model = network()
    recalibrate(model, batches)
    with torch.no_grad():
        means = torch.stack([model.conv1(batch).mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(model.bn1.running_mean, means)


# --- One file each ---------------------------------------------------------------------------------------------------

NEW = """
import torch_pruning as tp

def pruner(model, example, regularisation, **common):
    return tp.pruner.BasePruner(model, example, importance=tp.importance.RandomImportance(), **common)
"""


@pytest.fixture
def dropped_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "pruning"
    shutil.copytree(settings.METHODS / "pruning", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "random.py").write_text(NEW)
    monkeypatch.setattr(settings, "METHODS", tmp_path)
    monkeypatch.setattr(pruning, "__path__", [*pruning.__path__, str(folder)])
    yield
    sys.modules.pop("harness.compression.pruning.random", None)


@pytest.mark.usefixtures("dropped_in")
def test_a_new_file_is_a_new_method() -> None:
    assert "random" in method_names("pruning")
    done = prune("random", network(), EXAMPLE, ["base"], 0.4, round_to=2)
    assert done.params[1] < done.params[0]


@pytest.mark.parametrize("name", method_names("pruning"))
def test_every_file_makes_a_pruner(name: str) -> None:
    assert make_pruner(name, network(), EXAMPLE, [], 0.3, 2, 1e-5).pruning_ratio == 0.3
