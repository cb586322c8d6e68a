"""Distillation methods, one file each, and how a protocol turns a method into training phases.

A method's file defines `METHOD`, a `Method`; its name in matrix.toml is the file's name. Losses take the student's
and the teacher's outputs for the same batch and return a scalar.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.architectures.resnet import TAPS, Outputs

FeatureLoss = Callable[[Outputs, Outputs], Tensor]


@dataclass(frozen=True)
class Method:
    """How a student learns from its teacher.

    taps: the features that the losses read (see model.TAPS). kept: the convolutions whose output must keep the
    teacher's width for the losses to be defined. study: the loss of the feature stage as the reference study has it.
    paper: the feature term of the joint loss as the method's paper defines it. A method without feature losses learns
    from the teacher's predictions alone; `teacher=False` from labels alone.
    """

    taps: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    study: FeatureLoss | None = None
    paper: FeatureLoss | None = None
    teacher: bool = True
    # start from new weights instead of the pruned ones
    fresh_weights: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.taps) - set(TAPS)
        if unknown:
            raise ValueError(f"unknown taps {sorted(unknown)}; there are {', '.join(TAPS)}")


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one loss: loss(student, teacher or None, labels) -> scalar."""

    name: str
    epochs: int
    loss: Callable[[Outputs, Outputs | None, Tensor], Tensor]
    taps: frozenset[str] = frozenset()
    needs_teacher: bool = False


def method(name: str) -> Method:
    """The method that the file `name`.py defines."""
    found: Method = import_module(f"{__name__}.{name}").METHOD
    return found


def cross_entropy(student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
    """Labels alone."""
    return F.cross_entropy(student.logits.float(), labels)


def phases(kd: dict[str, Any], epochs: int) -> list[Phase]:
    """The phases of a cell, from the `kd` part of its settings and the recipe's epochs per stage."""
    chosen = method(kd["method"])
    if kd["objective"] == "stages":
        return _stages(chosen, epochs)
    return [_joint(chosen, kd, epochs * kd["stages"])]


def _stages(chosen: Method, epochs: int) -> list[Phase]:
    if not chosen.teacher:
        return [Phase("labels", epochs, cross_entropy)]
    from harness.compression.distillation.base import study_loss

    base = Phase("base", epochs, lambda s, t, _: study_loss(s, _given(t)), needs_teacher=True)
    feature_loss = chosen.study
    if feature_loss is None:
        return [base]
    feature = Phase(
        "feature", epochs, lambda s, t, _: feature_loss(s, _given(t)), frozenset(chosen.taps), needs_teacher=True
    )
    return [feature, base]


def _joint(chosen: Method, kd: dict[str, Any], epochs: int) -> Phase:
    if not chosen.teacher:
        return Phase("joint", epochs, cross_entropy)
    from harness.compression.distillation.base import paper_loss

    feature_loss, weight = chosen.paper, kd["feature_weight"]

    def loss(student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        given = _given(teacher)
        soft = paper_loss(student, given, kd["temperature"])
        total = kd["label_weight"] * cross_entropy(student, None, labels) + (1 - kd["label_weight"]) * soft
        return total if feature_loss is None else total + weight * feature_loss(student, given)

    return Phase("joint", epochs, loss, frozenset(chosen.taps), needs_teacher=True)


def _given(teacher: Outputs | None) -> Outputs:
    assert teacher is not None, "a phase that needs the teacher runs with one"
    return teacher


def dead_zone(error: Tensor, width: float) -> Tensor:
    """max(error - width, 0): the reference study's way of ignoring small errors."""
    return torch.clamp(error - width, min=0.0)
