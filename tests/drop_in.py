"""One new file for each kind of plug-in, outside the package, walked from matrix.toml to records that stand.

`walk` counts the files that the addition took; matrix.toml, which a user writes anyway, is not one of them.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.plan import registry
from harness.plan.planning import Plan, make_plan
from harness.plan.registry import Kind
from harness.reporting.reading import read_rows
from harness.store.chain import Chain
from harness.store.paths import Paths
from harness.training.device import Device
from harness.training.pipeline import Summary, make_cells
from tests.training_kit import CPU, Told, below, tiny_settings


@dataclass(frozen=True)
class DropIn:
    """A plug-in as text, and what matrix.toml says to use it.

    `settings` are changes by place, as tests.training_kit.tiny_settings takes them. The other axes are `criteria` and
    `methods`; `dataset` is the one to train on.
    """

    kind: Kind
    module: str
    attribute: str
    title: str
    source: str
    criteria: tuple[str, ...] = ("l1",)
    methods: tuple[str, ...] = ("base",)
    dataset: str = "stand_in"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name by which matrix.toml calls a plug-in outside the package."""
        return f"{self.module}:{self.attribute}"

    def write(self, folder: Path) -> list[Path]:
        """Write what has to be added, and return the files."""
        path = folder / f"{self.module}.py"
        path.write_text(self.source, encoding="utf-8")
        return [path]


@dataclass(frozen=True)
class Made:
    """What a walk left behind."""

    files: list[Path]
    plan: Plan
    paths: Paths
    summary: Summary
    told: Told


@contextmanager
def imported(folder: Path) -> Iterator[None]:
    """The modules in a folder can be imported, as with PYTHONPATH; afterwards nothing of them is left."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in {path.stem for path in folder.glob("*.py")}:
            sys.modules.pop(name, None)


def plan_of(added: DropIn, folder: Path) -> Plan:
    """The plan of a matrix.toml, written to `folder`, that uses the plug-in."""
    settings = tiny_settings(folder, list(added.criteria), list(added.methods), **added.settings)
    return make_plan(settings, "quick", added.dataset, ["prune-0.3"])


def make(added: DropIn, folder: Path, device: Device = CPU) -> Made:
    """Add the plug-in and make every cell of a plan that uses it."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.rglob("*.py"))
    added.write(folder)
    files = sorted(set(folder.rglob("*.py")) - before)
    with imported(folder):
        plan, paths, told = plan_of(added, folder), below(folder), Told()
        return Made(files, plan, paths, make_cells(plan, paths, device, told), told)


def walk(kind: Kind, folder: Path) -> int:
    """Add a plug-in of this kind and make the models that use it; how many files it took.

    AssertionError where a model was not made, where a record does not stand, or where a row of the table lacks it or
    no row names the plug-in.
    """
    added = KINDS[kind]
    made = make(added, folder)
    assert made.summary.complete and not made.summary.failed, made.summary.failed
    with imported(folder):
        chain = Chain(made.plan, made.paths.results)
        for cell in made.plan.cells:
            for link in (chain.train(cell), chain.export(cell)):
                assert link.standing and not link.changed, f"{cell.id}: {link.stage} {link.state} {link.reason}"
            assert made.paths.model_file(made.plan.profile, cell).is_file(), cell.id
        rows = read_rows(made.plan, made.plan.tables[0], made.paths.results)
        assert [row.cell for row in rows if row.train and row.export] == list(made.plan.cells)
        # nothing was measured, and nothing else is wrong
        wrong = [problem for row in rows for problem in row.problems if problem.stage not in ("latency", "accuracy")]
        assert not wrong, wrong
        named = {text for row in rows for text in (row.cell.title, row.pruning, row.kd)}
        assert added.title in named | {registry.find(kind, added.name).title for _ in rows if kind == "dataset"}
    return len(made.files)


ARCHITECTURE = DropIn(
    "architecture",
    "dropped_in_network",
    "SMALL",
    "Small",
    '''"""A network with a depthwise convolution, LayerNorm and Linear layers, and no taps for features."""

import torch
from torch import Tensor, nn

from harness.architectures import Architecture
from harness.plan.specs import Network

TITLE = "Small"
CHANNELS = 16
PARAMETERS = {"expansion": 2}


class Module(nn.Module):
    def __init__(self, channels: int, expansion: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, 2, 1)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.bn = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, 2 * channels, 1)
        self.norm = nn.LayerNorm(2 * channels)
        self.hidden = nn.Linear(2 * channels, 2 * expansion * channels)
        self.head = nn.Linear(2 * expansion * channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.depthwise(torch.relu(self.stem(images)))))
        x = self.norm(self.pointwise(x).mean((2, 3)))
        return self.head(torch.relu(self.hidden(x)))


class Small(Architecture):
    classifier = "head"

    def build(self, network: Network) -> nn.Module:
        expansion = network.architecture.parameters["expansion"]
        return Module(int(CHANNELS * network.width), expansion, network.classes)


SMALL = Small()
''',
    criteria=("l1", "bn"),
    methods=("base", "scratch"),
    settings={
        "profile__quick__model__architecture": "dropped_in_network:SMALL",
        "profile__quick__model__width": 1.0,
        "pruning__round_to": 2,
    },
)

DATASET = DropIn(
    "dataset",
    "dropped_in_images",
    "STRIPES",
    "stripes",
    '''"""Four classes of striped images, 8 pixels wide."""

from pathlib import Path

import torch

from harness.datasets import Dataset, Images, Parameters

TITLE = "stripes"
CLASSES = 4
TRAIN_IMAGES = 120
PARAMETERS = {"noise": 20}


class Stripes(Dataset):
    def find(self, root: Path, parameters: Parameters) -> bool:
        return True

    def load(self, root: Path, parameters: Parameters, train: bool) -> Images:
        random = torch.Generator().manual_seed(int(train))
        labels = torch.arange(TRAIN_IMAGES if train else 60) % CLASSES
        across = torch.arange(8) % (2 + labels[:, None]) * 60
        pixels = across[:, None, None, :].expand(-1, 3, 8, 8)
        noise = torch.randint(0, parameters["noise"], pixels.shape, generator=random)
        return Images((pixels + noise).clamp(0, 255).to(torch.uint8), labels, (0.3, 0.3, 0.3), (0.2, 0.2, 0.2))


STRIPES = Stripes()
''',
    dataset="dropped_in_images:STRIPES",
    settings={
        "profile__quick__data__dataset": "dropped_in_images:STRIPES",
        "profile__quick__data__train_images": 100,
        "profile__quick__data__image_size": 8,
        "dataset": {"dropped_in_images:STRIPES": {"noise": 5}},
    },
)

CRITERION = DropIn(
    "criterion",
    "dropped_in_criterion",
    "TAYLOR",
    "Taylor",
    '''"""Taylor: the channels go whose removal changes the loss least, to first order (Molchanov et al., CVPR 2019)."""

from itertools import islice
from typing import Any

import torch.nn.functional as F
import torch_pruning as tp

from harness.compression.pruning import Criterion, Setup

TITLE = "Taylor"
SEEDED = True
PARAMETERS = {"batches": 2}


def pruner(setup: Setup) -> Any:
    for images, labels in islice(setup.batches(), setup.parameters["batches"]):
        F.cross_entropy(setup.model(images), labels).backward()
    importance = tp.importance.GroupTaylorImportance(group_reduction="mean", normalizer="mean", multivariable=False)
    return tp.pruner.BasePruner(setup.model, setup.example, importance=importance, **setup.common)


TAYLOR = Criterion(pruner)
''',
    criteria=("dropped_in_criterion:TAYLOR", "l1"),
    settings={"experiment__0__criterion": {"dropped_in_criterion:TAYLOR": {"batches": [1, 2]}}},
)

METHOD = DropIn(
    "method",
    "dropped_in_method",
    "HINT",
    "Hint",
    '''"""Hints through a regressor, then labels (Romero et al., FitNets, 2015): no Base stage at the end."""

import torch.nn.functional as F
from torch import Tensor, nn

from harness.architectures import Outputs
from harness.compression.distillation import Method, Phase, Setup, cross_entropy, taught

TITLE = "Hint"
FEATURES = True
PARAMETERS = {"weight": 0.5, "hint_epochs": 1}


def modules(setup: Setup) -> nn.ModuleDict:
    ours, theirs = setup.channels(tap(setup))
    return nn.ModuleDict({"regressor": nn.Conv2d(ours, theirs, 1)})


def tap(setup: Setup) -> str:
    return setup.last(setup.stages[1])


def phases(setup: Setup) -> list[Phase]:
    regressor, weight, at = setup.modules["regressor"], setup.parameters["weight"], tap(setup)

    def hint(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        return weight * F.mse_loss(regressor(student.features[at].float()), teacher.features[at].float())

    def both(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        return hint(student, teacher, labels) + cross_entropy(student, None, labels)

    return [taught("hint", setup.parameters["hint_epochs"], hint, [at]), taught("labels", setup.epochs, both, [at])]


HINT = Method(phases, modules=modules)
''',
    methods=("dropped_in_method:HINT", "base"),
    settings={"experiment__0__method": {"dropped_in_method:HINT": {"weight": [0.1, 0.5]}}},
)

KINDS: Mapping[Kind, DropIn] = {added.kind: added for added in (ARCHITECTURE, DATASET, CRITERION, METHOD)}
