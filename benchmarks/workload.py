"""What the training benchmarks train: a network, nine students of it, images, a recipe."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.architectures.resnet import ResNet50, full_widths
from harness.compression.distillation import phases
from harness.compression.pruning import prune
from harness.errors import HarnessError
from harness.plan.planning import Cell
from harness.store.paths import data_root
from harness.store.records import Epoch, TrainRecord
from harness.training import data
from harness.training.data import Images, Stream
from harness.training.device import Device
from harness.training.loop import Learner, train

RECIPE: dict[str, Any] = {
    "lr": 0.01,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "schedule": "cosine",
    "gamma": 1.0,
    "warmup_epochs": 0.0,
    "clip_norm": 1.0,
}
PRUNE_METHODS, KD_METHODS, AMOUNT = ("l1", "bn", "gn"), ("base", "fmse", "gram"), 0.3


class Silent:
    """A reporter that says nothing."""

    def stage(self, text: str) -> None: ...

    def step(self, epoch: int, epochs: int, step: int, steps: int, learners: int, images_per_s: float) -> None: ...

    def epoch(self, learner: str, number: int, of: int, epoch: Epoch) -> None: ...

    def cell(self, cell: Cell, record: TrainRecord) -> None: ...


@dataclass(frozen=True)
class Student:
    """A pruned network and how it learns."""

    name: str
    model: ResNet50
    kd: dict[str, Any]

    def learner(self, folder: Path) -> Learner:
        """A learner at its beginning, one epoch per stage."""
        return Learner(self.name, self.model, RECIPE, phases(self.kd, 1), folder / f"{self.name}.pt")


def some_images(count: int) -> Images:
    """Training images: CIFAR-100's where it is at hand, else drawn ones. Speed does not depend on which."""
    root = data_root()
    found = data.provide(root, allow_stand_in=True, download=False)
    images = data.load(found, root, train=True) if found == "cifar100" else data.draw_stand_in(count, seed=1)
    return images.first(count)


def network(width: float) -> ResNet50:
    """An untrained network whose channels differ in importance as training would have it."""
    torch.manual_seed(0)
    model = ResNet50(full_widths(width), "cifar")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return model


def nine_students(width: float, image_size: int) -> tuple[ResNet50, list[Student]]:
    """A teacher, and the students of the study's first table: three pruning by three distillation methods."""
    teacher, example = network(width), torch.zeros(1, 3, image_size, image_size)
    multiple = 8 if width >= 0.25 else 4
    students = []
    for method in PRUNE_METHODS:
        for kd in KD_METHODS:
            pruned = prune(method, copy.deepcopy(teacher), example, [kd], AMOUNT, multiple).model
            students.append(Student(f"{method}-{kd}", pruned, {"method": kd, "objective": "stages"}))
    return teacher.requires_grad_(False), students


def train_all(
    learners: Sequence[Learner], stream: Stream, device: Device, teacher: ResNet50 | None = None, **how: Any
) -> None:
    """The engine's loop; a learner that fails would be fast, and is no measurement."""
    train(learners, stream, device, Silent(), lambda _: None, teacher, **how)
    if failed := [f"{one.name}: {one.failure.message}" for one in learners if one.failure]:
        raise HarnessError(f"not measured: {'; '.join(failed)}")
