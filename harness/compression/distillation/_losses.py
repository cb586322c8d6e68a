"""What several methods' losses are made of."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.architectures import Outputs


def cross_entropy(student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
    """Labels alone."""
    return F.cross_entropy(student.logits.float(), labels)


def dead_zone(error: Tensor, width: float) -> Tensor:
    """max(error - width, 0): the reference study's way of ignoring small errors."""
    return torch.clamp(error - width, min=0.0)


def study_loss(student: Outputs, teacher: Outputs, parameters: Mapping[str, Any]) -> Tensor:
    """Per-class cross-entropy of the student at T = 1 against the teacher at T = 2, less a dead zone of 0.1.

    As in the reference study: no labels, no factor T^2, and 1e-6 added inside the logarithm. That guard is no detail:
    it bounds each term, and where the student is sure of itself the gradient is another one without it. Summed over
    classes, mean over the batch.
    """
    target = F.softmax(teacher.logits.float() / parameters["temperature"], dim=1)
    terms = -target * torch.log(F.softmax(student.logits.float(), dim=1) + parameters["guard"])
    return dead_zone(terms, parameters["dead_zone"]).sum(1).mean()


def soft_targets(student: Outputs, teacher: Outputs, temperature: float) -> Tensor:
    """T^2 x KL(teacher || student) at temperature T, mean over the batch (Hinton et al., 2015)."""
    target = F.log_softmax(teacher.logits.float() / temperature, dim=1)
    prediction = F.log_softmax(student.logits.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(prediction, target, reduction="batchmean", log_target=True)
