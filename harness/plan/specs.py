"""The graph of keyed stages: what has to be made for a row of a table, and what makes each part itself and no other.

    Teacher -> Sparse -> Pruned -> Student -> Export -> Latency (one per condition), Accuracy

Each stage is a frozen value that names its parent. Its key is a hash over everything that decides its numbers and its
parent's key, and over nothing else: not the order of matrix.toml, not the machine, not the versions of libraries, which
are on record beside it. So changing how a model is exported exports and measures it again and trains nothing.

A key begins with the version of this scheme. Whoever changes what a key is made of raises SCHEME and adds a migration
of records to harness.store.migrations, so that no trained model is lost to the change.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal

from harness.files import canonical, text_sha256
from harness.plan import registry
from harness.plan.bench_settings import Bench
from harness.plan.registry import Kind
from harness.plan.settings import Calibration, Recipe, SparseRecipe

SCHEME = 2
SCALARS = (str, int, float, type(None))
Document = dict[str, Any]


class Part:
    """A part of a stage's settings that many stages share."""

    @cached_property
    def document(self) -> Document:
        """The part as plain JSON values."""
        return {one.name: plain(getattr(self, one.name)) for one in fields(self)}  # type: ignore[arg-type]

    @cached_property
    def canonical(self) -> str:
        """The part as canonical JSON."""
        return canonical(self.document)


@dataclass(frozen=True)
class Choice(Part):
    """A plug-in by its name, with all of its parameters."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network(Part):
    """An unpruned network."""

    architecture: Choice
    classes: int
    width: float
    stem: str


@dataclass(frozen=True)
class Data(Part):
    """The images that a network is trained on, and the size that it is exported for."""

    dataset: Choice
    train_images: int
    augment: tuple[str, ...]
    image_size: int


@dataclass(frozen=True)
class StagedObjective(Part):
    """The study's objective: a feature stage, then the Base stage; features are read at a block's "sum" or "norm"."""

    features: Literal["sum", "norm"] | None = None
    objective: Literal["stages"] = "stages"


@dataclass(frozen=True)
class JointObjective(Part):
    """The papers' objective: labels, soft targets and features in one loss, for `stages` times the recipe's epochs.

    What a method has no use for is None, and so does not count towards its key.
    """

    stages: int
    temperature: float | None = None
    label_weight: float | None = None
    feature_weight: float | None = None
    features: Literal["sum", "norm"] | None = None
    objective: Literal["joint"] = "joint"


Objective = StagedObjective | JointObjective


@dataclass(frozen=True)
class Stage:
    """What all stages have. The fields that a stage adds are its own settings."""

    kind: ClassVar[str]

    @property
    def parent(self) -> "Stage | None":
        """The stage that this one starts from."""
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """The stage's own settings; the parent is not among them."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "start"}
        return {"kind": self.kind, **own}

    @cached_property
    def own(self) -> Document:
        """The stage's own settings as plain JSON values."""
        return {name: plain(value) for name, value in self.settings.items()}

    @cached_property
    def key(self) -> str:
        """The stage's identity, like v2-0123456789abcdef."""
        own = {name: _canonical(value) for name, value in self.settings.items()}
        return _key(own, self.parent.key if self.parent else None)

    @cached_property
    def document(self) -> Document:
        """The settings of this stage and of all before it, nested under `parent`."""
        return {**self.own, "parent": self.parent.document} if self.parent else self.own

    @property
    def brief(self) -> Document:
        """The settings of this stage, and the key of its parent."""
        return {**self.own, "parent": self.parent.key} if self.parent else self.own

    @property
    def plugins(self) -> list[tuple[Kind, str]]:
        """The plug-ins whose code this stage runs itself, by kind and name."""
        return []

    @cached_property
    def lineage(self) -> "tuple[Stage, ...]":
        """All stages up to this one, the teacher first."""
        return (*(self.parent.lineage if self.parent else ()), self)


@dataclass(frozen=True)
class Teacher(Stage):
    """The unpruned network: trained by a recipe, or (`checkpoint_sha256`) taken as it is."""

    kind = "teacher"
    network: Network
    data: Data
    recipe: Recipe | None
    seed: int
    precision: str
    calibration: Calibration | None
    checkpoint_sha256: str | None = None

    @property
    def plugins(self) -> list[tuple[Kind, str]]:
        """See the base class."""
        return [("architecture", self.network.architecture.name), ("dataset", self.data.dataset.name)]


@dataclass(frozen=True)
class Sparse(Stage):
    """The teacher after labelled training with a criterion's own regulariser."""

    kind = "sparse"
    start: Teacher
    criterion: Choice
    # the KD methods whose layers are left alone
    keep_for: tuple[str, ...]
    recipe: SparseRecipe
    seed: int
    precision: str

    @property
    def parent(self) -> Teacher:
        """See the base class."""
        return self.start

    @property
    def plugins(self) -> list[tuple[Kind, str]]:
        """See the base class."""
        return [("criterion", self.criterion.name), *(("method", name) for name in self.keep_for)]


@dataclass(frozen=True)
class Pruned(Stage):
    """A network with channels removed and its BatchNorm statistics estimated anew."""

    kind = "pruned"
    start: Teacher | Sparse
    criterion: Choice
    amount: float
    round_to: int
    keep_for: tuple[str, ...]
    emptied_groups: Literal["whole", "least"]
    calibration: Calibration
    # of criteria that draw random numbers; the others give the same network whatever the seed
    seed: int | None

    @property
    def parent(self) -> Teacher | Sparse:
        """See the base class."""
        return self.start

    @property
    def plugins(self) -> list[tuple[Kind, str]]:
        """See the base class."""
        return [("criterion", self.criterion.name), *(("method", name) for name in self.keep_for)]


@dataclass(frozen=True)
class Student(Stage):
    """A pruned network after distillation. `methods`: the cell's KD method, then those that it makes use of."""

    kind = "student"
    start: Pruned
    methods: tuple[Choice, ...]
    objective: Objective
    recipe: Recipe
    seed: int
    precision: str

    @property
    def parent(self) -> Pruned:
        """See the base class."""
        return self.start

    @property
    def method(self) -> Choice:
        """The KD method that the cell is named by."""
        return self.methods[0]

    @property
    def plugins(self) -> list[tuple[Kind, str]]:
        """See the base class."""
        return [("method", one.name) for one in self.methods]


Trained = Teacher | Student


@dataclass(frozen=True)
class Export(Stage):
    """A trained model as a file: a row of a table."""

    kind = "export"
    start: Trained
    form: str
    opset: int

    @property
    def parent(self) -> Trained:
        """See the base class."""
        return self.start


@dataclass(frozen=True)
class Latency(Stage):
    """One file's latency under one condition. What the bench may do until it stops is part of what it measures.

    `isa` is the CPU whose instruction set the engine is shown, or "host".
    """

    kind = "latency"
    start: Export
    engine: str
    isa: str
    threads: int | str
    sampling: Document
    estimator: str

    @property
    def parent(self) -> Export:
        """See the base class."""
        return self.start

    @property
    def plugins(self) -> list[tuple[Kind, str]]:
        """See the base class."""
        return [("engine", engine_plugin(self.engine))]


@dataclass(frozen=True)
class Accuracy(Stage):
    """One file's accuracy on all test images, under the headline condition."""

    kind = "accuracy"
    start: Export
    engine: str
    isa: str
    threads: int | str

    @property
    def parent(self) -> Export:
        """See the base class."""
        return self.start

    @property
    def plugins(self) -> list[tuple[Kind, str]]:
        """See the base class."""
        return [("engine", engine_plugin(self.engine))]


def engine_plugin(engine: str) -> str:
    """The plug-in of "onnxruntime-1.16.0": onnxruntime."""
    return engine.partition("-")[0]


def sampling_of(bench: Bench) -> Document:
    """What of the bench's settings a latency depends on."""
    return bench.model_dump(mode="json", exclude={"engines", "isa", "threads", "target"})


def key_of(document: Mapping[str, Any]) -> str:
    """The key that a stage's settings give, as a record holds them: nested, or with the key of the parent."""
    parent = document.get("parent")
    own = {name: canonical(value) for name, value in document.items() if name != "parent"}
    return _key(own, _key_of_text(canonical(parent)) if isinstance(parent, Mapping) else parent)


@lru_cache(maxsize=1000)
def _key_of_text(document: str) -> str:
    """The key of a parent, which many stages have in common."""
    return key_of(json.loads(document))


def _key(own: Mapping[str, str], parent: str | None) -> str:
    """The key by a stage's settings, each in canonical JSON, and its parent's key: a hash of one JSON object of all."""
    members = {**own, "scheme": _scalar(SCHEME), "parent": canonical(parent)}
    text = ",".join(f'"{name}":{members[name]}' for name in sorted(members))
    return f"v{SCHEME}-{text_sha256('{' + text + '}')[:16]}"


def _canonical(value: Any) -> str:
    """A setting in canonical JSON. What many stages share is put into JSON once: a plan may have 10,000 cells."""
    if isinstance(value, SCALARS):
        return _scalar(value)
    if isinstance(value, Part | Recipe):
        return value.canonical
    if isinstance(value, tuple):
        return f"[{','.join(map(_canonical, value))}]"
    return canonical(plain(value))


# typed: 1 and 1.0 are equal and have different texts
_scalar = lru_cache(maxsize=10_000, typed=True)(canonical)


def plain(value: Any) -> Any:
    """A setting as JSON has it."""
    if isinstance(value, SCALARS):
        return value
    if isinstance(value, Part | Recipe):
        return value.document
    if isinstance(value, Calibration):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def plugin_digest(kind: Kind, name: str) -> str:
    """The source digest of a plug-in as it is now."""
    return registry.find(kind, name).digest


def code_of(stage: Stage, digest: Callable[[Kind, str], str] = plugin_digest) -> dict[str, str]:
    """The source digest of every plug-in that has a part in a stage, as "method fmse" -> SHA-256.

    Of a measurement its engine's alone: the model's own are on the record of its training. Who asks for many stages
    gives a `digest` that remembers.
    """
    stages = (stage,) if isinstance(stage, Latency | Accuracy) else stage.lineage
    plugins = dict.fromkeys(plugin for one in stages for plugin in one.plugins)
    return {f"{kind} {name}": digest(kind, name) for kind, name in plugins}
