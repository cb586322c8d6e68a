"""Random: channels go by the draw. The control that every criterion has to beat (Li et al., "Revisiting Random Channel
Pruning", CVPR 2022)."""

from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor

from harness.compression.pruning import Criterion, Setup

TITLE = "Random"
SEEDED = True


class Drawn(tp.importance.Importance):  # type: ignore[misc]
    """A random score for every channel of a group, from generator to generator the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, group: Any) -> Tensor:
        _, channels = group[0]
        return torch.rand(len(channels), generator=self.generator)


def pruner(setup: Setup) -> Any:
    """See the module's docstring."""
    return tp.pruner.BasePruner(setup.model, setup.example, importance=Drawn(setup.seed), **setup.common)


CRITERION = Criterion(pruner)
