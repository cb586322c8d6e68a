"""L1: the channels with the smallest weights go, as in the reference study.

Torch-Pruning's group importance: the L1 norm of a channel in every convolution of its dependency group, each layer's
divided by its mean, averaged over the group. (The classic filter norm of Li et al., 2017, would be
group_reduction="first" without a normaliser.) Sparse training, where a protocol asks for it, is plain training.
"""

from typing import Any

import torch_pruning as tp

from harness.compression.pruning import Criterion, Setup

TITLE = "L1"


def pruner(setup: Setup) -> Any:
    """See the module's docstring."""
    importance = tp.importance.GroupMagnitudeImportance(p=1, group_reduction="mean", normalizer="mean", bias=False)
    return tp.pruner.BasePruner(setup.model, setup.example, importance=importance, **setup.common)


CRITERION = Criterion(pruner)
