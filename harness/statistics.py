"""What the samples say. All functions are pure; the unit of the result is the unit of what is given.

A whole process can be slow by chance (where its memory landed, a burst next door), so rounds of one process are not
independent: the process is the unit, its median the observation, and intervals are over processes.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from harness.records import Interval

# Samples below which a percentile is not told from its neighbours (MLPerf LoadGen's early stopping criterion).
LEAST_SAMPLES = {50: 11, 90: 64, 95: 130, 99: 662}
RESAMPLES = 9999
CONFIDENCE_PCT = 95.0
# pyperf's thresholds: above these a benchmark is called unstable.
UNSTABLE_CV_PCT = 10.0
UNSTABLE_RANGE_PCT = 50.0


def percentile(samples: Sequence[float], percent: int) -> float | None:
    """A percentile (50, 90, 95 or 99), linear between neighbours; None where there are too few samples for it."""
    if len(samples) < LEAST_SAMPLES[percent]:
        return None
    return float(np.percentile(np.asarray(samples, dtype=np.float64), percent))


def median_interval(values: Sequence[float], seed: int) -> Interval:
    """The median of some observations and its 95 % percentile-bootstrap interval; the order given does not matter."""
    if not values:
        raise ValueError("no observations")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    low, high = _middle(_resampled_medians(ordered, np.random.default_rng(seed)), CONFIDENCE_PCT)
    return Interval(value=float(np.median(ordered)), low=low, high=high)


def paired_ratio(model: Mapping[int, float], teacher: Mapping[int, float], seed: int) -> Interval | None:
    """Model's time over teacher's, each a map block -> process median; below 1 is faster.

    Divided within a block first, so that what slows a whole block (clock, neighbours) cancels. None where no block
    has both.
    """
    ratios = [model[block] / teacher[block] for block in sorted(model.keys() & teacher.keys())]
    return median_interval(ratios, seed) if ratios else None


def change_of_medians(
    before: Sequence[float], after: Sequence[float], seed: int, confidence_pct: float = CONFIDENCE_PCT
) -> Interval:
    """Median after by median before of two separate runs, with its percentile-bootstrap interval over both.

    Nothing is paired: the two runs shared no block. The order within either run does not matter.
    """
    if not before or not after:
        raise ValueError("no observations")
    ordered = [np.sort(np.asarray(values, dtype=np.float64)) for values in (before, after)]
    # Separate streams: with one, two equal series would be resampled alike and their ratio could not vary.
    resampled = [
        _resampled_medians(values, np.random.default_rng([seed, place])) for place, values in enumerate(ordered)
    ]
    low, high = _middle(resampled[1] / resampled[0], confidence_pct)
    return Interval(value=float(np.median(ordered[1]) / np.median(ordered[0])), low=low, high=high)


def change_of_shares(
    before: tuple[int, int], after: tuple[int, int], confidence_pct: float = CONFIDENCE_PCT
) -> Interval:
    """Share after minus share before, in percentage points; each is (correct, of how many).

    Newcombe's interval from two Wilson intervals (Statistics in Medicine 17, 1998, method 10), which holds for shares
    near 0 and 100 % as well. It takes the two for independent; answers to the same images go together, so it is
    rather too wide than too narrow.
    """
    z = NormalDist().inv_cdf(0.5 + confidence_pct / 200)
    one, (one_low, one_high) = before[0] / before[1], _wilson(*before, z)
    two, (two_low, two_high) = after[0] / after[1], _wilson(*after, z)
    value = two - one
    low = value - math.hypot(two - two_low, one_high - one)
    high = value + math.hypot(two_high - two, one - one_low)
    return Interval(value=100 * value, low=100 * low, high=100 * high)


def _wilson(correct: int, count: int, z: float) -> tuple[float, float]:
    share = correct / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = ((middle + side * half) / (1 + z * z / count) for side in (-1, 1))
    # Exact at the ends, where rounding would put the share itself just outside.
    return min(low, share), max(high, share)


def _resampled_medians(ordered: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.float64]:
    picks = random.integers(0, len(ordered), size=(RESAMPLES, len(ordered)))
    return np.asarray(np.median(ordered[picks], axis=1))


def _middle(values: npt.NDArray[np.float64], confidence_pct: float) -> tuple[float, float]:
    tail = (100 - confidence_pct) / 2
    # Interpolating between two equal medians may differ from them in the last bit; picking one cannot.
    low, high = np.percentile(values, [tail, 100 - tail], method="nearest")
    return float(low), float(high)


def instability(medians: Sequence[float]) -> list[str]:
    """Warnings about process medians that lie too far apart to trust their median."""
    values = np.asarray(medians, dtype=np.float64)
    middle = float(np.median(values))
    warnings = []
    if len(values) > 1:
        cv = 100 * float(values.std(ddof=1) / values.mean())
        if cv >= UNSTABLE_CV_PCT:
            warnings.append(f"process medians vary by {cv:.0f} % (CV); use a quieter machine or raise bench.blocks")
    for word, value in (("fastest", float(values.min())), ("slowest", float(values.max()))):
        off = 100 * abs(value - middle) / middle
        if off >= UNSTABLE_RANGE_PCT:
            warnings.append(f"the {word} process is {off:.0f} % off the median process")
    return warnings
