"""L1: channels with the smallest weights go, as the reference study has it.

Torch-Pruning's group importance: the L1 norm of a channel in every convolution of its dependency group, each layer's
divided by its mean, averaged over the group. (The classic filter norm of Li et al., 2017, would be
group_reduction="first" without a normaliser.) No sparse training of its own.
"""

from typing import Any

import torch_pruning as tp
from torch import Tensor, nn


def pruner(model: nn.Module, example: Tensor, regularisation: float, **common: Any) -> Any:
    """See the module's docstring; `regularisation` has no meaning here."""
    importance = tp.importance.GroupMagnitudeImportance(p=1, group_reduction="mean", normalizer="mean", bias=False)
    return tp.pruner.BasePruner(model, example, importance=importance, **common)
