"""GN: the channels with the smallest group L2 norm go (Fang et al., "DepGraph", 2023, sect. 3.3).

Sparse training shrinks weak groups faster than strong ones, by up to 2^alpha.
"""

from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor

from harness.compression.pruning import Criterion, Setup

TITLE = "GN"
PARAMETERS = {"alpha": 4.0}


class SafeGroupNorm(tp.importance.GroupMagnitudeImportance):  # type: ignore[misc]
    """Group L2 norm, each layer's divided by its largest.

    Where all channels of a group score the same, the pruner's (max - x) / (max - min), over square roots, is 0 / 0 and
    its NaN ends up in the weights; a slope too small to change any ranking prevents that.
    """

    def __call__(self, group: Any) -> Tensor | None:
        scores: Tensor | None = super().__call__(group)
        if scores is not None and len(scores) > 1 and scores.max().sqrt() == scores.min().sqrt():
            scores = scores + torch.linspace(0, 1e-6, len(scores), device=scores.device)
        return scores


def pruner(setup: Setup) -> Any:
    """See the module's docstring."""
    importance = SafeGroupNorm(p=2, group_reduction="mean", normalizer="max", bias=False)
    return tp.pruner.GroupNormPruner(
        setup.model, setup.example, importance=importance, reg=setup.regularisation, **setup.common
    )


def regularise(pruner: Any, setup: Setup) -> None:
    """Add the growing regulariser's gradient. The pruner's own argument of this name has no effect."""
    pruner.regularize(setup.model, alpha=2 ** setup.parameters["alpha"])


CRITERION = Criterion(pruner, regularise)
