"""Base KD: the student learns the teacher's class probabilities."""

import torch.nn.functional as F
from torch import Tensor

from harness.architectures.resnet import Outputs
from harness.compression.distillation import Method, dead_zone


def study_loss(student: Outputs, teacher: Outputs) -> Tensor:
    """Per-class cross-entropy against the teacher at T = 2, the student at T = 1, less a dead zone of 0.1.

    As in the reference study: no labels, no factor T^2. Summed over classes, mean over the batch.
    """
    target = F.softmax(teacher.logits.float() / 2, dim=1)
    # The study adds 1e-6 inside the logarithm; log_softmax needs no such guard and differs by less than 1e-4 of a term.
    terms = -target * F.log_softmax(student.logits.float(), dim=1)
    return dead_zone(terms, 0.1).sum(1).mean()


def paper_loss(student: Outputs, teacher: Outputs, temperature: float) -> Tensor:
    """T^2 x KL(teacher || student) at temperature T, mean over the batch (Hinton et al., 2015)."""
    target = F.log_softmax(teacher.logits.float() / temperature, dim=1)
    prediction = F.log_softmax(student.logits.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(prediction, target, reduction="batchmean", log_target=True)


METHOD = Method()
