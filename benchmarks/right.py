"""right.json: whether intervals, checks and pruning hold what they promise."""

import torch

from benchmarks import Figures, in_parts
from benchmarks.interval_study import interval_figures
from benchmarks.planted_figures import planted_figures
from harness.architectures import parameter_count
from harness.compression.pruning import prune
from harness.plan import registry
from harness.plan.settings import Calibration
from harness.plan.specs import Choice, Data, Pruned, Teacher
from tests.training_kit import network, thin

AMOUNTS = [0.05 * n for n in range(1, 20)]
ROUND_TO = 2


def measure() -> Figures:
    """Every figure; prints each as it comes."""
    return in_parts(interval_figures, planted_figures, pruning_figures)


def pruning_figures() -> Figures:
    """Whether the parameters left fall with the amount, from 0.05 to 0.95, under every criterion of the package.

    On a thin ResNet50 whose BatchNorms differ as much as training makes them, outside of the study's protocol, which
    leaves a layer whole that would lose every channel. `pruning_curves` counts the criteria.
    """
    curves = {name: [_left(name, amount) for amount in AMOUNTS] for name in registry.names("criterion")}
    return {
        "pruning_monotone": all(left == sorted(left, reverse=True) for left in curves.values()),
        "pruning_curves": len(curves),
        "pruning_least_left_pct": 100 * max(left[-1] for left in curves.values()) / parameter_count(network()),
    }


def _left(criterion: str, amount: float) -> int:
    teacher = Teacher(thin(), Data(Choice("stand_in"), 100, (), 16), None, 0, "fp32", None)
    chosen = Choice(criterion, registry.resolve("criterion", criterion, {}))
    stage = Pruned(teacher, chosen, amount, ROUND_TO, ("base",), "least", Calibration(), seed=0)
    return prune(network(), torch.zeros(1, 3, 16, 16), stage).params[1]
