"""FMSE: mean squared error between the teacher's and the student's features at the stem and at each stage's output."""

import torch.nn.functional as F
from torch import Tensor

from harness.architectures.resnet import BLOCKS, Outputs
from harness.compression.distillation import Method, dead_zone

# After the residual sum: the study hooks bn3, but the in-place sum and ReLU that follow overwrite what the hook holds.
TAPS = ("stem", *(f"layer{stage}.sum" for stage in (1, 2, 3, 4)))


def study_loss(student: Outputs, teacher: Outputs) -> Tensor:
    """Squared errors less a dead zone of 0.1, mean per tap, summed over taps: the reference study's feature stage."""
    errors = (F.mse_loss(s, t, reduction="none") for s, t in _pairs(student, teacher))
    return sum((dead_zone(error, 0.1).mean() for error in errors), start=student.logits.new_zeros(()).float())


def paper_loss(student: Outputs, teacher: Outputs) -> Tensor:
    """Mean squared error, mean over taps: hints in the sense of Romero et al. (FitNets, 2015), without a regressor,
    since the kept layers have the teacher's width."""
    losses = [F.mse_loss(s, t) for s, t in _pairs(student, teacher)]
    return sum(losses, start=student.logits.new_zeros(()).float()) / len(losses)


def _pairs(student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
    # float32: squares of bf16 differences have two digits left
    return [(student.features[tap].float(), teacher.features[tap].float()) for tap in TAPS]


METHOD = Method(
    taps=TAPS,
    kept=("conv1", *(f"layer{stage}.{blocks - 1}.conv3" for stage, blocks in enumerate(BLOCKS, start=1))),
    study=study_loss,
    paper=paper_loss,
)
