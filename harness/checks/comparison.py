"""What changed between two results folders, beyond what chance explains; folders that cannot be compared are an error.

Every cell is several questions at once (latency, latency divided by the teacher's, accuracy), and a matrix has dozens
of cells. So the intervals are widened (Bonferroni): all of them together, not each, are wrong by chance one time in
twenty at most.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tabulate import tabulate

from harness import predictions
from harness.checks.agreement import image, machine
from harness.errors import HarnessError
from harness.intervals import (
    CONFIDENCE_PCT,
    change_of_estimates,
    change_of_ratios,
    estimate,
    paired_ratio,
)
from harness.predictions import Predictions
from harness.proportions import change_of_shares, paired_difference
from harness.store.records import AccuracyRecord, Interval, LatencyRecord, Record, load

R = TypeVar("R", bound=Record)
# Block -> a process's observation.
Observations = dict[int, float]
# With seven processes each, one of two equal models is faster in every process one time in 1,700: few enough for the 85
# figures of a small matrix. With four it is one time in 35, and no interval from so few can promise less.
LEAST_PROCESSES = 7
ITSELF = Interval(value=1.0, low=1.0, high=1.0)


@dataclass(frozen=True)
class Change:
    """One cell's figure before and after. `by` is after / before for latencies, after - before for accuracies.

    `cell` has its condition before it where the figure is a latency; `unchanged` is the value of `by` for no change.
    """

    cell: str
    title: str
    what: str
    unit: str
    before: float
    after: float
    by: Interval
    unchanged: float

    @property
    def significant(self) -> bool:
        """Whether "no change" is outside the interval."""
        return not self.by.covers(self.unchanged)


@dataclass(frozen=True)
class Comparison:
    """Every change that could be judged; what could not, and why."""

    changes: tuple[Change, ...]
    left_out: tuple[str, ...]
    confidence_pct: float

    @property
    def significant(self) -> tuple[Change, ...]:
        """The changes that chance does not explain."""
        return tuple(change for change in self.changes if change.significant)


def compare(before: Path, after: Path) -> Comparison:
    """Compare two folders like results/lite. Pure reading; the same folders always give the same answer.

    Accuracies are compared image by image where both folders have the answers of the same test set, and otherwise as if
    they were independent, which finds less. Only records at their own place count; other files are named in `left_out`.

    Raises HarnessError where a folder has no records, where no cell is in both, or where the settings of [bench], the
    key, machine, runtime, threads, session, container image or test set of a cell are not the same in both. There is no
    way around that: figures that were not measured alike differ for that reason already.
    """
    left_out: list[str] = []
    latencies = [_read(folder, LatencyRecord, left_out) for folder in (before, after)]
    accuracies = [_read(folder, AccuracyRecord, left_out) for folder in (before, after)]
    for folder, timed, tested in zip((before, after), latencies, accuracies, strict=True):
        if not timed and not tested:
            raise HarnessError(f"{folder}: no latency or accuracy records here; name a folder like results/lite")
    pairs = [*_pairs(*latencies), *_pairs(*accuracies)]
    if not pairs:
        raise HarnessError(f"{before} and {after} have no cell in common; compare folders of one profile")
    for one, two in pairs:
        _require_comparable(before, after, one, two)
    left_out += [*_alone(before, after, *latencies), *_alone(before, after, *accuracies)]
    latency_pairs = list(_judged(_pairs(*latencies), _latency_gap, left_out))
    accuracy_pairs = list(_judged(_pairs(*accuracies), _accuracy_gap, left_out))
    by_teacher = list(_ratio_pairs(latency_pairs, *latencies))
    questions = len(latency_pairs) + len(by_teacher) + len(accuracy_pairs)
    confidence = 100 - (100 - CONFIDENCE_PCT) / max(questions, 1)
    changes = [
        *(_latency_change(one, two, confidence) for one, two in latency_pairs),
        *(_ratio_change(*one, confidence) for one in by_teacher),
        *(_accuracy_change((before, one), (after, two), confidence) for one, two in accuracy_pairs),
    ]
    unknowable = [change for change in changes if not change.by.bounds]
    left_out += [f"{change.cell}: {change.what} has too few processes for {questions} figures" for change in unknowable]
    return Comparison(tuple(change for change in changes if change.by.bounds), tuple(left_out), confidence)


def as_text(before: Path, after: Path, comparison: Comparison) -> str:
    """The significant changes as a table, what could not be judged, and one summary line."""
    rows = [
        [
            change.title,
            change.cell.rpartition("/")[0],
            f"{change.what} ({change.unit})" if change.unit else change.what,
            f"{change.before:.4g}",
            f"{change.after:.4g}",
            _spelled(change),
        ]
        for change in comparison.significant
    ]
    headers = ["Model", "Condition", "Figure", "Before", "After", "Change [interval]"]
    aligned = ("left", "left", "left", "right", "right", "left")
    table = [tabulate(rows, headers, disable_numparse=True, colalign=aligned)] if rows else []
    count = len(rows)
    said = f"{count} significant change{'' if count == 1 else 's'}" if count else "no significant change"
    closing = f"{before} -> {after}: {len(comparison.changes)} figures compared, {said} (95 % for all together)."
    return "\n".join([*table, *(f"not judged: {line}" for line in comparison.left_out), closing])


def _spelled(change: Change) -> str:
    return f"x {change.by.text('.3f')}" if change.unchanged == 1 else f"{change.by.text('+.2f')} points"


def _read(folder: Path, kind: type[R], left_out: list[str]) -> dict[str, R]:
    """Records by their place below the stage's folder: the cell, and for latencies the condition before it.

    A JSON file that is not at the place of the record that it holds, like one in a copied folder, is left out.
    """
    root, found = folder / kind.stage, {}
    strays: dict[Path, list[str]] = {}
    for path in sorted(root.rglob("*.json")):
        place = path.relative_to(root).with_suffix("").as_posix()
        possible = place.count("/") == (kind is LatencyRecord) and not path.name.startswith(".")
        record = load(path, kind) if possible else None
        if record and _name(record) == place:
            found[place] = record
        else:
            strays.setdefault(path.parent, []).append(path.name)
    for parent, names in strays.items():
        count = f"{len(names)} files that are no records" if len(names) > 1 else "a file that is no record"
        left_out.append(f"{parent}: {count} of this place, like {names[0]}")
    return found


def _pairs(before: dict[str, R], after: dict[str, R]) -> list[tuple[R, R]]:
    return [(one, after[cell]) for cell, one in before.items() if cell in after]


def _require_comparable(before: Path, after: Path, one: Record, two: Record) -> None:
    for what, value_of in _SAME.items():
        first, second = value_of(one), value_of(two)
        # A failed record may not have the fact.
        if first is None or second is None or first == second:
            continue
        if isinstance(first, dict) and isinstance(second, dict):
            names = [name for name in sorted({*first, *second}) if first.get(name) != second.get(name)]
            first, second = (", ".join(f"{name} = {each.get(name)}" for name in names) for each in (first, second))
        raise HarnessError(
            f"{_name(one)}: cannot compare, the {what} of its {one.stage} differs: "
            f"{first} in {before}, {second} in {after}; compare runs that were made alike"
        )


# The settings of the measurement come before the key that is a hash of them, since they say more.
_SAME: dict[str, Callable[[Record], Any]] = {
    "sampling of [bench]": lambda record: record.spec.get("sampling"),
    "estimator": lambda record: record.spec.get("estimator"),
    "key": lambda record: record.key,
    "machine": machine,
    "container image": image,
    "runtime": lambda record: getattr(record, "runtime", None),
    "number of threads": lambda record: getattr(record, "threads", None),
    "session": lambda record: getattr(record, "session", None) or None,
    "test set": lambda record: getattr(record, "testset_sha256", None),
}


def _alone(before: Path, after: Path, first: dict[str, R], second: dict[str, R]) -> Iterator[str]:
    for folder, records, others in ((before, first, second), (after, second, first)):
        for cell in sorted(records.keys() - others.keys()):
            yield f"{cell}: {records[cell].stage} only in {folder}"


def _judged(pairs: list[tuple[R, R]], gap: Callable[[R], str | None], left_out: list[str]) -> Iterator[tuple[R, R]]:
    for one, two in pairs:
        reason = gap(one) or gap(two)
        if reason:
            left_out.append(f"{_name(one)}: {one.stage} {reason}")
        else:
            yield one, two


def _latency_gap(record: LatencyRecord) -> str | None:
    if record.status == "failed":
        return "failed"
    if len(record.processes) < LEAST_PROCESSES:
        return f"has {len(record.processes)} processes, and {LEAST_PROCESSES} are the fewest that can show a change"
    return None


def _accuracy_gap(record: AccuracyRecord) -> str | None:
    if record.status == "failed":
        return "failed"
    return None if record.correct is not None and record.images else "has no counts"


def _teachers(records: dict[str, LatencyRecord]) -> dict[str, LatencyRecord]:
    """Condition -> the teacher's record, whose own ratio is exactly 1, without an interval."""
    return {record.condition: record for record in records.values() if record.ratio_to_teacher == ITSELF}


def _observations(record: LatencyRecord) -> Observations:
    return {process.block: process.low_ms for process in record.processes}


def _latency_change(one: LatencyRecord, two: LatencyRecord, confidence_pct: float) -> Change:
    before, after = (list(_observations(record).values()) for record in (one, two))
    by = change_of_estimates(before, after, confidence_pct)
    return Change(_name(one), one.title, "latency", "ms", estimate(before), estimate(after), by, unchanged=1.0)


Paired = tuple[Observations, Observations]


def _ratio_pairs(
    pairs: list[tuple[LatencyRecord, LatencyRecord]], before: dict[str, LatencyRecord], after: dict[str, LatencyRecord]
) -> Iterator[tuple[LatencyRecord, Paired, Paired]]:
    """Students with their and their teacher's observations, before and after, where there are enough common blocks."""
    earlier, later = _teachers(before), _teachers(after)
    for one, two in pairs:
        first, second = earlier.get(one.condition), later.get(two.condition)
        if first and second and one.cell != first.cell:
            paired = ((_observations(one), _observations(first)), (_observations(two), _observations(second)))
            if min(len(own.keys() & teachers.keys()) for own, teachers in paired) >= LEAST_PROCESSES:
                yield one, *paired


def _ratio_change(record: LatencyRecord, before: Paired, after: Paired, confidence_pct: float) -> Change:
    by = change_of_ratios(before, after, confidence_pct)
    first, second = (paired_ratio(*paired, seed=0, resamples=1) for paired in (before, after))
    assert by and first and second, "there are common blocks"
    return Change(_name(record), record.title, "latency / teacher's", "", first.value, second.value, by, unchanged=1.0)


def _name(record: Record) -> str:
    """A cell, with the condition of its latency."""
    return f"{record.condition}/{record.cell}" if isinstance(record, LatencyRecord) else record.cell


def _accuracy_change(
    before: tuple[Path, AccuracyRecord], after: tuple[Path, AccuracyRecord], confidence_pct: float
) -> Change:
    (_, one), (_, two) = before, after
    assert one.correct is not None and one.images and two.correct is not None and two.images
    first, second = 100 * one.correct / one.images, 100 * two.correct / two.images
    if one.onnx_sha256 == two.onnx_sha256 and one.testset_sha256 == two.testset_sha256:
        # The same file on the same images leaves nothing to chance.
        by = Interval(value=second - first, low=second - first, high=second - first)
    elif (ours := _answers(*before)) and (theirs := _answers(*after)) and one.labels_sha256 == two.labels_sha256:
        by = paired_difference(ours.right, theirs.right, confidence_pct)
    else:
        by = change_of_shares((one.correct, one.images), (two.correct, two.images), confidence_pct)
    return Change(one.cell, one.title, "accuracy", "%", first, second, by, unchanged=0.0)


def _answers(folder: Path, record: AccuracyRecord) -> Predictions | None:
    """What the model answered; None where that is not on record, or was left behind when the records were copied."""
    here = all((folder / name).exists() for name in predictions.named(record))
    return predictions.read(folder, record) if here else None
