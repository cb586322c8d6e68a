"""What the samples say. All functions are pure; the unit of the result is the unit of what is given.

A whole process can be slow by chance (where its memory landed, a burst next door), so rounds of one process are not
independent: the process is the unit, its median the observation, and intervals are over processes.
"""

from collections.abc import Mapping, Sequence

import numpy as np

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
    picks = np.random.default_rng(seed).integers(0, len(ordered), size=(RESAMPLES, len(ordered)))
    tail = (100 - CONFIDENCE_PCT) / 2
    # Interpolating between two equal medians may differ from them in the last bit; picking one cannot.
    low, high = np.percentile(np.median(ordered[picks], axis=1), [tail, 100 - tail], method="nearest")
    return Interval(value=float(np.median(ordered)), low=float(low), high=float(high))


def paired_ratio(model: Mapping[int, float], teacher: Mapping[int, float], seed: int) -> Interval | None:
    """Model's time over teacher's, each a map block -> process median; below 1 is faster.

    Divided within a block first, so that what slows a whole block (clock, neighbours) cancels. None where no block
    has both.
    """
    ratios = [model[block] / teacher[block] for block in sorted(model.keys() & teacher.keys())]
    return median_interval(ratios, seed) if ratios else None


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
