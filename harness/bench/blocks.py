"""Decides, without measuring anything: under which conditions, in which order, what has to run, and when to stop."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.bench.job import Model
from harness.host.cpus import Choice, Topology, choose_cpus
from harness.intervals import halfwidth_pct
from harness.plan.settings import Bench, condition_name
from harness.store.records import AccuracyRecord, Interval, LatencyRecord

CONTROL = "control"


@dataclass(frozen=True)
class Condition:
    """A runtime by its name in matrix.toml, a number of threads, and the CPUs that they are pinned to."""

    name: str
    runtime: str
    threads: int
    cpus: tuple[int, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    """One thing to measure: a cell under a condition; `control` is the teacher once more, for the A/A comparison."""

    cell: str
    condition: str
    control: bool = False

    @property
    def id(self) -> str:
        """Unique in a run, and part of file names."""
        return f"{self.cell}{f'-{CONTROL}' if self.control else ''}.{self.condition}"


def conditions(settings: Bench, topology: Topology) -> list[Condition]:
    """The product of runtimes and threads, the headline first.

    Raises HarnessError where a number of threads is more than this machine has physical cores.
    """
    found = []
    for runtime in settings.runtimes:
        for asked in settings.threads:
            choice = _choice(asked, settings.target.physical_cores, topology)
            name = condition_name(runtime, asked)
            found.append(Condition(name, runtime, len(choice.cpus), tuple(choice.cpus), tuple(choice.warnings)))
    return found


def _choice(asked: int | Literal["all"], target_cores: int, topology: Topology) -> Choice:
    if asked == "all":
        return choose_cpus(topology, min(target_cores, topology.usable_cores))
    return choose_cpus(topology, asked)


def variants(models: Sequence[Model], names: Sequence[str]) -> list[Variant]:
    """Every model under every condition, and the teacher's control under each."""
    return [
        Variant(model.cell, name, control)
        for name in names
        for model in models
        for control in ((False, True) if model.is_teacher else (False,))
    ]


def block_order(names: Sequence[str], block: int, seed: int) -> list[str]:
    """All names once, in an order of the block's own: slow drifts then hit every model alike.

    Depends on names, block and seed only, so that a block can be added to a run without changing the others.
    """
    order = sorted(names)
    random.Random(f"{seed}:{block}").shuffle(order)
    return order


@dataclass
class Settling:
    """Which variants still need blocks. One rests when its ratio has been precise enough after two blocks in a row."""

    settings: Bench
    precise: dict[Variant, int]

    @classmethod
    def start(cls, settings: Bench) -> "Settling":
        """Nothing is known yet."""
        return cls(settings, {})

    def note(self, judged: Mapping[Variant, Interval], blocks: int) -> None:
        """Take in the intervals as they stand after `blocks` blocks."""
        for variant, found in judged.items():
            enough = blocks >= self.settings.blocks and halfwidth_pct(found) <= self.settings.precision_pct
            self.precise[variant] = self.precise.get(variant, 0) + 1 if enough else 0

    def rests(self, variant: Variant) -> bool:
        """Whether it has settled; one that has is not measured again."""
        return self.precise.get(variant, 0) >= 2


def latencies_are_current(
    models: Sequence[Model],
    records: Sequence[LatencyRecord | None],
    runtime: str,
    settings: dict[str, Any],
) -> bool:
    """Whether these records, of the models in their order under one condition, need no measuring again.

    Every one must be done and of the same model, runtime and settings. Where there is a teacher each must have its
    ratio (missing where the teacher failed). That all are of one run is for the caller to see to: a table that mixes
    runs would compare the weather.
    """
    has_teacher = any(model.is_teacher for model in models)
    return all(
        record is not None
        and (record.status, record.key, record.onnx_sha256) == ("done", model.key, model.onnx_sha256)
        and (record.runtime, record.settings) == (runtime, settings)
        and (record.ratio_to_teacher is not None) == has_teacher
        for model, record in zip(models, records, strict=True)
    )


def accuracy_is_current(
    model: Model, record: AccuracyRecord | None, runtime: str, testset_sha256: str, session: dict[str, Any]
) -> bool:
    """Whether an accuracy needs no measuring: same model, runtime, test set and session. Each model by itself."""
    return (
        record is not None
        and (record.status, record.key, record.onnx_sha256) == ("done", model.key, model.onnx_sha256)
        and (record.runtime, record.testset_sha256) == (runtime, testset_sha256)
        and record.environment.get("session") == session
    )
