"""How latency is measured: [bench] of matrix.toml, and the engines, instruction sets and threads that it combines."""

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, field_validator

from harness.errors import HarnessError
from harness.plan import registry
from harness.plan.cpu_table import Cpu, find_cpu
from harness.plan.sections import Count, NonNegative, Positive, Section, distinct

# How one figure follows from the processes of a run: harness.intervals computes it. Part of every latency's key.
ESTIMATOR = "lower quartile over processes of a process's 1st percentile (nearest rank)"

# The instruction set that a process of the bench is shown: the target's, or the host's as it is.
Isa = Literal["target", "host"]


def _known_cpu(name: str) -> str:
    """A CPU's own name, whichever it was called by; ValueError lists what there is."""
    try:
        return find_cpu(name).name
    except HarnessError as error:
        raise ValueError(str(error)) from error


class Target(Section):
    """The CPU that the figures stand in for, one of cpus.toml."""

    name: Annotated[str, AfterValidator(_known_cpu)]

    @property
    def cpu(self) -> Cpu:
        """What the table says of it."""
        return find_cpu(self.name)


def engine_names() -> list[str]:
    """What `bench.engines` may name of the package's own engines: every variant of each, like onnxruntime-1.16.0."""
    return [
        f"{name}-{variant}"
        for name in registry.names("engine")
        for variant in registry.find("engine", name).constants.get("VARIANTS", {})
    ]


# The variant of every engine that is whichever version this process's own Python has: onnxruntime-here.
HERE = "here"


def is_here(engine: str) -> bool:
    """Whether an engine is taken from this process's own Python."""
    return engine.partition("-")[2] == HERE


def engine_version(engine: str) -> str:
    """What an engine in one of its variants has to say of itself: onnxruntime-1.16.0 is "onnxruntime 1.16.0"."""
    plugin, variant = _variant(engine)
    return f"{plugin.label} {variant['version']}"


def engine_environment(engine: str) -> str:
    """The folder in .venvs that has an engine in one of its variants: bench-1.16.0 for onnxruntime-1.16.0."""
    return str(_variant(engine)[1]["environment"])


def _variant(engine: str) -> tuple[registry.Plugin, Mapping[str, str]]:
    name, _, variant = engine.partition("-")
    plugin = registry.find("engine", name)
    variants = plugin.constants.get("VARIANTS", {})
    if variant not in variants:
        raise HarnessError(f"engine {name!r} has no variant {variant!r}; allowed: {', '.join(variants)}")
    return plugin, variants[variant]


def _known_engine(engine: str) -> str:
    try:
        registry.find("engine", engine.partition("-")[0]) if is_here(engine) else _variant(engine)
    except HarnessError as error:
        if ":" in engine:
            raise ValueError(str(error)) from error
        raise ValueError(
            f"unknown engine {engine!r}; allowed: {', '.join(engine_names())}, or package.module:NAME-variant"
        ) from None
    return engine


class Bench(Section):
    """How latency is measured: every model under every combination of engine, instruction set and threads.

    The first combination is the headline.

    Blocks of fresh processes go on until the headline's ratio to the teacher is known to `precision_pct` (half its 95 %
    interval) for every model, or `minutes_per_model` are used up. The other combinations are in every fourth block.
    """

    # an engine in one of its variants; each variant has an environment of its own
    engines: Annotated[list[Annotated[str, AfterValidator(_known_engine)]], Field(min_length=1)] = [
        "onnxruntime-1.16.0"
    ]
    # Which instruction set engines are shown. A host that cannot show the target's is measured as it is, and says so.
    isa: Annotated[list[Isa], Field(min_length=1)] = ["host"]
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

    @field_validator("engines", "isa", "threads")
    @classmethod
    def _distinct(cls, values: list[Any]) -> list[Any]:
        return distinct(values)

    @property
    def combinations(self) -> "list[Combination]":
        """Every combination of engine, instruction set and threads, the headline first."""
        return [Combination(*values) for values in product(self.engines, self.isa, self.threads)]

    @property
    def conditions(self) -> list[str]:
        """The names of the combinations, as records are filed under; the headline first."""
        return [combination.name for combination in self.combinations]

    def as_host(self) -> "Bench":
        """The same under the host's instruction set alone: what is measured where the target's cannot be shown."""
        return self.model_copy(update={"isa": ["host"]})

    @property
    def either(self) -> "list[Combination]":
        """What is asked for, and what takes its place where the target's instruction set cannot be shown."""
        return list(dict.fromkeys([*self.combinations, *self.as_host().combinations]))

    def instruction_set(self, isa: Isa) -> str:
        """What stands for it in the keys of measurements: the target's name, or "host"."""
        return self.target.name if isa == "target" else isa


class Combination(NamedTuple):
    """An engine as matrix.toml names it, the instruction set that it is shown, and its threads."""

    engine: str
    isa: Isa
    threads: int | Literal["all"]

    @property
    def name(self) -> str:
        """Like "onnxruntime-1.16.0-target-threads-1"; of an engine elsewhere without its module."""
        return f"{self.engine.rpartition(':')[2]}-{self.isa}-threads-{self.threads}"
