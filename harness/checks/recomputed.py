"""Figures on record that follow from others on record, computed anew: a table of them, and the checks that go over it.

What follows from files beside the records (weights, ONNX files, samples) is in files_on_disk.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

from harness.checks.agreement import MACHINE
from harness.checks.evidence import Entry, Evidence
from harness.checks.fault import Fault
from harness.intervals import RESAMPLES, estimate, interval, median_process, paired_ratio
from harness.plan.specs import Sparse, Teacher
from harness.store.records import AccuracyRecord, ExportRecord, Interval, LatencyRecord, Process, Record, TrainRecord

R = TypeVar("R", bound=Record)
# JSON keeps every digit of a float. What is computed anew by another version of numpy may differ in the last ones.
REL_TOL = 1e-9
# (block, ms)
Observations = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Figure(Generic[R]):
    """A field of a record, by its dotted name; what it follows from, in words; and how.

    `follows` gives None where something that it needs is not on record.
    """

    field: str
    source: str
    follows: Callable[[Entry, R], Any]

    def said(self, record: R) -> Any:
        """What the record says; None where it says nothing."""
        found: Any = record
        for name in self.field.split("."):
            found = getattr(found, name, None)
        return found


def same(said: Any, found: Any) -> bool:
    """Whether two figures are the same but for the last digits."""
    if isinstance(said, Interval) and isinstance(found, Interval):
        return all(same(getattr(said, name), getattr(found, name)) for name in Interval.model_fields)
    if isinstance(said, int | float) and isinstance(found, int | float):
        return math.isclose(said, found, rel_tol=REL_TOL)
    return bool(said == found)


def spelled(value: Any) -> str:
    """A figure as a reader can compare it with another."""
    if isinstance(value, Interval):
        return value.text(".6g")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# --- Training and export ----------------------------------------------------------------------------------------------


def _teacher(entry: Entry) -> TrainRecord | None:
    return entry.chain.train(entry.chain.plan.teacher).standing


def _teachers(field: str) -> Callable[[Entry, TrainRecord], Any]:
    return lambda entry, _: getattr(_teacher(entry), field, None)


def _own(field: str) -> Callable[[Entry, TrainRecord], Any]:
    return lambda _, record: getattr(record, field)


def _sum(widths: dict[str, int] | None) -> int | None:
    return sum(widths.values()) if widths else None


def _whole_images(field: str, images: str) -> Callable[[Entry, Any], Any]:
    """The percentage next to this one that a whole number of images can give."""

    def follows(_: Entry, record: Any) -> float | None:
        share, count = getattr(record, field), getattr(record, images)
        return 100 * round(share * count / 100) / count if share is not None and count else None

    return follows


TRAIN: Sequence[Figure[TrainRecord]] = (
    Figure("image_size", "the settings", lambda entry, _: entry.cell.teacher.data.image_size),
    Figure("pruning.amount", "the settings", lambda entry, _: entry.cell.student.start.amount),
    Figure("pruning.params_before", "the teacher's record", _teachers("params")),
    Figure("pruning.macs_before", "the teacher's record", _teachers("macs")),
    Figure(
        "pruning.channels_before",
        "the teacher's widths",
        lambda entry, _: _sum(getattr(_teacher(entry), "widths", None)),
    ),
    Figure("pruning.params_after", "params", _own("params")),
    Figure("pruning.macs_after", "macs", _own("macs")),
    Figure("pruning.channels_after", "widths", lambda _, record: _sum(record.widths)),
)
EXPORT: Sequence[Figure[ExportRecord]] = (
    Figure(
        "parity_top1_agreement_pct",
        "a whole number of parity_images",
        _whole_images("parity_top1_agreement_pct", "parity_images"),
    ),
)


def _epochs(entry: Entry, record: TrainRecord) -> Iterator[tuple[str, int, int]]:
    """(phase, epochs on record, epochs of its recipe), for the phases whose number of epochs is that of a recipe."""
    for stage in entry.cell.trained.lineage:
        if stage is entry.cell.trained and isinstance(stage, Teacher) and stage.recipe:
            yield "teacher", len(record.epochs), stage.recipe.epochs
        elif isinstance(stage, Sparse):
            yield "sparse", sum(epoch.phase == "sparse" for epoch in record.epochs), stage.recipe.epochs


# --- Measurements -----------------------------------------------------------------------------------------------------


# Pure, and records are checked again and again, most of their processes the same: after every change, in every table.
_interval = lru_cache(4096)(interval)


@lru_cache(4096)
def _paired(model: Observations, teacher: Observations, seed: int, resamples: int) -> Interval | None:
    return paired_ratio(dict(model), dict(teacher), seed, resamples)


def _observations(processes: Sequence[Process]) -> Observations:
    return tuple((process.block, process.low_ms) for process in processes)


def _latency(entry: Entry, record: LatencyRecord) -> Interval | None:
    observed = tuple(process.low_ms for process in record.processes)
    return _interval(observed, entry.chain.plan.settings.bench.seed) if observed else None


def _estimate(_: Entry, record: LatencyRecord) -> float | None:
    return estimate([process.low_ms for process in record.processes]) if record.processes else None


def _ratio(
    entry: Entry, record: LatencyRecord, processes: Sequence[Process], resamples: int = RESAMPLES
) -> Interval | None:
    """The ratio of these processes to the teacher's in the same run."""
    teacher = entry.chain.latency(entry.chain.plan.teacher, record.condition).standing
    if teacher is None or teacher.environment.get("run") != record.environment.get("run"):
        return None
    seed = entry.chain.plan.settings.bench.seed
    return _paired(_observations(processes), _observations(teacher.processes), seed, resamples)


def _ratio_value(entry: Entry, record: LatencyRecord, processes: Sequence[Process]) -> float | None:
    found = _ratio(entry, record, processes, 1)
    return found.value if found else None


PROCESSES, TEACHERS = "its processes", "its processes and the teacher's"
LATENCY: Sequence[Figure[LatencyRecord]] = (
    Figure("latency_ms.value", PROCESSES, _estimate),
    Figure("median_ms", PROCESSES, lambda _, record: median_process(one.median_ms for one in record.processes)),
    Figure("p90_ms", PROCESSES, lambda _, record: median_process(one.p90_ms for one in record.processes)),
    Figure("ratio_to_teacher.value", TEACHERS, lambda entry, record: _ratio_value(entry, record, record.processes)),
    Figure("control_ratio.value", TEACHERS, lambda entry, record: _ratio_value(entry, record, record.control)),
)
# Resampling takes a hundredth of a second for each, so that these are for `verify`.
INTERVALS: Sequence[Figure[LatencyRecord]] = (
    Figure("latency_ms", PROCESSES, _latency),
    Figure("ratio_to_teacher", TEACHERS, lambda entry, record: _ratio(entry, record, record.processes)),
    Figure("control_ratio", TEACHERS, lambda entry, record: _ratio(entry, record, record.control)),
)
ACCURACY: Sequence[Figure[AccuracyRecord]] = (
    Figure(
        "accuracy_pct",
        "correct and images",
        lambda _, record: (
            100 * record.correct / record.images if record.correct is not None and record.images else None
        ),
    ),
    Figure("agreement_pct", "a whole number of images", _whole_images("agreement_pct", "images")),
)
# Facts that records of one run share and that no other check compares.
_COMPARED_ELSEWHERE = {*MACHINE, "image", "enclosure", "run"}
_NOT_SHARED = {"measured_cpus", "session", "engine_facts"}
_as_json = json.JSONEncoder(sort_keys=True).encode


def _other_facts(evidence: Evidence) -> Iterator[Fault]:
    # (run, fact) -> how many records of the run give the fact which value (as JSON), the plan's first record first
    counts: dict[tuple[str, str], Counter[str]] = {}
    told = []
    for entry, record in (*evidence.latencies(), *evidence.accuracies()):
        run = str(record.environment.get("run"))
        for name in record.environment.keys() - _COMPARED_ELSEWHERE - _NOT_SHARED:
            said = _as_json(record.environment[name])
            counts.setdefault((run, name), Counter())[said] += 1
            told.append((entry, record, run, name, said))
    usual = {place: values.most_common(1)[0][0] for place, values in counts.items()}
    for entry, record, run, name, said in told:
        if said != (others := usual[run, name]):
            reason = f"environment.{name} is {said} on record, {others} in the other records of the run"
            yield _fault(entry, record, reason)


# --- The checks -------------------------------------------------------------------------------------------------------


def _fault(entry: Entry, record: Record, reason: str) -> Fault:
    beside = isinstance(record, LatencyRecord) and record.condition != entry.chain.conditions[0]
    condition = record.condition if isinstance(record, LatencyRecord) else ""
    return Fault(entry, record.stage, f"{reason} ({condition})" if beside else reason, condition)


def _unlike(entry: Entry, record: R, figures: Sequence[Figure[R]]) -> Iterator[Fault]:
    for figure in figures:
        said = figure.said(record)
        found = None if said is None else figure.follows(entry, record)
        if found is not None and not same(said, found):
            reason = f"{figure.field} is {spelled(said)} on record; {spelled(found)} follows from {figure.source}"
            yield _fault(entry, record, reason)


def false_figure(evidence: Evidence) -> Iterator[Fault]:
    """A figure that is not what follows from others on record."""
    for entry in evidence.entries.values():
        if entry.train:
            yield from _unlike(entry, entry.train, TRAIN)
            for phase, said, recipe in _epochs(entry, entry.train):
                if said != recipe:
                    yield Fault(entry, "train", f"{said} {phase} epochs on record; its recipe has {recipe}")
        if entry.export:
            yield from _unlike(entry, entry.export, EXPORT)
    for entry, latency in evidence.latencies():
        yield from _unlike(entry, latency, LATENCY)
    for entry, accuracy in evidence.accuracies():
        yield from _unlike(entry, accuracy, ACCURACY)
    yield from _other_facts(evidence)


def false_interval(evidence: Evidence) -> Iterator[Fault]:
    """An interval that is not what follows from the processes on record, although its value is."""
    for entry, latency in evidence.latencies():
        for figure in INTERVALS:
            said = figure.said(latency)
            found = figure.follows(entry, latency) if said else None
            if found and same(said.value, found.value):
                yield from _unlike(entry, latency, [figure])
