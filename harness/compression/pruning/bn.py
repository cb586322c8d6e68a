"""BN: channels with the smallest BatchNorm scale go (Liu et al., "Network Slimming", 2017).

Sparse training pushes the scales of a whole dependency group towards zero together (group lasso).
"""

from typing import Any

import torch_pruning as tp
from torch import Tensor, nn


def pruner(model: nn.Module, example: Tensor, regularisation: float, **common: Any) -> Any:
    """See the module's docstring."""
    importance = tp.importance.BNScaleImportance(group_reduction="mean", normalizer="mean")
    return tp.pruner.BNScalePruner(
        model, example, importance=importance, reg=regularisation, group_lasso=True, **common
    )
