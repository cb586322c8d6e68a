"""A pruned network made ready for its KD method: the phases that it goes through, and the modules trained beside it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.architectures import architecture_of, fresh, network_of, tapped
from harness.compression.distillation import Phase, Setup, method_of
from harness.plan.specs import Student
from harness.training.device import Device


@dataclass(frozen=True)
class Prepared:
    """What a learner is made of."""

    model: nn.Module
    phases: list[Phase]
    modules: nn.ModuleDict


def prepare(spec: Student, model: nn.Module, teacher: nn.Module, example: Tensor, device: Device) -> Prepared:
    """Make a pruned network ready; with new weights where its method wants them. `example`: one image's worth."""
    method = method_of(spec.method.name)
    if method.fresh_weights:
        model = fresh(model, spec.seed)
    own, *used = spec.methods

    def channels(tap: str) -> tuple[int, int]:
        student, taught = (_channels(network, tap, example) for network in (model, teacher))
        return student, taught

    def setup(modules: nn.ModuleDict) -> Setup:
        return Setup(
            architecture_of(network_of(model)),
            spec.objective,
            spec.recipe.epochs,
            own.parameters,
            {choice.name: choice.parameters for choice in used},
            channels,
            modules,
        )

    modules = nn.ModuleDict()
    if method.modules:
        torch.manual_seed(spec.seed)
        modules = method.modules(setup(modules)).to(device.torch)
    return Prepared(model, method.phases(setup(modules)), modules)


def _channels(model: nn.Module, tap: str, example: Tensor) -> int:
    """Channels of the features at a tap, tried on one image."""
    training, device = model.training, next(model.parameters()).device
    with torch.no_grad():
        found = tapped(model.eval(), example.to(device), frozenset([tap])).features[tap]
    model.train(training)
    return found.shape[1]
