from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

from harness.architectures import build, network_of, parameter_count, rebuild, widths_of
from harness.compression.pruning import Batches, Criterion, Outcome, criterion_of, gn, kept_layers, prune, regulariser
from harness.datasets import Images, normalise
from harness.errors import HarnessError
from harness.files import digest
from harness.plan import registry
from harness.plan.settings import Calibration, SparseRecipe
from harness.plan.specs import Choice, Data, Network, Pruned, Sparse, Teacher
from tests.drop_in import ARCHITECTURE, CRITERION, imported
from tests.training_kit import network, same_weights, scatter, shapes_of, thin

NETWORK = thin("resnet18")
EXAMPLE = torch.zeros(1, 3, 16, 16)
ALL = ["l1", "bn", "gn", "random"]
AMOUNTS = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
# Parameters, and a hash of the channels of every convolution, as they were when pruning was compared with the reference
# study's own code.
STUDY = {
    ("l1", "base", 0.3): (12_278_244, "f4984f10f60bca2c"),
    ("l1", "fmse", 0.4): (12_837_140, "cee5ffeaa8c70608"),
    ("l1", "gram", 0.4): (14_110_740, "336a411caaf39a1b"),
    ("bn", "base", 0.4): (8_421_716, "7a0ad5b89d94c313"),
    ("bn", "fmse", 0.3): (14_855_508, "c5df0d428c302228"),
    ("bn", "gram", 0.3): (15_954_284, "76b6771e5e4b7672"),
    ("gn", "fmse", 0.3): (15_364_852, "8940400aa1a521e3"),
}


def choice(criterion: str, **parameters: Any) -> Choice:
    return Choice(criterion, registry.resolve("criterion", criterion, parameters))


def teacher(spec: Network) -> Teacher:
    return Teacher(spec, Data(Choice("stand_in"), 100, (), 16), None, 0, "fp32", None)


def pruned(
    criterion: str,
    keep_for: str | tuple[str, ...] = "base",
    amount: float = 0.4,
    round_to: int = 2,
    emptied: str = "whole",
    seed: int = 0,
    **parameters: Any,
) -> Pruned:
    keep = (keep_for,) if isinstance(keep_for, str) else keep_for
    return Pruned(
        teacher(NETWORK),
        choice(criterion, **parameters),
        amount,
        round_to,
        keep,
        emptied,  # type: ignore[arg-type]
        Calibration(),
        seed,
    )


@cache
def by(criterion: str, *about: Any, **more: Any) -> Outcome:
    """The thin network, pruned; for reading only."""
    return prune(network(spec=NETWORK), EXAMPLE, pruned(criterion, *about, **more))


# --- The study's networks --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full() -> nn.Module:
    """The study's ResNet50, untrained, with scales as different as training would leave them."""
    torch.manual_seed(0)
    return scatter(build(thin(width=1.0)))


@pytest.mark.parametrize(
    ("criterion", "kd", "amount", "low", "high"),
    [
        ("l1", "base", 0.3, 11, 12.5),
        ("bn", "base", 0.4, 8, 9.5),
        ("bn", "fmse", 0.3, 14.5, 16),
        ("l1", "fmse", 0.4, 12, 13.5),
        ("bn", "gram", 0.3, 15.5, 17),
        ("l1", "gram", 0.4, 13, 14.5),
    ],
)
def test_parameters_are_about_the_published_ones(
    full: nn.Module, criterion: str, kd: str, amount: float, low: float, high: float
) -> None:
    done = prune(deepcopy(full), EXAMPLE, pruned(criterion, kd, amount, round_to=8))
    assert low < parameter_count(done.model) / 1e6 < high
    assert (parameter_count(done.model), digest(widths_of(done.model), 16)) == STUDY[criterion, kd, amount]


def test_gn_leaves_the_channels_of_the_comparison_too(full: nn.Module) -> None:
    done = prune(deepcopy(full), EXAMPLE, pruned("gn", "fmse", 0.3, round_to=8))
    assert (parameter_count(done.model), digest(widths_of(done.model), 16)) == STUDY["gn", "fmse", 0.3]


# --- What pruning promises -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("emptied", ["whole", "least"])
@pytest.mark.parametrize("kd", ["base", "fmse", "gram"])
@pytest.mark.parametrize("criterion", ALL)
def test_kept_layers_keep_their_width_and_the_others_are_rounded(criterion: str, kd: str, emptied: str) -> None:
    before = widths_of(network(spec=NETWORK))
    done = by(criterion, kd, emptied=emptied)
    after = widths_of(done.model)
    assert done.kept_layers == kept_layers(network(spec=NETWORK), [kd])
    assert all(after[layer] == before[layer] for layer in done.kept_layers)
    assert all(width % 2 == 0 for width in after.values())
    assert all(after[layer] <= before[layer] for layer in before)
    assert after != before


@pytest.mark.parametrize("criterion", ALL)
def test_the_reported_counts_are_those_of_the_networks(criterion: str) -> None:
    done = by(criterion)
    assert done.params == (parameter_count(network(spec=NETWORK)), parameter_count(done.model))
    assert done.channels == (sum(widths_of(network(spec=NETWORK)).values()), sum(widths_of(done.model).values()))
    assert done.channels[1] == pytest.approx(0.6 * done.channels[0], rel=0.25)
    assert 0 < done.macs[1] < done.macs[0]


@pytest.mark.parametrize("emptied", ["whole", "least"])
@pytest.mark.parametrize("criterion", ALL)
def test_without_rounding_the_share_asked_for_is_removed_of_the_channels_that_compete(
    criterion: str, emptied: str
) -> None:
    """Those of a residual stream count once, however many layers share them; those of kept layers do not count."""
    done = by(criterion, "base", 0.3, 1, emptied)
    # the first stage shares its channels with the stem, which is among the others
    stream = [f"layer{stage}.0.conv2" for stage in (2, 3, 4)]
    inner = [name for name in widths_of(network(spec=NETWORK)) if name.endswith("conv1")]
    before, after = widths_of(network(spec=NETWORK)), widths_of(done.model)
    assert done.ranked == tuple(sum(widths[name] for name in (*stream, *inner)) for widths in (before, after))
    if not done.emptied:
        assert done.ranked[1] == int(0.7 * done.ranked[0])
    kept = by(criterion, "fmse", 0.3, 1, emptied)
    assert kept.ranked[0] == sum(before[name] for name in inner if name != "conv1")


@pytest.mark.parametrize("criterion", ALL)
def test_a_pruned_network_is_a_plain_one(criterion: str) -> None:
    done = by(criterion, "fmse")
    plain = rebuild(NETWORK, shapes_of(done.model))
    plain.load_state_dict(done.model.state_dict())
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(done.model.eval()(images), plain.eval()(images))
    unpruned = network(spec=NETWORK)
    assert {type(module) for module in done.model.modules()} == {type(module) for module in unpruned.modules()}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in done.model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in done.model.parameters())
    assert network_of(done.model) == NETWORK


@pytest.mark.parametrize("criterion", ALL)
def test_pruning_is_repeatable_and_leaves_the_random_numbers_alone(criterion: str) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    outcome = prune(deepcopy(network(spec=NETWORK)), EXAMPLE, pruned(criterion, round_to=1))
    torch.manual_seed(3)
    again = prune(deepcopy(network(spec=NETWORK)), EXAMPLE, pruned(criterion, round_to=1))
    assert same_weights(outcome.model, again.model)
    torch.manual_seed(3)
    model = network(spec=NETWORK)
    torch.random.set_rng_state(before)
    prune(model, EXAMPLE, pruned(criterion, round_to=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_criteria_disagree_about_what_matters() -> None:
    shapes = [digest(widths_of(by(criterion, round_to=1).model)) for criterion in ALL]
    assert len(set(shapes)) == 4


def test_the_classifier_is_kept_whatever_is_pruned() -> None:
    done = by("l1", amount=0.6, round_to=1)
    classifier = done.model.get_submodule("fc")
    assert isinstance(classifier, nn.Linear)
    assert (classifier.out_features, classifier.in_features) == (100, widths_of(done.model)["layer4.1.conv2"])


def test_several_kd_methods_keep_all_their_layers() -> None:
    model = network(spec=NETWORK)
    both = kept_layers(model, ["fmse", "gram"])
    assert set(both) == set(kept_layers(model, ["fmse"])) | set(kept_layers(model, ["gram"]))
    assert kept_layers(model, ["gram", "fmse"]) == both == sorted(both)
    assert kept_layers(model, ["base", "none", "scratch"]) == []


# --- Groups that would lose every channel ----------------------------------------------------------------------------


def parameters_left(criterion: str, emptied: str, round_to: int, amounts: Iterable[float]) -> list[int]:
    """Of a thin ResNet18, pruned more and more."""
    stages = [pruned(criterion, "base", amount, round_to, emptied) for amount in amounts]
    return [prune(network(spec=NETWORK), EXAMPLE, stage).params[1] for stage in stages]


@pytest.mark.parametrize("criterion", ALL)
def test_with_least_the_parameters_left_fall_with_the_amount(criterion: str) -> None:
    left = parameters_left(criterion, "least", 2, AMOUNTS)
    assert left == sorted(left, reverse=True)
    whole = parameter_count(network(spec=NETWORK))
    assert left[0] > 0.75 * whole and left[-1] < 0.25 * whole


@pytest.mark.parametrize("round_to", [1, 4])
def test_with_least_they_fall_whatever_channels_are_rounded_to(round_to: int) -> None:
    left = parameters_left("bn", "least", round_to, AMOUNTS[::2])
    assert left == sorted(left, reverse=True) and left[-1] < left[0]


def test_left_whole_such_groups_make_the_network_larger_again() -> None:
    """What Torch-Pruning does, and so what the study's protocol has to do."""
    left = parameters_left("bn", "whole", 2, AMOUNTS)
    assert left != sorted(left, reverse=True)


@pytest.mark.parametrize("criterion", ["l1", "bn", "gn"])
def test_emptied_layers_are_named_and_either_left_whole_or_kept_at_their_least(criterion: str) -> None:
    before = widths_of(network(spec=NETWORK))
    whole, least = (by(criterion, "base", 0.8, 2, emptied) for emptied in ("whole", "least"))
    assert whole.emptied == least.emptied != []
    assert all(widths_of(whole.model)[layer] == before[layer] for layer in whole.emptied)
    assert all(widths_of(least.model)[layer] == 2 for layer in least.emptied)
    others = before.keys() - set(whole.emptied)
    assert {widths_of(whole.model)[layer] for layer in others} == {widths_of(least.model)[layer] for layer in others}
    assert least.ranked[1] < whole.ranked[1]


def test_layers_are_named_only_where_they_would_be_emptied() -> None:
    assert by("random", "base", 0.05, 1).emptied == []
    low, high = (set(by("l1", "base", amount, 2).emptied) for amount in (0.6, 0.9))
    assert low < high


def test_kept_layers_are_never_emptied() -> None:
    before = widths_of(network(spec=NETWORK))
    for kd in ("fmse", "gram"):
        done = by("l1", kd, 0.95, 2, "least")
        assert not set(done.emptied) & set(done.kept_layers)
        assert all(widths_of(done.model)[layer] == before[layer] for layer in done.kept_layers)


@pytest.mark.parametrize("criterion", ["l1", "bn", "gn"])
def test_an_amount_that_would_empty_every_layer_says_to_lower_it(criterion: str) -> None:
    with pytest.raises(HarnessError) as caught:
        by(criterion, "base", 0.999, 4)
    message = str(caught.value)
    assert f"pruning by {criterion} at 0.999 removed nothing" in message and "would lose every channel" in message
    assert "set prune_amount or pruning.round_to (4) lower" in message and "higher" not in message
    done = by(criterion, "base", 0.999, 4, "least")
    assert set(widths_of(done.model).values()) == {4}


def test_rounding_that_leaves_nothing_to_prune_says_which_setting_to_change() -> None:
    with pytest.raises(HarnessError, match=r"pruning by l1 at 0.1 removed nothing: rounding to 64.*round_to lower"):
        by("l1", "fmse", 0.1, 64, "least")
    with pytest.raises(HarnessError, match=r"removed nothing.*pruning\.round_to \(64\) lower"):
        by("l1", "fmse", 0.1, 64, "whole")


# --- Random ----------------------------------------------------------------------------------------------------------


def test_random_pruning_depends_on_the_seed_alone() -> None:
    one, again, other = (by("random", seed=seed, round_to=1) for seed in (1, 1, 2))
    assert same_weights(one.model, again.model)
    assert widths_of(one.model) != widths_of(other.model)
    torch.manual_seed(99)
    assert same_weights(one.model, prune(network(spec=NETWORK), EXAMPLE, pruned("random", seed=1, round_to=1)).model)


def test_random_pruning_looks_at_no_weight() -> None:
    stage = pruned("random", round_to=1)
    one, other = (prune(network(seed, spec=NETWORK), EXAMPLE, stage).model for seed in (0, 5))
    assert widths_of(one) == widths_of(other)


# --- Criteria that ask for batches -----------------------------------------------------------------------------------


@pytest.fixture
def taylor(tmp_path: Path) -> Iterator[str]:
    CRITERION.write(tmp_path)
    with imported(tmp_path):
        yield CRITERION.name


def batches(images: Images) -> Callable[[], Batches]:
    def labelled() -> Batches:
        for start in range(0, 96, 32):
            part = slice(start, start + 32)
            yield normalise(images.pixels[part, :, ::2, ::2], images.mean, images.std), images.labels[part]

    return labelled


def test_a_criterion_may_compute_gradients_on_labelled_batches(taylor: str, images: Images) -> None:
    stage = pruned(taylor, amount=0.3, round_to=1, batches=2)
    done, again = (prune(network(spec=NETWORK), EXAMPLE, stage, batches(images)) for _ in range(2))
    assert done.params[1] < done.params[0] and all(p.grad is None for p in done.model.parameters())
    assert same_weights(done.model, again.model)
    one = prune(network(spec=NETWORK), EXAMPLE, pruned(taylor, amount=0.3, round_to=1, batches=1), batches(images))
    assert not same_weights(one.model, done.model), "a parameter of the criterion's own"


def test_the_gradients_are_those_of_the_network_in_evaluation_mode(taylor: str, images: Images) -> None:
    model, by_hand = network(spec=NETWORK), network(spec=NETWORK)
    stage = pruned(taylor, batches=2)
    criterion_of(stage.criterion).pruner(setup_of(model, stage, batches(images)))
    for given, labels in islice(batches(images)(), 2):
        F.cross_entropy(by_hand(given), labels).backward()
    for one, other in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert one.grad is not None and torch.equal(one.grad, other.grad if other.grad is not None else torch.zeros(0))


def setup_of(model: nn.Module, stage: Pruned, labelled: Callable[[], Batches]) -> Any:
    from harness.compression import pruning

    model.eval()
    return pruning._setup(model, EXAMPLE, stage.criterion, [], stage.amount, stage.round_to, batches=labelled)


def test_a_criterion_that_asks_for_batches_where_there_are_none_says_so(taylor: str) -> None:
    with pytest.raises(HarnessError, match="asks for training batches"):
        by(taylor)


# --- Networks from outside the package -------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[nn.Module]:
    ARCHITECTURE.write(tmp_path)
    with imported(tmp_path):
        torch.manual_seed(0)
        yield scatter(build(Network(Choice(ARCHITECTURE.name, {"expansion": 2}), 10, 1.0, "cifar")))


@pytest.mark.parametrize("criterion", ["l1", "gn", "random"])
def test_depthwise_convolutions_layernorm_and_linear_layers_are_pruned_too(small: nn.Module, criterion: str) -> None:
    done = prune(small, EXAMPLE, pruned(criterion, amount=0.5, round_to=2, emptied="least"))
    after = shapes_of(done.model)
    assert after["head.weight"][0] == 10
    assert after["depthwise.weight"][0] == after["stem.weight"][0] == after["bn.weight"][0]
    assert after["norm.weight"][0] == after["pointwise.weight"][0] == after["hidden.weight"][1]
    assert all(after[f"{layer}.weight"][0] % 2 == 0 for layer in ("stem", "pointwise", "hidden"))
    left = sum(after[f"{layer}.weight"][0] for layer in ("stem", "pointwise", "hidden"))
    assert done.ranked == (16 + 32 + 64, left)
    assert left == pytest.approx(56, abs=6)
    assert done.model.eval()(EXAMPLE).shape == (1, 10)


def test_a_network_of_which_only_linear_layers_shrink_was_pruned(small: nn.Module) -> None:
    for name in ("stem", "depthwise", "pointwise"):
        nn.init.constant_(small.get_parameter(f"{name}.weight"), 5.0)
    done = prune(small, EXAMPLE, pruned("l1", amount=0.1, round_to=1))
    assert done.params[1] < done.params[0]


# --- Sparse training -------------------------------------------------------------------------------------------------


def changed(model: nn.Module, criterion: str, strength: float = 1e-3, **parameters: Any) -> list[str]:
    """The parameters whose gradient the criterion's regulariser changes; every gradient is 0.1 before."""
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.1)
    recipe = SparseRecipe(epochs=1, batch_size=8, lr=0.1, regularisation=strength)
    stage = Sparse(teacher(NETWORK), choice(criterion, **parameters), (), recipe, 0, "fp32")
    regulariser(model, EXAMPLE, stage)()
    after = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in after.values())
    return [name for name, gradient in after.items() if (gradient != 0.1).any()]


@pytest.mark.parametrize("criterion", ["l1", "random"])
def test_l1_and_random_add_nothing_to_gradients(criterion: str) -> None:
    assert changed(network(spec=NETWORK), criterion) == []


def test_bn_pushes_batchnorm_scales_alone() -> None:
    model = network(spec=NETWORK)
    scales = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert set(changed(model, "bn")) == scales


def test_gn_pushes_convolutions_too() -> None:
    found = changed(network(spec=NETWORK), "gn")
    assert "layer2.1.conv1.weight" in found and "layer2.1.bn1.weight" in found
    assert not any(name.endswith("bias") for name in found)


@pytest.mark.parametrize("criterion", ["bn", "gn"])
def test_layers_without_batchnorm_do_not_stop_the_push(small: nn.Module, criterion: str) -> None:
    found = changed(small, criterion)
    assert "bn.weight" in found and "head.bias" not in found
    assert ("pointwise.weight" in found) == (criterion == "gn")


@pytest.mark.parametrize("criterion", ["bn", "gn"])
def test_a_strength_of_zero_is_no_push(criterion: str) -> None:
    assert changed(network(spec=NETWORK), criterion, strength=0.0) == []


@pytest.mark.parametrize("criterion", ["bn", "gn"])
def test_the_push_is_towards_zero(criterion: str) -> None:
    model = network(spec=NETWORK)
    changed(model, criterion)
    scale = model.get_parameter("layer2.1.bn1.weight")
    assert scale.grad is not None
    assert torch.equal((scale.grad - 0.1).sign(), scale.sign())


def test_gns_alpha_decides_how_much_harder_weak_channels_are_pushed() -> None:
    """Fang et al., sect. 3.3: 2^(alpha (max - norm) / (max - min)), so by up to 2^alpha."""
    ratios = []
    for alpha in (0.0, 1.0, 4.0):
        model = network(spec=NETWORK)
        changed(model, "gn", alpha=alpha)
        scale = model.get_parameter("layer2.1.bn1.weight")
        assert scale.grad is not None
        pushes = (scale.grad - 0.1) / scale.detach()
        ratios.append(float(pushes.max() / pushes.min()))
    assert ratios == pytest.approx([1, 2, 16], rel=1e-3)


def constant(model: nn.Module, value: float = 1.0) -> nn.Module:
    """Every channel of a group as important as any other."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            nn.init.constant_(module.weight, value)
    return model


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_gn_survives_channels_that_are_all_alike(value: float) -> None:
    assert changed(constant(network(spec=NETWORK), value), "gn") or value == 0


def test_gn_survives_scores_that_differ_in_their_last_bit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.full((4,), 0.3)
    scores[1] = torch.nextafter(scores[0], torch.tensor(1.0))
    assert scores.max() > scores.min() and scores.max().sqrt() == scores.min().sqrt()
    monkeypatch.setattr(tp.importance.GroupMagnitudeImportance, "__call__", lambda self, group: scores)
    found = gn.SafeGroupNorm()(None)
    assert found is not None
    roots = found.sqrt()
    assert roots.max() > roots.min()


def test_gn_ranks_by_the_plain_group_norm_where_channels_differ() -> None:
    model = network(spec=NETWORK)
    found = criterion_of(choice("gn")).pruner(setup_of(model, pruned("gn"), iter))  # type: ignore[arg-type]
    plain = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="mean", normalizer="max", bias=False)
    for group in found.DG.get_all_groups(ignored_layers=[model.get_submodule("fc")]):
        assert torch.equal(found.importance(group), plain(group))


@pytest.mark.parametrize("amount", [0.3, 0.4])
def test_gn_without_sparse_training_is_plain_group_norm_pruning(amount: float) -> None:
    """Without its regulariser nothing of the method is left but its ranking (Fang et al., 2023, sect. 3.3)."""
    ours = by("gn", amount=amount).model
    model = network(spec=NETWORK)
    importance = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="mean", normalizer="max", bias=False)
    plain = tp.pruner.BasePruner(
        model, EXAMPLE, importance=importance, global_pruning=True, pruning_ratio=amount, iterative_steps=1,
        ignored_layers=[model.get_submodule("fc")], round_to=2,
    )  # fmt: skip
    plain.step()
    assert same_weights(ours, model)
    assert widths_of(ours) != widths_of(by("l1", amount=amount).model)


# --- Plug-ins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("criterion"))
def test_every_file_defines_a_criterion_that_makes_a_pruner(name: str) -> None:
    criterion = criterion_of(choice(name))
    assert isinstance(criterion, Criterion)
    assert criterion.pruner(setup_of(network(spec=NETWORK), pruned(name, amount=0.3), iter)).pruning_ratio == 0.3  # type: ignore[arg-type]


def test_a_module_that_is_no_criterion_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no_criterion.py").write_text("NAME = {}\n")
    with imported(tmp_path), pytest.raises(HarnessError, match=r"no_criterion:NAME.*is no Criterion"):
        criterion_of(Choice("no_criterion:NAME"))
