"""Pruning methods, one file each, on Torch-Pruning (Fang et al., "DepGraph", CVPR 2023).

A method's file defines `pruner(model, example, **common)`, which returns a Torch-Pruning pruner with every importance
argument explicit (their defaults have changed between versions); its name in matrix.toml is the file's name. Structure
as in the reference study: global ranking, one step, the classifier always kept.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from harness.architectures.resnet import ResNet50, Widths, parameter_count, widths_of
from harness.compression.distillation import method as distillation_method
from harness.errors import HarnessError


@dataclass(frozen=True)
class Pruned:
    """A pruned network and what was really removed. MACs are for one image."""

    model: ResNet50
    kept_layers: list[str]
    params: tuple[int, int]
    macs: tuple[int, int]
    channels: tuple[int, int]


def kept_layers(keep_for: Iterable[str]) -> list[str]:
    """The convolutions kept whole for these KD methods; Torch-Pruning leaves their dependency groups alone too."""
    return sorted({layer for name in keep_for for layer in distillation_method(name).kept})


def make_pruner(
    name: str,
    model: ResNet50,
    example: Tensor,
    kept: Sequence[str],
    amount: float,
    round_to: int,
    regularisation: float,
) -> Any:
    """The Torch-Pruning pruner of the method `name`."""
    modules = dict(model.named_modules())
    return import_module(f"{__name__}.{name}").pruner(
        model,
        example,
        regularisation=regularisation,
        global_pruning=True,
        pruning_ratio=amount,
        iterative_steps=1,
        ignored_layers=[model.fc, *(modules[layer] for layer in kept)],
        round_to=round_to,
    )


def regulariser(
    name: str, model: ResNet50, example: Tensor, kept: Sequence[str], strength: float
) -> Callable[[], None]:
    """A function that adds the method's sparsity gradient to `model`'s gradients (nothing for methods without one)."""
    pruner = make_pruner(name, model, example, kept, amount=0.5, round_to=1, regularisation=strength)
    if type(pruner).regularize is tp.pruner.BasePruner.regularize:
        # a placeholder, with another signature
        return lambda: None
    return lambda: pruner.regularize(model)


def prune(name: str, model: ResNet50, example: Tensor, keep_for: Sequence[str], amount: float, round_to: int) -> Pruned:
    """Prune `model` (fp32, on the CPU; it is changed) by `amount` of its channels, ranked over all layers.

    Raises HarnessError where that removes nothing or leaves a layer that is not a multiple of `round_to`.
    """
    kept = kept_layers(keep_for)
    before = widths_of(model)
    macs, params = tp.utils.count_ops_and_params(model, example)
    model.eval()
    make_pruner(name, model, example, kept, amount, round_to, regularisation=0.0).step()
    after = widths_of(model)
    _check(name, before, after, kept, round_to, amount)
    # A plain network of the same widths: nothing of the pruner's tracing stays behind.
    clean = ResNet50(after, model.stem)
    clean.load_state_dict(model.state_dict())
    clean_macs, _ = tp.utils.count_ops_and_params(clean, example)
    return Pruned(
        clean,
        kept,
        (int(params), parameter_count(clean)),
        (int(macs), int(clean_macs)),
        (sum(before.values()), sum(after.values())),
    )


def _check(name: str, before: Widths, after: Widths, kept: Sequence[str], round_to: int, amount: float) -> None:
    odd = [layer for layer, width in after.items() if width != before[layer] and width % round_to]
    broken = [layer for layer in kept if after[layer] != before[layer]]
    if before == after:
        raise HarnessError(
            f"pruning by {name} at {amount} removed nothing: rounding to {round_to} leaves no layer that can shrink; "
            f"set pruning.round_to lower or prune_amount higher"
        )
    if odd or broken:
        raise HarnessError(f"pruning by {name} at {amount} broke its contract: not rounded {odd}, not kept {broken}")


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Estimate BatchNorm's running statistics anew, as plain averages: pruning has changed what every layer sees."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
