"""Pruning criteria, one file each, on Torch-Pruning (Fang et al., "DepGraph", CVPR 2023).

A criterion's file defines CRITERION, a `Criterion`, and these constants (harness.plan.registry): TITLE; PARAMETERS, its
own settings; SEEDED = True where it draws random numbers or asks for batches, which makes the seed part of the pruned
network's key. The structure is the reference study's: global ranking, one step, the classifier always kept.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from harness.architectures import Widths, architecture_of, copy_of, network_of, parameter_count, widths_of
from harness.compression.distillation import method_of
from harness.errors import HarnessError
from harness.plan import registry
from harness.plan.specs import Choice, Pruned, Sparse

# What has channels that can be pruned.
LAYERS = (nn.Conv2d, nn.Linear)
Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Setup:
    """What a criterion gets to see.

    `common` has the arguments that every Torch-Pruning pruner takes and that are the same for all criteria. `batches`
    yields labelled training batches without augmentation, float32 [B, 3, S, S] and int64 [B], in an order that depends
    on the seed alone: a criterion that needs gradients computes a loss on some of them and calls backward.
    """

    model: nn.Module
    # one image's worth of zeros [1, 3, S, S], for tracing
    example: Tensor
    parameters: Mapping[str, Any]
    seed: int
    # of sparse training; 0 where the network is pruned
    regularisation: float
    batches: Callable[[], Batches]
    common: Mapping[str, Any]


@dataclass(frozen=True)
class Criterion:
    """What a criterion's file brings.

    `pruner(setup)` returns a Torch-Pruning pruner over `setup.model`, with every importance argument explicit: their
    defaults have changed between versions. `regularise(pruner, setup)` adds the criterion's sparsity gradient to the
    gradients of `setup.model`, between backward and step; without it sparse training is plain training.
    """

    pruner: Callable[[Setup], Any]
    regularise: Callable[[Any, Setup], None] | None = None


@dataclass(frozen=True)
class Outcome:
    """A pruned network and what was really removed. MACs are for one image; each pair is before and after.

    `channels` counts those of all convolutions; `ranked` those that compete with one another, which those of kept
    layers do not. `emptied` names the layers of which pruning would have left fewer than `round_to` channels: whether
    they stay whole or keep that many is the protocol's choice.
    """

    model: nn.Module
    kept_layers: list[str]
    params: tuple[int, int]
    macs: tuple[int, int]
    channels: tuple[int, int]
    ranked: tuple[int, int]
    emptied: list[str]


def criterion_of(choice: Choice) -> Criterion:
    """The plug-in of a criterion."""
    found: Criterion = registry.load("criterion", choice.name, Criterion)
    return found


def kept_layers(model: nn.Module, keep_for: Iterable[str]) -> list[str]:
    """The convolutions kept whole for these KD methods; Torch-Pruning leaves their dependency groups alone too."""
    architecture = architecture_of(network_of(model))
    return sorted({layer for name in keep_for for layer in method_of(name).kept(architecture)})


def no_batches() -> Batches:
    """For criteria that look at weights alone."""
    raise HarnessError("this criterion asks for training batches, and there are none here")


def _setup(
    model: nn.Module,
    example: Tensor,
    choice: Choice,
    kept: Sequence[str],
    amount: float,
    round_to: int,
    seed: int = 0,
    regularisation: float = 0.0,
    batches: Callable[[], Batches] = no_batches,
) -> Setup:
    modules = dict(model.named_modules())
    classifier = architecture_of(network_of(model)).classifier
    common = {
        "global_pruning": True,
        "pruning_ratio": amount,
        "iterative_steps": 1,
        "ignored_layers": [modules[name] for name in (classifier, *kept)],
        "round_to": round_to,
    }
    return Setup(model, example, choice.parameters, seed, regularisation, batches, common)


def regulariser(model: nn.Module, example: Tensor, stage: Sparse) -> Callable[[], None]:
    """A function that adds the criterion's sparsity gradient to `model`'s gradients; it does nothing without one."""
    criterion = criterion_of(stage.criterion)
    if criterion.regularise is None:
        return lambda: None
    add = criterion.regularise
    kept = kept_layers(model, stage.keep_for)
    setup = _setup(model, example, stage.criterion, kept, 0.5, 1, stage.seed, stage.recipe.regularisation)
    pruner = criterion.pruner(setup)
    return lambda: add(pruner, setup)


def prune(model: nn.Module, example: Tensor, stage: Pruned, batches: Callable[[], Batches] = no_batches) -> Outcome:
    """Prune `model` (fp32, on the CPU; it is changed) by `stage.amount` of its channels, ranked over all layers.

    Raises HarnessError where that removes nothing or leaves a layer that is not a multiple of `stage.round_to`.
    """
    kept = kept_layers(model, stage.keep_for)
    before, convolutions = _channels(model), widths_of(model)
    macs, params = tp.utils.count_ops_and_params(model, example)
    model.eval()
    seed = stage.seed or 0
    setup = _setup(model, example, stage.criterion, kept, stage.amount, stage.round_to, seed, batches=batches)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pruner = criterion_of(stage.criterion).pruner(setup)
        ranking = Ranking(pruner, model)
        if stage.emptied_groups == "least":
            pruner._round_to = _keep_least
        pruner.step()
    after = _channels(model)
    emptied = ranking.emptied(stage.amount, stage.round_to)
    _check(stage, before, after, kept, emptied)
    # A plain network of the same widths: nothing of the pruner's tracing stays behind.
    model.zero_grad(set_to_none=True)
    clean = copy_of(model)
    clean_macs, _ = tp.utils.count_ops_and_params(clean, example)
    return Outcome(
        clean,
        kept,
        (int(params), parameter_count(clean)),
        (int(macs), int(clean_macs)),
        (sum(convolutions.values()), sum(widths_of(clean).values())),
        (ranking.channels, ranking.channels - sum(before[root] - after[root] for root in ranking.roots)),
        emptied,
    )


def _channels(model: nn.Module) -> Widths:
    """The output channels of every layer that pruning can make smaller."""
    return {name: len(module.weight) for name, module in model.named_modules() if isinstance(module, LAYERS)}


def _keep_least(pruned: int, channels: int, round_to: int) -> int:
    """Channels to remove so that the rest is a multiple of `round_to`, and at least one of them.

    In place of Torch-Pruning's own rounding, which rounds down to nothing, whereupon the group is left whole.
    """
    rest = channels - pruned
    rest -= rest % round_to
    return channels - max(rest, min(round_to, channels))


class Ranking:
    """What a pruner ranked, group by group, in its order: taken down while it steps."""

    def __init__(self, pruner: Any, model: nn.Module) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._graph = pruner.DG
        # (layers of the group, importance of its channels)
        self._groups: list[tuple[list[str], Tensor]] = []
        estimate = pruner.estimate_importance

        def noted(group: Any) -> Tensor | None:
            importance: Tensor | None = estimate(group)
            if importance is not None:
                self._groups.append((self._layers(group), importance.detach().float().cpu()))
            return importance

        pruner.estimate_importance = noted

    def _layers(self, group: Any) -> list[str]:
        found = [
            self._names[dependency.target.module]
            for dependency, _ in group
            if isinstance(dependency.target.module, LAYERS)
            and self._graph.is_out_channel_pruning_fn(dependency.handler)
        ]
        return list(dict.fromkeys(found))

    @property
    def channels(self) -> int:
        """How many channels compete."""
        return sum(len(importance) for _, importance in self._groups)

    @property
    def roots(self) -> list[str]:
        """One layer of each group: all of a group have the same number of channels."""
        return [names[0] for names, _ in self._groups if names]

    def emptied(self, amount: float, round_to: int) -> list[str]:
        """The layers of groups that the ranking would leave with fewer channels than `round_to`."""
        everything = torch.cat([importance for _, importance in self._groups]) if self._groups else torch.zeros(0)
        count = len(everything) - int(len(everything) * (1 - amount))
        if not count:
            return []
        threshold = torch.topk(everything, count, largest=False).values[-1]
        return sorted(
            name
            for names, importance in self._groups
            for name in names
            if int((importance > threshold).sum()) < round_to and bool((importance <= threshold).any())
        )


def _check(stage: Pruned, before: Widths, after: Widths, kept: Sequence[str], emptied: Sequence[str]) -> None:
    odd = [layer for layer, width in after.items() if width != before[layer] and width % stage.round_to]
    broken = [layer for layer in kept if after[layer] != before[layer]]
    what = f"pruning by {stage.criterion.name} at {stage.amount:g}"
    if before == after and emptied and stage.emptied_groups == "whole":
        raise HarnessError(
            f"{what} removed nothing: {len(emptied)} layers would lose every channel, and such a layer is left whole; "
            f"set prune_amount or pruning.round_to ({stage.round_to}) lower, or the protocol's emptied_groups to least"
        )
    if before == after:
        raise HarnessError(
            f"{what} removed nothing: rounding to {stage.round_to} leaves no layer that can shrink; "
            f"set pruning.round_to lower or prune_amount higher"
        )
    if odd or broken:
        raise HarnessError(f"{what} broke its contract: not rounded {odd}, not kept {broken}")
