"""FMSE: mean squared error between the teacher's and the student's features at the stem and at each stage's output."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from harness.architectures import Architecture, Outputs
from harness.compression.distillation import Method, Phase, Setup, by_objective, dead_zone

TITLE = "FMSE+Base"
NUMBER = 1
USES = ("base",)
FEATURES = True
PARAMETERS = {"dead_zone": 0.1}


def phases(setup: Setup) -> list[Phase]:
    """The study's: squared errors less a dead zone, mean per tap, summed over taps.

    The paper's: mean squared error, mean over taps; hints in the sense of Romero et al. (FitNets, 2015), without a
    regressor, since the kept layers have the teacher's channels.
    """
    taps = (setup.stem, *(setup.last(stage) for stage in setup.stages))
    width = setup.parameters["dead_zone"]

    def study(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        return _sum([dead_zone(error, width).mean() for error in squared_errors(student, teacher, taps)])

    def paper(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        return _sum([error.mean() for error in squared_errors(student, teacher, taps)]) / len(taps)

    return by_objective(setup, taps, study, paper)


def squared_errors(student: Outputs, teacher: Outputs, taps: Sequence[str]) -> list[Tensor]:
    """Squared differences at each tap, [N, C, H, W]; in float32, since those of bf16 numbers have two digits left."""
    pairs = ((student.features[tap].float(), teacher.features[tap].float()) for tap in taps)
    return [F.mse_loss(ours, theirs, reduction="none") for ours, theirs in pairs]


def _sum(losses: Sequence[Tensor]) -> Tensor:
    return sum(losses[1:], start=losses[0])


def kept(architecture: Architecture) -> list[str]:
    """The stem's convolution and the last one of each stage."""
    stem = [architecture.stem_conv] if architecture.stem_conv else []
    return [*stem, *(stage.last_conv for stage in architecture.stages)]


METHOD = Method(phases, kept)
