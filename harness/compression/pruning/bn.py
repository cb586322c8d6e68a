"""BN: the channels with the smallest BatchNorm scale go (Liu et al., "Network Slimming", 2017).

Sparse training pushes the scales of a whole dependency group towards zero together (group lasso).
"""

from typing import Any

import torch_pruning as tp

from harness.compression.pruning import Criterion, Setup

TITLE = "BN"


def pruner(setup: Setup) -> Any:
    """See the module's docstring."""
    return tp.pruner.BNScalePruner(
        setup.model,
        setup.example,
        importance=tp.importance.BNScaleImportance(group_reduction="mean", normalizer="mean"),
        reg=setup.regularisation,
        group_lasso=True,
        **setup.common,
    )


def regularise(pruner: Any, setup: Setup) -> None:
    """Add the group lasso's gradient."""
    pruner.regularize(setup.model)


CRITERION = Criterion(pruner, regularise)
