"""GRAM: the flow between two layers of a stage, as the Gram matrix of their features (Yim et al., CVPR 2017: FSP)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.architectures.resnet import BLOCKS, Outputs
from harness.compression.distillation import Method, dead_zone

STAGES = (1, 2, 3, 4)


def flow(features: dict[str, Tensor], stage: int) -> Tensor:
    """The FSP matrix [N, C1, C2] between the second block's first convolution and the stage's output, over H W."""
    first = features[f"layer{stage}.conv1"].float().flatten(2)
    last = features[f"layer{stage}.sum"].float().flatten(2)
    return torch.bmm(first, last.transpose(1, 2)) / first.shape[2]


def study_loss(student: Outputs, teacher: Outputs) -> Tensor:
    """Squared differences less a dead zone of 1.0, mean per stage, summed, x 0.1, as the reference study has it."""
    total = student.logits.new_zeros(()).float()
    for stage in STAGES:
        error = F.mse_loss(flow(student.features, stage), flow(teacher.features, stage), reduction="none")
        total = total + dead_zone(error, 1.0).mean()
    return total * 0.1


def paper_loss(student: Outputs, teacher: Outputs) -> Tensor:
    """Squared FSP differences (their eq. 2, equal weights), mean over entries and stages."""
    losses = [F.mse_loss(flow(student.features, stage), flow(teacher.features, stage)) for stage in STAGES]
    return sum(losses, start=student.logits.new_zeros(()).float()) / len(losses)


METHOD = Method(
    taps=tuple(f"layer{stage}.{at}" for stage in STAGES for at in ("conv1", "sum")),
    kept=(
        *(f"layer{stage}.1.conv1" for stage in STAGES),
        *(f"layer{stage}.{blocks - 1}.conv3" for stage, blocks in enumerate(BLOCKS, start=1)),
    ),
    study=study_loss,
    paper=paper_loss,
)
