"""GRAM: the flow between two layers of a stage, as the Gram matrix of their features (Yim et al., CVPR 2017: FSP)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.architectures import Architecture, Outputs
from harness.compression.distillation import Method, Phase, Setup, by_objective, dead_zone

TITLE = "GRAM+Base"
NUMBER = 3
USES = ("base",)
FEATURES = True
PARAMETERS = {"dead_zone": 1.0, "scale": 0.1}
Pair = tuple[str, str]


def phases(setup: Setup) -> list[Phase]:
    """The study's: squared differences less a dead zone, mean per stage, summed, times `scale`.

    The paper's: squared differences (their eq. 2, equal weights), mean over entries and stages.
    """
    pairs = [(stage.first, setup.last(stage)) for stage in setup.stages]
    width, scale = setup.parameters["dead_zone"], setup.parameters["scale"]

    def study(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        return scale * sum(dead_zone(error, width).mean() for error in squared_errors(student, teacher, pairs))

    def paper(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        return torch.stack([error.mean() for error in squared_errors(student, teacher, pairs)]).mean()

    return by_objective(setup, [tap for pair in pairs for tap in pair], study, paper)


def flow(features: Mapping[str, Tensor], pair: Pair) -> Tensor:
    """The FSP matrix [N, C1, C2] between the second block's first convolution and the stage's output, over H W."""
    first, last = (features[tap].float().flatten(2) for tap in pair)
    return torch.bmm(first, last.transpose(1, 2)) / first.shape[2]


def squared_errors(student: Outputs, teacher: Outputs, pairs: Sequence[Pair]) -> list[Tensor]:
    """Squared differences of the flows, one [N, C1, C2] for each stage."""
    flows = ((flow(student.features, pair), flow(teacher.features, pair)) for pair in pairs)
    return [F.mse_loss(ours, theirs, reduction="none") for ours, theirs in flows]


def kept(architecture: Architecture) -> list[str]:
    """The first convolution of the second block and the last convolution of each stage."""
    return [layer for stage in architecture.stages for layer in (stage.first_conv, stage.last_conv)]


METHOD = Method(phases, kept)
