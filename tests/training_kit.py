"""Thin networks, a few small images, one thread, no network access: what the tests of training share."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from harness.architectures import Outputs, Shapes, architecture_of, build, rebuild
from harness.datasets import Images, cifar100, stand_in
from harness.datasets.stand_in import draw
from harness.plan.loading import load_settings
from harness.plan.planning import Cell, Plan, make_plan
from harness.plan.settings import Recipe, Settings
from harness.plan.specs import Choice, Network
from harness.store.paths import Paths
from harness.store.records import Epoch, TrainRecord
from harness.training.batches import Stream
from harness.training.device import Device
from tests.documents import DOCUMENT, as_toml, put

WIDTH = 0.0625
M = TypeVar("M", bound=nn.Module)
CPU = Device(torch.device("cpu"), bf16=False)


def thin(architecture: str = "resnet50", stem: str = "cifar", width: float = WIDTH) -> Network:
    """The spec of a network for 100 classes, by default as thin as it gets."""
    return Network(Choice(architecture), 100, width, stem)


def network(seed: int = 0, pruned: bool = False, spec: Network | None = None) -> nn.Module:
    """A thin ResNet50 in evaluation mode, every BatchNorm with scales and statistics of its own."""
    spec = spec or thin()
    torch.manual_seed(seed)
    model = build(spec)
    if pruned:
        model = rebuild(spec, pruned_shapes(spec))
        architecture_of(spec).initialise(model)
    return scatter(model.eval())


def scatter(model: M) -> M:
    """Give each BatchNorm scales, shifts and statistics as different as training would."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    return model


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter and buffer, by name."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def pruned_shapes(spec: Network) -> Shapes:
    """The shapes of a ResNet as pruning leaves it: an odd number of channels, three, before a block's last layer."""
    with torch.device("meta"):
        shapes = shapes_of(build(spec))
    last = 3 if "layer1.0.conv3.weight" in shapes else 2
    for name, shape in shapes.items():
        if f".conv{last - 1}." in name:
            shapes[name] = (3, *shape[1:])
        elif f".bn{last - 1}." in name and shape:
            shapes[name] = (3,)
        elif f".conv{last}." in name:
            shapes[name] = (shape[0], 3, *shape[2:])
    return shapes


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks are equal bit for bit, BatchNorm's statistics included."""
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def outputs(logits: Any, **features: Any) -> Outputs:
    """Outputs from nested lists; features by tap, a dot written as two underscores."""
    tensors = {name.replace("__", "."): torch.as_tensor(value) for name, value in features.items()}
    return Outputs(torch.as_tensor(logits, dtype=torch.float32), tensors)


def recipe(**changes: Any) -> Recipe:
    """A recipe for batches of 16 images of 8 pixels, one epoch a stage."""
    usual = {"epochs": 1, "batch_size": 16, "lr": 0.05, "warmup_epochs": 0.5, "clip_norm": 1.0, "image_sizes": [8]}
    return Recipe(**{**usual, **changes})


@dataclass
class Told:
    """A reporter that remembers."""

    stages: list[str] = field(default_factory=list)
    epochs: list[tuple[str, int, int]] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    steps: int = 0

    def step(self, epoch: int, epochs: int, step: int, steps: int, learners: int, images_per_s: float) -> None:
        self.steps += 1

    def epoch(self, learner: str, number: int, of: int, epoch: Epoch) -> None:
        self.epochs.append((learner, number, of))

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def cell(self, cell: Cell, record: TrainRecord) -> None:
        self.cells.append(cell.id)


def stop_after(steps: int) -> Callable[[], bool]:
    """A `keep_going` that says stop after that many steps."""
    left = iter(range(steps - 1))
    return lambda: next(left, None) is not None


def tiny_document() -> dict[str, Any]:
    """matrix.toml with a quick profile of seconds: 200 images of 16 pixels, one epoch of four steps for everything."""
    document = deepcopy(DOCUMENT)
    for place, value in {
        "dataset.stand_in.test_images": 300,
        "profile.quick.data.dataset": "cifar100",
        "profile.quick.model.width": WIDTH,
        "profile.quick.data.train_images": 200,
        "profile.quick.data.image_size": 16,
        "profile.quick.teacher.epochs": 1,
        "profile.quick.teacher.batch_size": 50,
        "profile.quick.teacher.warmup_epochs": 0,
        "profile.quick.student.epochs": 1,
        "profile.quick.student.batch_size": 50,
        "profile.quick.pruning.sparse.batch_size": 50,
    }.items():
        put(document, place, value)
    return document


def tiny_matrix_file(folder: Path, criteria: list[str], methods: list[str], **changes: Any) -> Path:
    """A matrix.toml of the tiny quick profile, its experiments "prune-0.3" and "controlled" cut down to these methods.

    The network is a ResNet18, which has a third of the layers of a ResNet50. Changes are by place, with two underscores
    for a dot: profile__quick__student__lr=0.01.
    """
    document = tiny_document()
    put(document, "profile.quick.model.architecture", "resnet18")
    for experiment in document["experiment"]:
        if experiment["name"] in ("prune-0.3", "controlled"):
            experiment.update(prune_method=criteria, kd_method=methods)
    for place, value in changes.items():
        put(document, place.replace("__", "."), value)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "matrix.toml"
    path.write_text(as_toml(document), encoding="utf-8")
    return path


def tiny_settings(folder: Path, criteria: list[str], methods: list[str], **changes: Any) -> Settings:
    """The settings of the file that `tiny_matrix_file` writes."""
    return load_settings(tiny_matrix_file(folder, criteria, methods, **changes), "quick")


def tiny_plan(
    folder: Path, criteria: list[str], methods: list[str], experiment: str = "prune-0.3", **changes: Any
) -> Plan:
    """A plan over drawn images."""
    return make_plan(tiny_settings(folder, criteria, methods, **changes), "quick", "stand_in", [experiment])


def below(folder: Path) -> Paths:
    """Results, artifacts and data under one folder."""
    return Paths(folder / "results", folder / "artifacts", folder / "data")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which no download succeeds, and DATA_DIR is not set."""

    def fetch(*_: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(cifar100.Cifar100, "fetch", fetch)
    monkeypatch.delenv("DATA_DIR", raising=False)


@pytest.fixture(scope="package")
def images() -> Images:
    """Drawn images, 32 pixels wide."""
    return draw(300, seed=3)


@pytest.fixture(scope="package")
def stream(images: Images) -> Stream:
    """Three batches of 16 images of 8 pixels."""
    return Stream(images.first(48), recipe(), ("crop", "flip"), "student", seed=0)


@pytest.fixture(scope="module")
def few_images() -> Iterator[None]:
    """Stand-in data sets of 300 images in place of thousands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stand_in, "TRAIN_IMAGES", 300)
        yield
