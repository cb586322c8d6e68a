"""Small networks, few images, one thread, no network: what the training room's tests share."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from harness.architectures.resnet import Outputs, ResNet50, Widths, full_widths
from harness.plan.planning import Cell, DataName, Plan, make_plan
from harness.plan.settings import Settings, load_settings
from harness.store.paths import Paths
from harness.store.records import Epoch, TrainRecord
from harness.training import data
from harness.training.data import Images, Stream, draw_stand_in
from harness.training.device import Device
from tests.documents import DOCUMENT, as_toml, put

WIDTH = 0.0625
M = TypeVar("M", bound=nn.Module)
CPU = Device(torch.device("cpu"), bf16=False)


def network(seed: int = 0, widths: Widths | None = None, stem: str = "cifar") -> ResNet50:
    """A thin ResNet50, every BatchNorm with scales and statistics of its own, ready to be used."""
    torch.manual_seed(seed)
    return scatter(ResNet50(widths or full_widths(WIDTH), stem).eval())


def scatter(model: M) -> M:
    """Give each BatchNorm scales, shifts and statistics as different as training would."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    return model


def pruned_widths() -> Widths:
    """Widths as pruning leaves them: odd ones inside the blocks."""
    return {name: 3 if name.endswith("conv2") else channels for name, channels in full_widths(WIDTH).items()}


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Bit for bit, BatchNorm's statistics included."""
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def outputs(logits: Any, **features: Any) -> Outputs:
    """Outputs from nested lists; features by tap, a dot written as two underscores."""
    tensors = {name.replace("__", "."): torch.as_tensor(value) for name, value in features.items()}
    return Outputs(torch.as_tensor(logits, dtype=torch.float32), tensors)


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


def patience(steps: int) -> Callable[[], bool]:
    """A `keep_going` that says stop after that many steps."""
    left = iter(range(steps - 1))
    return lambda: next(left, None) is not None


def tiny_document() -> dict[str, Any]:
    """matrix.toml with a quick profile of seconds: 200 images of 16 pixels, one epoch of four steps for everything."""
    document = deepcopy(DOCUMENT)
    for place, value in {
        "precision": "fp32",
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


def tiny_settings(folder: Path, methods: list[str], kd: list[str], **changes: Any) -> Settings:
    """The tiny quick profile with experiment 1 (or "controlled") cut down to these methods; changes by place."""
    document = tiny_document()
    for place, value in changes.items():
        put(document, place.replace("__", "."), value)
    for experiment in document["experiment"]:
        if experiment["name"] in ("prune-0.3", "controlled"):
            experiment.update(prune_method=methods, kd_method=kd)
    path = folder / "matrix.toml"
    path.write_text(as_toml(document), encoding="utf-8")
    return load_settings(path, "quick")


def tiny_plan(folder: Path, methods: list[str], kd: list[str], experiment: str = "prune-0.3", **changes: Any) -> Plan:
    """A plan over drawn data."""
    return make_plan(tiny_settings(folder, methods, kd, **changes), "quick", "stand-in", [experiment])


def below(folder: Path) -> Paths:
    """Everything under one folder."""
    return Paths(folder / "results", folder / "artifacts", folder / "data")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more, and lose much where others compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a network."""

    def download(_: Path) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(data, "_download", download)
    monkeypatch.delenv("DATA_DIR", raising=False)


@pytest.fixture(scope="package")
def images() -> Images:
    """Drawn images, 32 pixels wide."""
    return draw_stand_in(300, seed=3)


@pytest.fixture(scope="package")
def stream(images: Images) -> Stream:
    """Three batches of 16 images of 8 pixels."""
    return Stream(images.first(48), 16, 8, ("crop", "flip"), seed=0)


@pytest.fixture(scope="module")
def few_images(images: Images) -> Iterator[None]:
    """Stand-in data sets of 300 images in place of thousands."""
    sets = {True: images, False: draw_stand_in(300, seed=4)}

    def load(name: DataName, root: Path, train: bool) -> Images:
        assert name == "stand-in"
        return sets[train]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", load)
        yield
