"""BN: the channels with the smallest BatchNorm scale go (Liu et al., "Network Slimming", 2017).

Sparse training pushes the scales of a whole dependency group towards zero together (group lasso).
"""

from typing import Any

import torch_pruning as tp
from torch import nn

from harness.compression.pruning import Criterion, Setup

TITLE = "BN"


def pruner(setup: Setup) -> Any:
    """See the module's docstring."""
    made = tp.pruner.BNScalePruner(
        setup.model,
        setup.example,
        importance=tp.importance.BNScaleImportance(group_reduction="mean", normalizer="mean"),
        reg=setup.regularisation,
        group_lasso=True,
        **setup.common,
    )
    # The group lasso has nothing to say about groups without BatchNorm, and the pruner stumbles over them.
    made._groups = [group for group in made._groups if any(_is_norm(dependency) for dependency, _ in group)]
    return made


def _is_norm(dependency: Any) -> bool:
    return isinstance(dependency.target.module, nn.modules.batchnorm._BatchNorm)


def regularise(pruner: Any, setup: Setup) -> None:
    """Add the group lasso's gradient."""
    pruner.regularize(setup.model)


CRITERION = Criterion(pruner, regularise)
