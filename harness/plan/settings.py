"""matrix.toml as typed, frozen settings: strict, so that a typo is an error that says what is allowed."""

import tomllib
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from harness.errors import HarnessError
from harness.plan.explain import explain

METHODS = Path(__file__).parent / "training"


def method_names(kind: Literal["pruning", "distillation"]) -> list[str]:
    """The methods there are: one file each, named as in matrix.toml. Read off the folder: planning needs no torch."""
    return sorted(path.stem for path in (METHODS / kind).glob("*.py") if not path.stem.startswith("_"))


def _known(kind: Literal["pruning", "distillation"], name: str) -> str:
    allowed = method_names(kind)
    if name not in allowed:
        raise ValueError(f"unknown {kind} method {name!r}; allowed: {', '.join(allowed)}")
    return name


class Section(BaseModel):
    """A table of matrix.toml: unknown keys are refused, values are not coerced, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Augmentation = Literal["crop", "flip", "cutout", "study"]
# onnxruntime: the reference study's version, and the one that is pinned as current
Runtime = Literal["1.16.0", "current"]


class Model(Section):
    """ResNet50 in torchvision's shape, every channel count times `width`."""

    width: Positive = 1.0
    stem: Literal["cifar", "imagenet"] = "cifar"

    @field_validator("width")
    @classmethod
    def _whole_channels(cls, width: float) -> float:
        if width > 4 or 64 * width < 4 or 64 * width != int(64 * width):
            raise ValueError("64 x width must be a whole number of channels, at least 4 (width 0.0625, 0.125, ... 4)")
        return width

    @property
    def narrowest(self) -> int:
        """Channels of the narrowest layer."""
        return int(64 * self.width)


class Data(Section):
    """CIFAR-100, or the first images of its training set; accuracy is always on all 10,000 test images."""

    train_images: Annotated[int, Field(ge=100, le=50_000)] = 50_000
    image_size: Annotated[int, Field(ge=8, le=512)] = 32
    augment: list[Augmentation] = ["crop", "flip"]


class Recipe(Section):
    """How a model is trained: SGD with one learning-rate schedule over all epochs of all stages."""

    epochs: Count
    batch_size: Count
    lr: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 5e-4
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    # exponential: lr x gamma^epoch
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    warmup_epochs: NonNegative = 0.0
    # largest gradient norm; 0 is no clipping
    clip_norm: NonNegative = 0.0


class TeacherRecipe(Recipe):
    """The teacher's recipe, or a checkpoint in place of training."""

    seed: Annotated[int, Field(ge=0)] = 0
    checkpoint: str | None = None


class SparseRecipe(Recipe):
    """Labelled training before pruning, with a regulariser of this strength that pushes weights towards zero."""

    regularisation: NonNegative


class PruningSettings(Section):
    """What all pruning methods share."""

    round_to: Count | Literal["auto"] = "auto"
    sparse: SparseRecipe


class Target(Section):
    """The CPU that the figures stand in for."""

    name: str
    physical_cores: Count
    isa: str
    vector_channels: Count
    l3_mib: Positive
    base_ghz: Positive


class Bench(Section):
    """How latency is measured: every model under every combination of runtime and threads, the first one the headline.

    Blocks of fresh processes go on until the headline's ratio to the teacher is known to `precision_pct` (half its 95 %
    interval) for every model, or `minutes_per_model` are used up. The other combinations are in every fourth block.
    """

    # Each an environment of its own: .venvs/bench-<name>
    runtimes: Annotated[list[Runtime], Field(min_length=1)] = ["1.16.0"]
    # intra-op threads, on as many whole physical cores; "all": as many as the target has, or this machine if fewer
    threads: Annotated[list[Count | Literal["all"]], Field(min_length=1)] = [1]
    precision_pct: Positive = 1.0
    minutes_per_model: Positive = 1.5
    blocks: Annotated[int, Field(ge=3)] = 12
    # one process: warmed up and timed for so long and for so many inferences, whichever is more
    warmup_s: NonNegative = 0.1
    warmup_rounds: Count = 15
    sampling_s: Positive = 1.0
    rounds: Annotated[int, Field(ge=11, le=20_000)] = 64
    seed: Annotated[int, Field(ge=0)] = 0
    target: Target

    @field_validator("runtimes", "threads")
    @classmethod
    def _distinct(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) != len(values):
            raise ValueError("a value is named twice")
        return values

    @property
    def conditions(self) -> list[str]:
        """The names of the combinations, as records are filed under; the headline first."""
        return [condition_name(runtime, threads) for runtime in self.runtimes for threads in self.threads]


def condition_name(runtime: str, threads: int | str) -> str:
    """A combination's name: "ort-1.16.0-threads-1"."""
    return f"ort-{runtime}-threads-{threads}"


class Protocol(Section):
    """How pruning and distillation are put together.

    objective: "stages" is the study's (feature stage, then Base stage, no labels); "joint" is the papers' (labels, soft
    targets and features in one loss). keep_for: the KD methods whose layers are kept whole, or "own": the cell's.
    """

    objective: Literal["stages", "joint"]
    keep_for: list[str] | Literal["own"]
    sparse_for: list[str]
    # joint only: how many times `student.epochs` a cell trains
    stages: Count = 1
    temperature: Positive = 4.0
    label_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    feature_weight: dict[str, NonNegative] = {}

    @field_validator("keep_for", "feature_weight")
    @classmethod
    def _distillation(cls, names: Any) -> Any:
        for name in names if names != "own" else []:
            _known("distillation", name)
        return names

    @field_validator("sparse_for")
    @classmethod
    def _pruning(cls, names: list[str]) -> list[str]:
        return [_known("pruning", name) for name in names]

    @model_validator(mode="after")
    def _own_stages(self) -> "Protocol":
        if self.objective == "stages" and self.stages != 1:
            raise ValueError('stages is for objective "joint" only; with "stages" the KD method decides')
        return self


Amount = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
PruneMethod = Annotated[str, AfterValidator(partial(_known, "pruning"))]
KdMethod = Annotated[str, AfterValidator(partial(_known, "distillation"))]
Seed = Annotated[int, Field(ge=0)]
# Experiments and protocols give their names to files.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]


class Point(Section):
    """One combination of axes, for `include` and (any part of it) `exclude` and `first`."""

    prune_amount: Amount | None = None
    prune_method: PruneMethod | None = None
    kd_method: KdMethod | None = None
    seed: Seed | None = None


class Experiment(Section):
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
        if len(set(values)) != len(values):
            raise ValueError("a value is named twice")
        return values

    @field_validator("include")
    @classmethod
    def _whole(cls, points: list[Point]) -> list[Point]:
        for point in points:
            if None in (point.prune_amount, point.prune_method, point.kd_method, point.seed):
                raise ValueError("an included point needs prune_amount, prune_method, kd_method and seed")
        return points

    @field_validator("first")
    @classmethod
    def _some_axis(cls, points: list[Point]) -> list[Point]:
        if any(not point.model_dump(exclude_none=True) for point in points):
            raise ValueError("a point needs at least one of prune_amount, prune_method, kd_method, seed")
        return points

    @field_validator("exclude")
    @classmethod
    def _on_the_axes(cls, points: list[Point], info: ValidationInfo) -> list[Point]:
        for point in points:
            named = point.model_dump(exclude_none=True)
            if not named:
                raise ValueError("an excluded point needs at least one of prune_amount, prune_method, kd_method, seed")
            for axis, value in named.items():
                # an axis that is wrong itself is not in info.data, and has its own message
                if value not in info.data.get(axis, [value]):
                    allowed = ", ".join(map(str, info.data[axis]))
                    raise ValueError(f"{axis} {value!r} is not on its axis; allowed: {allowed}")
        return points


class Settings(Section):
    """matrix.toml with one profile laid over it."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    model: Model
    data: Data
    teacher: TeacherRecipe
    student: Recipe
    pruning: PruningSettings
    bench: Bench
    protocol: dict[Name, Protocol]
    experiment: list[Experiment]
    # those that a profile runs
    experiments: Annotated[list[str], Field(min_length=1)]

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


def load_settings(path: Path, profile: str) -> Settings:
    """matrix.toml with `profile` laid over it. All profiles are checked, so that none rots unseen.

    Raises HarnessError naming file, key and what is allowed.
    """
    document = _read(path)
    profiles = document.pop("profile", {})
    if not isinstance(profiles, dict) or not all(isinstance(overlay, dict) for overlay in profiles.values()):
        raise HarnessError(f"{path}: profile: must be tables, like [profile.quick]")
    if profile not in profiles:
        raise HarnessError(
            f"{path}: profile {profile!r} does not exist; allowed: {', '.join(profiles) or 'none is there'}"
        )
    return {name: _resolve(path, document, name, overlay) for name, overlay in profiles.items()}[profile]


def profile_names(path: Path) -> list[str]:
    """The profiles that matrix.toml defines."""
    profiles = _read(path).get("profile", {})
    return list(profiles) if isinstance(profiles, dict) else []


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HarnessError(f"{path}: not found; run from the project's folder or name the file with --matrix") from None
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HarnessError(f"{path}: not valid TOML: {error}") from error


def _resolve(path: Path, document: dict[str, Any], name: str, overlay: dict[str, Any]) -> Settings:
    if "experiment" in overlay or "protocol" in overlay:
        raise HarnessError(
            f"{path}: profile.{name}: experiments and protocols are shared; a profile cannot change them"
        )
    merged = _merge(document, overlay)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise HarnessError(f"{path}: {explain(error, Settings, merged, name, overlay)}") from error


def _merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
