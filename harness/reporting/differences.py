"""How far the accuracies of a table's rows lie apart, and which of them can be put in an order.

Models that answered the same images are compared image by image. A model that was trained with several seeds is
compared seed by seed as well; the teacher is one training, and stands beside each seed.
"""

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

import numpy as np

from harness.proportions import CONFIDENCE_PCT, crossed_difference, half_width
from harness.reporting.interval_text import interval_text
from harness.reporting.rows import Model, Row, accuracies
from harness.store.records import Interval

# More models than these are put in no order.
MOST_RANKED = 200


def to_teacher(model: Model, rows: Sequence[Row]) -> Interval | None:
    """Mean accuracy minus the teacher's, in percentage points; None without accuracies.

    Without bounds where the answers are not on record; for the teacher itself exactly 0.
    """
    teacher = next((row for row in rows if row.cell.is_teacher), None)
    found = accuracies(model)
    if not found or teacher is None or teacher.accuracy_pct is None:
        return None
    if teacher in model:
        return Interval(value=0, low=0, high=0)
    return difference([teacher], model) or Interval(value=fmean(found) - teacher.accuracy_pct)


def difference_text(interval: Interval) -> str:
    """-0.8 ± 0.7; ≈ -0.3 [-1.0, +0.5] where the interval covers 0; -0.8 alone where nothing is known of its error."""
    return interval_text(interval, 1, same=0, sign="+") if interval.bounds else f"{interval.value:+z.1f}"


def mean_ratio(model: Model) -> Interval | None:
    """Latency divided by the teacher's; of several seeds the mean, with its 95 % interval over seeds."""
    found = [row.ratio for row in model if row.ratio]
    if len(found) < 2:
        return found[0] if found else None
    values = np.asarray([ratio.value for ratio in found])
    middle, half = float(values.mean()), half_width(values)
    return Interval(value=middle, low=middle - half, high=middle + half)


def difference(before: Model, after: Model, confidence_pct: float = CONFIDENCE_PCT) -> Interval | None:
    """The accuracy of `after` minus that of `before`, in percentage points; None where it cannot be paired.

    That is where the answers of a row with an accuracy are not on record, where they are to different images, and where
    the two were trained with no common seed. The teacher goes with every seed.
    """
    if not _comparable([*before, *after]):
        return None
    first, second = _by_seed(before), _by_seed(after)
    if before[0].cell.is_teacher:
        first = dict.fromkeys(second, before[0])
    pairs = [(first[seed].predictions, second[seed].predictions) for seed in sorted(first.keys() & second.keys())]
    right = [(one.right, two.right) for one, two in pairs if one and two]
    if not right:
        return None
    earlier, later = (np.stack(side) for side in zip(*right, strict=True))
    return crossed_difference(earlier, later, confidence_pct)


def ranks(models: Sequence[Model]) -> list[int | None]:
    """For each student one more than the number of students that were shown to be more accurate.

    So what cannot be told apart is not put in an order by chance: equal models all have rank 1. All pairs together are
    wrong one time in twenty (Bonferroni). None for the teacher, where a model's answers are not on record, and for all
    models where there are more than MOST_RANKED: so many pairs prove little, and their number grows with the square.
    """
    known = [place for place, model in enumerate(models) if not model[0].cell.is_teacher and _comparable(model)]
    if len(known) > MOST_RANKED:
        return [None] * len(models)
    pairs = list(combinations(known, 2))
    confidence = 100 - (100 - CONFIDENCE_PCT) / max(len(pairs), 1)
    ranked: dict[int, int] = dict.fromkeys(known, 1)
    for one, two in pairs:
        found = difference(models[one], models[two], confidence)
        if found is not None and not found.covers(0):
            ranked[one if found.value > 0 else two] += 1
    return [ranked.get(place) for place in range(len(models))]


def _by_seed(model: Model) -> dict[int, Row]:
    return {row.cell.seed: row for row in model if row.predictions}


def _comparable(rows: Sequence[Row]) -> bool:
    """Whether every row with an accuracy has its answers, and all are to the same images."""
    measured = [row for row in rows if row.accuracy]
    labels = {row.accuracy.labels_sha256 for row in measured if row.accuracy}
    return bool(measured) and all(row.predictions for row in measured) and len(labels) == 1
