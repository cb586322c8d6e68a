"""Distillation methods, one file each, and how a protocol turns a method into phases of training.

A method's file defines METHOD, a `Method`, and these constants (harness.plan.registry): TITLE, its name in the KD
column; NUMBER, the study's for it; PARAMETERS, its own settings, the constants of its losses among them; USES, the
methods whose losses it uses; FEATURES = True where it reads features; TEACHER = False where it needs no teacher.

Losses take the student's outputs, the teacher's, and the labels int64 [N] of a batch, and return a scalar.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from harness.architectures import Architecture, FeatureStage, Outputs
from harness.compression.distillation._losses import cross_entropy, dead_zone, soft_targets, study_loss
from harness.errors import HarnessError
from harness.plan import registry
from harness.plan.specs import Objective, StagedObjective

__all__ = [
    "Loss",
    "Method",
    "Phase",
    "Setup",
    "by_labels",
    "by_objective",
    "cross_entropy",
    "dead_zone",
    "method_of",
    "taught",
    "total_epochs",
]
Loss = Callable[[Outputs, Outputs, Tensor], Tensor]


@dataclass(frozen=True)
class Setup:
    """What a method gets to see when its phases are made.

    `parameters` are its own; `used` those of the methods in USES, by name. `modules` are the trainable modules that
    `Method.modules` has made, on the student's device: they are optimised and checkpointed with the student, and left
    out of the export. `channels` gives the student's and the teacher's channels at a tap.
    """

    architecture: Architecture
    objective: Objective
    # epochs of one stage of the recipe
    epochs: int
    parameters: Mapping[str, Any]
    used: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    channels: Callable[[str], tuple[int, int]] | None = None
    modules: nn.ModuleDict = field(default_factory=nn.ModuleDict)

    @property
    def stem(self) -> str:
        """The tap after the stem; HarnessError where the architecture names none."""
        if self.architecture.stem_tap is None:
            raise HarnessError("this method reads the stem's features, and the architecture names no tap there")
        return self.architecture.stem_tap

    @property
    def stages(self) -> Sequence[FeatureStage]:
        """The stages that features are read in; HarnessError where the architecture names none."""
        if not self.architecture.stages:
            raise HarnessError("this method reads the features of stages, and the architecture names none")
        return self.architecture.stages

    def last(self, stage: FeatureStage) -> str:
        """The tap of a stage's last features, where the protocol wants them read."""
        return stage.norm if self.objective.features == "norm" else stage.sum


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one loss; the teacher's outputs are given where it needs the teacher, else None."""

    name: str
    epochs: int
    loss: Callable[[Outputs, Outputs | None, Tensor], Tensor]
    taps: frozenset[str] = frozenset()
    needs_teacher: bool = False


@dataclass(frozen=True)
class Method:
    """What a method's file brings.

    `phases(setup)`: what a student goes through; `by_objective` makes the usual ones. `kept(architecture)`: the
    convolutions whose outputs must keep the teacher's channels for the losses to be defined. `modules(setup)`:
    trainable modules of the method's own, like regressors. `fresh_weights`: the student starts from new weights.
    """

    phases: Callable[[Setup], list[Phase]]
    kept: Callable[[Architecture], Sequence[str]] = lambda _: ()
    modules: Callable[[Setup], nn.ModuleDict] | None = None
    fresh_weights: bool = False


def method_of(name: str) -> Method:
    """The plug-in of a method."""
    found: Method = registry.load("method", name, Method)
    return found


def taught(name: str, epochs: int, loss: Loss, taps: Sequence[str] = ()) -> Phase:
    """A phase whose loss needs the teacher."""

    def with_teacher(student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        assert teacher is not None, "a phase that needs the teacher runs with one"
        return loss(student, teacher, labels)

    return Phase(name, epochs, with_teacher, frozenset(taps), needs_teacher=True)


def total_epochs(setup: Setup) -> int:
    """The epochs of a method with one phase under either objective."""
    return setup.epochs * (1 if isinstance(setup.objective, StagedObjective) else setup.objective.stages)


def by_labels(setup: Setup) -> list[Phase]:
    """The one phase of a method without a teacher."""
    return [Phase("labels", total_epochs(setup), cross_entropy)]


def by_objective(
    setup: Setup, taps: Sequence[str] = (), study: Loss | None = None, paper: Loss | None = None
) -> list[Phase]:
    """The phases of a method that adds a loss on features to Base.

    `study` is the loss of the feature stage as the reference study has it, which the Base stage follows; `paper` is the
    feature term of the joint loss as the method's paper defines it. Without either that is Base itself.
    """
    objective = setup.objective
    if isinstance(objective, StagedObjective):
        parameters = setup.used.get("base", setup.parameters)
        base = taught("base", setup.epochs, lambda s, t, _: study_loss(s, t, parameters))
        return [base] if study is None else [taught("feature", setup.epochs, study, taps), base]
    temperature, share, weight = objective.temperature, objective.label_weight, objective.feature_weight
    assert temperature is not None and share is not None

    def joint(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        soft = soft_targets(student, teacher, temperature)
        total = share * cross_entropy(student, None, labels) + (1 - share) * soft
        return total if paper is None or weight is None else total + weight * paper(student, teacher, labels)

    return [taught("joint", total_epochs(setup), joint, taps if paper else ())]
