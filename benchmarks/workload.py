"""What the training benchmarks train: a network and nine students of it, with images and a recipe."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import ROOT
from harness import datasets
from harness.architectures import architecture_of, build, network_of
from harness.compression.distillation import Phase, Setup, method_of
from harness.compression.pruning import prune
from harness.datasets import Images
from harness.datasets.stand_in import draw
from harness.errors import HarnessError
from harness.plan.loading import load_settings
from harness.plan.planning import Plan, make_plan
from harness.plan.settings import Recipe
from harness.plan.specs import Choice, Network, Student
from harness.store.paths import data_root, has_dataset
from harness.store.records import Epoch
from harness.training.batches import Stream
from harness.training.device import Device, choose_device, emulates_bf16
from harness.training.loop import Learner, train

# The experiment that the students are taken from: three pruning criteria by three distillation methods.
PROFILE, EXPERIMENT = "full", "prune-0.3"
AUGMENTATIONS = ("crop", "flip")


class Silent:
    """A watcher that says nothing."""

    def step(self, epoch: int, epochs: int, step: int, steps: int, learners: int, images_per_s: float) -> None: ...

    def epoch(self, learner: str, number: int, of: int, epoch: Epoch) -> None: ...


@dataclass(frozen=True)
class Contestant:
    """A pruned network, and the stage that says how it is distilled."""

    name: str
    model: nn.Module
    stage: Student

    def learner(self, folder: Path) -> Learner:
        """A learner at the beginning of its training, with its checkpoint in this folder."""
        todo = phases(self.stage, self.model)
        return Learner(self.name, self.model, self.stage.recipe, todo, folder / f"{self.name}.pt")


def recipe(batch_size: int, image_size: int, **changes: Any) -> Recipe:
    """How everything is trained here: for one epoch per phase, unless that is changed."""
    usual = {"epochs": 1, "batch_size": batch_size, "lr": 0.01, "clip_norm": 1.0, "image_sizes": [image_size]}
    return Recipe.model_validate({**usual, **changes})


def native_device() -> Device:
    """The GPU or the CPU, in bf16 where it computes that natively, else in fp32."""
    device = choose_device("bf16")
    return choose_device("fp32") if emulates_bf16(device) else device


def some_images(count: int) -> Images:
    """Training images: CIFAR-100's where they are at hand, else drawn ones. Speed does not depend on which."""
    root = data_root()
    found = has_dataset(root, "cifar100")
    return (datasets.load("cifar100", {}, root, train=True) if found else draw(count, seed=1)).first(count)


def stream(images: Images, how: Recipe, augmentations: Sequence[str] = AUGMENTATIONS) -> Stream:
    """The batches of a recipe."""
    return Stream(images, how, tuple(augmentations), "benchmark", 0)


def untrained(network: Network, seed: int = 0, least_scale: float = 0.5) -> nn.Module:
    """An untrained network whose BatchNorm scales differ, as training would have them, from `least_scale` to 1."""
    torch.manual_seed(seed)
    model = build(network)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, least_scale, 1.0)
    return model


def resnet50(width: float) -> nn.Module:
    """The network that speed is measured on."""
    return untrained(Network(Choice("resnet50"), 100, width, "cifar"))


def nine_students(width: float, image_size: int, batch_size: int) -> tuple[nn.Module, list[Contestant]]:
    """A teacher, and the students of the reference study's first table, to be trained for one epoch per phase."""
    plan = students_plan(width, image_size, batch_size)
    teacher, example = untrained(plan.teacher.teacher.network), torch.zeros(1, 3, image_size, image_size)
    students = [
        Contestant(cell.id, prune(copy.deepcopy(teacher), example, cell.student.start).model, cell.student)
        for cell in plan.cells[1:]
    ]
    return teacher.requires_grad_(False), students


def students_plan(width: float, image_size: int, batch_size: int) -> Plan:
    """The experiment at this size; its first cell is the teacher, the others are the students."""
    settings = load_settings(ROOT / "matrix.toml", PROFILE)
    changed = {
        "model": settings.model.model_copy(update={"width": width}),
        "data": settings.data.model_copy(update={"image_size": image_size}),
        "student": recipe(batch_size, image_size),
    }
    return make_plan(settings.model_copy(update=changed), PROFILE, experiments=[EXPERIMENT])


def phases(stage: Student, model: nn.Module) -> list[Phase]:
    """What a student's method has it go through; for methods without modules of their own."""
    own, *used = stage.methods
    parameters = {choice.name: choice.parameters for choice in used}
    setup = Setup(architecture_of(network_of(model)), stage.objective, stage.recipe.epochs, own.parameters, parameters)
    return method_of(own.name).phases(setup)


def train_all(
    learners: Sequence[Learner], batches: Stream, device: Device, teacher: nn.Module | None = None, **how: Any
) -> None:
    """Train with the harness's own loop. HarnessError where a learner fails: it would be fast, and no measurement."""
    train(learners, batches, device, Silent(), lambda _: None, teacher, **how)
    if failed := [f"{one.name}: {one.failure.message}" for one in learners if one.failure]:
        raise HarnessError(f"not measured: {'; '.join(failed)}")
