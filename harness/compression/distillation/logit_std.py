"""Logit standardisation: the student learns the teacher's z-scored logits (Sun et al., CVPR 2024).

Only the order and the relative distances of the teacher's logits are asked of the student, not their range.
"""

import torch.nn.functional as F
from torch import Tensor

from harness.architectures import Outputs
from harness.compression.distillation import Method, Phase, Setup, cross_entropy, taught, total_epochs

TITLE = "Logit Std."
PARAMETERS = {"temperature": 2.0, "weight": 9.0, "label_weight": 0.1}


def standardise(logits: Tensor) -> Tensor:
    """Logits [N, classes] with zero mean and unit deviation over the classes."""
    logits = logits.float()
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + 1e-7)


def phases(setup: Setup) -> list[Phase]:
    """One phase: labels, and T^2 x KL between the standardised logits at temperature T, mean over the batch."""
    temperature, weight = setup.parameters["temperature"], setup.parameters["weight"]
    label_weight = setup.parameters["label_weight"]

    def loss(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        target = F.log_softmax(standardise(teacher.logits) / temperature, dim=1)
        prediction = F.log_softmax(standardise(student.logits) / temperature, dim=1)
        soft = temperature**2 * F.kl_div(prediction, target, reduction="batchmean", log_target=True)
        return label_weight * cross_entropy(student, None, labels) + weight * soft

    return [taught("logits", total_epochs(setup), loss)]


METHOD = Method(phases)
