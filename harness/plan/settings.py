"""What matrix.toml may say, as typed and frozen settings. A typo is an error that names what is allowed."""

from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from harness.errors import HarnessError
from harness.files import canonical
from harness.plan import registry
from harness.plan.bench_settings import Bench, engine_names, is_here
from harness.plan.explain import allowed_keys
from harness.plan.sections import Count, NonNegative, Positive, Section, distinct


def _known(kind: registry.Kind, name: str) -> str:
    """The name of a plug-in that exists; ValueError lists what there is."""
    try:
        registry.find(kind, name)
    except HarnessError as error:
        raise ValueError(str(error)) from error
    return name


ImageSize = Annotated[int, Field(ge=8, le=512)]
Augmentation = Literal["crop", "flip", "cutout", "study"]
Architecture = Annotated[str, AfterValidator(partial(_known, "architecture"))]
Dataset = Annotated[str, AfterValidator(partial(_known, "dataset"))]
PruneMethod = Annotated[str, AfterValidator(partial(_known, "criterion"))]
KdMethod = Annotated[str, AfterValidator(partial(_known, "method"))]
# Experiments and protocols give their names to files.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=60)]


class ModelSettings(Section):
    """The network: an architecture, with every channel count times `width`."""

    architecture: Architecture = "resnet50"
    width: Positive = 1.0
    stem: Literal["cifar", "imagenet"] = "cifar"

    @model_validator(mode="after")
    def _whole_channels(self) -> "ModelSettings":
        channels = registry.find("architecture", self.architecture).constants.get("CHANNELS", 1)
        narrowest = channels * self.width
        if self.width > 4 or narrowest != int(narrowest) or narrowest < min(4, channels):
            raise ValueError(
                f"width: {channels} x width must be a whole number of channels, at least 4, and width at most 4"
            )
        return self

    @property
    def narrowest(self) -> int:
        """Channels of the narrowest layer."""
        return int(registry.find("architecture", self.architecture).constants.get("CHANNELS", 1) * self.width)


class DataSettings(Section):
    """The data set, or the first images of its training set; accuracy is always on all of its test images."""

    dataset: Dataset = "cifar100"
    # what takes its place where it can neither be found nor fetched; without one that is an error
    fallback: Dataset | None = None
    train_images: Annotated[int, Field(ge=10)] = 50_000
    # of the exported model, and of training unless a recipe has `image_sizes`
    image_size: ImageSize = 32
    augment: list[Augmentation] = ["crop", "flip"]

    @model_validator(mode="after")
    def _possible(self) -> "DataSettings":
        most = registry.find("dataset", self.dataset).constants.get("TRAIN_IMAGES", self.train_images)
        if self.train_images > most:
            raise ValueError(f"train_images: {self.dataset} has {most} training images (got {self.train_images})")
        if "study" in self.augment and len(self.augment) > 1:
            raise ValueError('augment: "study" is a whole pipeline and stands alone')
        return self

    @field_validator("augment")
    @classmethod
    def _distinct(cls, values: list[Any]) -> list[Any]:
        return distinct(values)


class Recipe(Section):
    """How a model is trained: SGD with one learning-rate schedule over all epochs of all stages."""

    epochs: Count
    batch_size: Count
    lr: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 5e-4
    schedule: Literal["cosine", "linear", "exponential", "constant"] = "cosine"
    # exponential: lr x gamma^epoch
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    warmup_epochs: NonNegative = 0.0
    # largest gradient norm; 0 is no clipping
    clip_norm: NonNegative = 0.0
    # The size of training images, epoch by epoch of a stage; the last one holds for the rest. Empty: data.image_size
    image_sizes: list[ImageSize] = []

    @model_validator(mode="after")
    def _coherent(self) -> "Recipe":
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs: must be below epochs ({self.epochs}), or the rate never peaks")
        if len(self.image_sizes) > self.epochs:
            raise ValueError(f"image_sizes: names {len(self.image_sizes)} epochs of {self.epochs}")
        # What has no effect is refused where it would be on record all the same: a gamma without use is not (below).
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: has no effect without momentum; set nesterov = false")
        if self.gamma == 1.0 and self.schedule == "exponential":
            raise ValueError('gamma: an exponential schedule needs one below 1; else set schedule = "constant"')
        return self

    def image_size(self, epoch: int) -> int:
        """Height and width in an epoch, counted from 0. The schedule of sizes starts anew with every stage."""
        return self.image_sizes[min(epoch % self.epochs, len(self.image_sizes) - 1)]

    @cached_property
    def document(self) -> dict[str, Any]:
        """The recipe as JSON has it, less a gamma that its schedule has no use for."""
        return self.model_dump(mode="json", exclude=None if self.schedule == "exponential" else {"gamma"})

    @cached_property
    def canonical(self) -> str:
        """The document as canonical JSON."""
        return canonical(self.document)


class TeacherRecipe(Recipe):
    """The teacher's recipe, or a checkpoint in place of training."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    checkpoint: str | None = None


class SparseRecipe(Recipe):
    """Labelled training before pruning, with a regulariser of this strength that pushes weights towards zero."""

    regularisation: NonNegative


class Calibration(Section):
    """How BatchNorm's running statistics are estimated anew: over the first `images`, in batches of `batch_size`."""

    images: Count = 2000
    batch_size: Annotated[int, Field(ge=2)] = 250


class PruningSettings(Section):
    """What all pruning criteria share."""

    round_to: Count | Literal["auto"] = "auto"
    calibration: Calibration = Calibration()
    sparse: SparseRecipe


class ExportSettings(Section):
    """The form of the exported model file."""

    form: Literal["fp32"] = "fp32"
    # onnxruntime 1.16.0 reads operator sets up to 19
    opset: Annotated[int, Field(ge=11, le=19)] = 17


class Protocol(Section):
    """How pruning and distillation are put together.

    objective: "stages" is the study's (feature stage, then Base stage, no labels); "joint" is the papers' (labels, soft
    targets and features in one loss). keep_for: the KD methods whose layers are kept whole, or "own": the cell's.
    """

    objective: Literal["stages", "joint"]
    keep_for: list[KdMethod] | Literal["own"]
    sparse_for: list[PruneMethod]
    # Where a stage's last features are read: after the residual sum and ReLU, or at the last BatchNorm before it.
    features: Literal["sum", "norm"] = "sum"
    # A group of layers that would lose every channel: left "whole", as Torch-Pruning and thus the study leave it, or
    # pruned to its "least", a single multiple of round_to.
    emptied_groups: Literal["whole", "least"] = "least"
    # joint only: how many times `student.epochs` a cell trains
    stages: Count = 1
    temperature: Positive = 4.0
    label_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    feature_weight: dict[KdMethod, NonNegative] = {}

    @field_validator("keep_for", "sparse_for")
    @classmethod
    def _distinct(cls, values: list[Any] | str) -> list[Any] | str:
        return values if isinstance(values, str) else distinct(values)

    @model_validator(mode="after")
    def _all_count(self) -> "Protocol":
        if self.objective == "stages":
            for name in ("stages", "temperature", "label_weight", "feature_weight"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f'{name} is for objective "joint" only; with "stages" the KD method decides')
        for method in self.feature_weight:
            if not registry.find("method", method).constants.get("FEATURES", False):
                raise ValueError(f"feature_weight: {method} learns from no features; leave it out")
        return self


Amount = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
# The axes that every experiment has.
BASIC_AXES = ("prune_amount", "prune_method", "kd_method", "seed")
# The sections whose keys can be axes as well: `student.lr = [0.05, 0.1]`, `method.gram.scale = [0.1, 1.0]`.
AXIS_SECTIONS = ("student", "pruning", "method", "criterion")
Tables = dict[str, Any]


class Axes(Section):
    """A table that names axes: a table for each section whose keys may be one."""

    student: Tables = {}
    pruning: Tables = {}
    method: Tables = {}
    criterion: Tables = {}

    @property
    def more(self) -> dict[str, Any]:
        """The axes beside the basic ones, by dotted name."""
        return {name: value for section in AXIS_SECTIONS for name, value in flat(section, getattr(self, section))}


def flat(prefix: str, table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """("student.lr", [0.05, 0.1]) for every leaf of nested tables."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(f"{prefix}.{key}", value)
        else:
            yield f"{prefix}.{key}", value


class Point(Axes):
    """One combination of axes, for `include` and (any part of it) `exclude` and `first`."""

    prune_amount: Amount | None = None
    prune_method: PruneMethod | None = None
    kd_method: KdMethod | None = None
    seed: Seed | None = None

    @property
    def named(self) -> dict[str, Any]:
        """The axes that it names, with their values."""
        basic = {axis: getattr(self, axis) for axis in BASIC_AXES if getattr(self, axis) is not None}
        return {**basic, **self.more}


class Experiment(Axes):
    """One table: the product of its axes less `exclude`, plus `include`."""

    name: Name
    title: str
    protocol: str
    prune_amount: Annotated[list[Amount], Field(min_length=1)]
    prune_method: Annotated[list[PruneMethod], Field(min_length=1)]
    kd_method: Annotated[list[KdMethod], Field(min_length=1)]
    seed: Annotated[list[Seed], Field(min_length=1)]
    include: list[Point] = []
    exclude: list[Point] = []
    # of this experiment's cells those that a run with a budget makes before the others, point after point; one that
    # none of them matches does no harm
    first: list[Point] = []

    @field_validator("prune_amount", "prune_method", "kd_method", "seed")
    @classmethod
    def _distinct(cls, values: list[Any]) -> list[Any]:
        return distinct(values)

    @field_validator("include")
    @classmethod
    def _whole(cls, points: list[Point]) -> list[Point]:
        for point in points:
            if not set(BASIC_AXES) <= set(point.named):
                raise ValueError("an included point needs prune_amount, prune_method, kd_method and seed")
        return points

    @field_validator("first", "exclude")
    @classmethod
    def _some_axis(cls, points: list[Point], info: ValidationInfo) -> list[Point]:
        for point in points:
            if not point.named:
                what = "an excluded point" if info.field_name == "exclude" else "a point"
                raise ValueError(f"{what} needs at least one of {', '.join(BASIC_AXES)}")
        return points

    @model_validator(mode="after")
    def _axes(self) -> "Experiment":
        for name, values in self.more.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"{name}: an axis is a list of values (got {values!r})")
            try:
                distinct(values)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        for point in self.exclude:
            for axis, value in point.named.items():
                allowed = self.axes.get(axis, [])
                if value not in allowed:
                    names = ", ".join(map(str, allowed)) or "none"
                    raise ValueError(f"exclude: {axis} {value!r} is not on its axis; allowed: {names}")
        return self

    @property
    def axes(self) -> dict[str, list[Any]]:
        """Every axis with its values, the basic ones first."""
        return {**{axis: getattr(self, axis) for axis in BASIC_AXES}, **self.more}


class Settings(Section):
    """matrix.toml with one profile laid over it."""

    precision: Literal["bf16", "fp32"] = "bf16"
    model: ModelSettings
    data: DataSettings
    teacher: TeacherRecipe
    student: Recipe
    pruning: PruningSettings
    export: ExportSettings = ExportSettings()
    bench: Bench
    protocol: dict[Name, Protocol]
    experiment: list[Experiment]
    # those that a profile runs
    experiments: Annotated[list[str], Field(min_length=1)]
    # the plug-ins' own parameters, by kind and name
    architecture: dict[str, Tables] = {}
    dataset: dict[str, Tables] = {}
    criterion: dict[str, Tables] = {}
    method: dict[str, Tables] = {}

    @field_validator("architecture", "dataset", "criterion", "method")
    @classmethod
    def _are_parameters(cls, tables: dict[str, Tables], info: ValidationInfo) -> dict[str, Tables]:
        return _parameters(str(info.field_name), tables)

    @field_validator("bench")
    @classmethod
    def _pinned(cls, bench: Bench) -> Bench:
        if found := next((engine for engine in bench.engines if is_here(engine)), None):
            raise ValueError(
                f"engines: {found} can be any version; name one that is pinned: {', '.join(engine_names())}"
            )
        return bench

    @field_validator("experiment")
    @classmethod
    def _coherent(cls, experiments: list[Experiment], info: ValidationInfo) -> list[Experiment]:
        names = [experiment.name for experiment in experiments]
        if len(set(names)) != len(names):
            raise ValueError(f"experiment names must differ: {', '.join(names)}")
        for experiment in experiments:
            if experiment.protocol not in info.data.get("protocol", [experiment.protocol]):
                raise ValueError(
                    f"{experiment.name}: unknown protocol {experiment.protocol!r}; "
                    f"allowed: {', '.join(info.data['protocol'])}"
                )
        return experiments

    @field_validator("experiments")
    @classmethod
    def _exist(cls, names: list[str], info: ValidationInfo) -> list[str]:
        for name in names if "experiment" in info.data else []:
            known = [experiment.name for experiment in info.data["experiment"]]
            if name not in known:
                raise ValueError(f"unknown experiment {name!r}; allowed: {', '.join(known) or 'none is there'}")
        if len(set(names)) != len(names):
            raise ValueError("an experiment is named twice")
        return names

    @model_validator(mode="after")
    def _axes_are_settings(self) -> "Settings":
        # Another profile's axes may not fit this one's recipes.
        for experiment in (one for one in self.experiment if one.name in self.experiments):
            axes = experiment.more
            points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
            for point in (*points, *(included.more for included in experiment.include)):
                try:
                    self.with_axes(point)
                except ValueError as error:
                    named = ", ".join(f"{name} = {value!r}" for name, value in point.items())
                    raise ValueError(f"experiment[{experiment.name}]: {named}: {error}") from error
        return self

    def parameters(self, kind: registry.Kind, name: str) -> dict[str, Any]:
        """All of a plug-in's own parameters, defaults included."""
        return registry.resolve(kind, name, getattr(self, kind, {}).get(name, {}))

    def with_axes(self, values: Mapping[str, Any]) -> "Settings":
        """These settings with some keys changed, by dotted name. ValueError where one is unknown or a value wrong."""
        tables: dict[str, Tables] = {}
        for name, value in values.items():
            section, _, rest = name.partition(".")
            # a plug-in's name may have dots of its own
            path = list(rest.rpartition(".")[::2]) if section in ("method", "criterion") else rest.split(".")
            if section not in AXIS_SECTIONS or not all(path):
                raise ValueError(f"unknown axis; the sections that axes may come from are {', '.join(AXIS_SECTIONS)}")
            before = getattr(self, section)
            table = tables.get(section, before.model_dump() if isinstance(before, Section) else before)
            tables[section] = _put(table, path, value)
        # Only now, since the values of one point may be right together and wrong one by one.
        return self.model_copy(update={name: self._section(name, table) for name, table in tables.items()})

    def _section(self, name: str, table: Tables) -> Any:
        before = getattr(self, name)
        if not isinstance(before, Section):
            return _parameters(name, table)
        try:
            return type(before).model_validate(table)
        except ValidationError as error:
            raise ValueError(_first(error, type(before))) from error


def _parameters(kind: Any, tables: dict[str, Tables]) -> dict[str, Tables]:
    """The parameters of plug-ins of a kind, by the plug-in's name; ValueError where one is unknown or a value wrong."""
    for name, given in tables.items():
        _known(kind, name)
        registry.resolve(kind, name, given)
    return tables


def _put(table: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """The table with one key changed, at a path below it."""
    key, *rest = path
    return {**table, key: _put(table.get(key) or {}, rest, value) if rest else value}


def _first(error: ValidationError, model: type[Section]) -> str:
    """What is wrong, in a line."""
    found = error.errors()[0]
    if found["type"] == "extra_forbidden":
        name, allowed = ".".join(map(str, found["loc"])), ", ".join(allowed_keys(model, found["loc"][:-1]))
        return f"{name}: unknown key; allowed: {allowed}"
    return found["msg"].removeprefix("Value error, ")
