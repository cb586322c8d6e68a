"""Decides, without measuring anything: under which conditions, in which order, what has to run, and when to stop."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.bench.job import ModelFile
from harness.host.cpus import ChosenCpus, Topology, choose_cpus
from harness.intervals import halfwidth_pct
from harness.plan.bench_settings import Bench, Isa
from harness.store.records import AccuracyRecord, Interval, LatencyRecord

CONTROL = "control"


@dataclass(frozen=True)
class Condition:
    """An engine by its name in matrix.toml, its instruction set, its threads, and the CPUs that they are pinned to."""

    name: str
    engine: str
    isa: Isa
    threads: int
    cpus: tuple[int, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """One thing to time: a model under a condition; `control` is the reference once more, for the A/A comparison."""

    model: str
    condition: str
    control: bool = False

    @property
    def id(self) -> str:
        """Unique in a run, and part of file names."""
        return f"{self.model}{f'-{CONTROL}' if self.control else ''}.{self.condition}"


def conditions(settings: Bench, topology: Topology) -> list[Condition]:
    """Every combination of engine, instruction set and threads, the headline first.

    Raises HarnessError where a number of threads is more than this machine has physical cores.
    """
    found = []
    for one in settings.combinations:
        chosen = _chosen(one.threads, settings.target.cpu.physical_cores, topology)
        cpus = tuple(chosen.cpus)
        found.append(Condition(one.name, one.engine, one.isa, len(cpus), cpus, tuple(chosen.warnings)))
    return found


def _chosen(threads: int | Literal["all"], target_cores: int, topology: Topology) -> ChosenCpus:
    return choose_cpus(topology, min(target_cores, topology.usable_cores) if threads == "all" else threads)


def subjects(models: Sequence[str], reference: str | None, names: Sequence[str]) -> list[Subject]:
    """Every model under every condition, and under each the control of the reference that ratios are taken to."""
    return [
        Subject(model, name, control)
        for name in names
        for model in models
        for control in ((False, True) if model == reference else (False,))
    ]


def block_order(names: Sequence[str], block: int, seed: int) -> list[str]:
    """All names once, in an order of the block's own, so that slow drifts of the machine hit every model alike.

    Depends on names, block and seed only: a block can be added to a run without changing the others.
    """
    order = sorted(names)
    random.Random(f"{seed}:{block}").shuffle(order)
    return order


@dataclass
class Settling:
    """Which subjects still need blocks. One rests when its ratio has been precise enough after two blocks in a row."""

    settings: Bench
    precise: dict[Subject, int]

    @classmethod
    def start(cls, settings: Bench) -> "Settling":
        """Nothing is known yet."""
        return cls(settings, {})

    def note(self, judged: Mapping[Subject, Interval], blocks: int) -> None:
        """Take in the intervals as they are after `blocks` blocks."""
        for subject, found in judged.items():
            enough = blocks >= self.settings.blocks and self.is_precise(found)
            self.precise[subject] = self.precise.get(subject, 0) + 1 if enough else 0

    def is_precise(self, found: Interval) -> bool:
        """Whether an interval is as narrow as was asked for; a figure without one is not known at all."""
        return halfwidth_pct(found) <= self.settings.precision_pct

    def rests(self, subject: Subject) -> bool:
        """Whether it has settled; one that has is not measured again."""
        return self.precise.get(subject, 0) >= 2


def latencies_are_current(
    models: Sequence[ModelFile],
    records: Sequence[LatencyRecord | None],
    condition: str,
    runtime: str,
    session: Mapping[str, Any],
) -> bool:
    """Whether these records, of the models in their order under one condition, need no measuring again.

    Each must be done and of the same key, file, runtime and options of the engine. Where there is a teacher each must
    have its ratio (it is missing where the teacher failed). The caller makes sure that all are of one run: the machine
    changes from run to run, so a table of several runs would show that along with the models.
    """
    has_teacher = any(model.is_teacher for model in models)
    return all(
        record is not None
        and (record.status, record.key) == ("done", model.latency[condition].key)
        and (record.onnx_sha256, record.runtime, record.session) == (model.onnx_sha256, runtime, session)
        and (record.ratio_to_teacher is not None) == has_teacher
        for model, record in zip(models, records, strict=True)
    )


def accuracy_is_current(
    model: ModelFile,
    record: AccuracyRecord | None,
    isa: Isa,
    runtime: str,
    testset_sha256: str,
    session: Mapping[str, Any],
) -> bool:
    """Whether an accuracy needs no measuring: same key, file, runtime, test set and options. Each model by itself."""
    key = model.accuracy[isa].key
    return (
        record is not None
        and (record.status, record.key, record.onnx_sha256) == ("done", key, model.onnx_sha256)
        and (record.runtime, record.testset_sha256) == (runtime, testset_sha256)
        and record.environment.get("session") == session
    )
