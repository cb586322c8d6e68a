"""What the samples say. All functions are pure, and results are in the unit of what is given.

A whole process can be slow by chance, because of where its memory was placed or what ran beside it, so the rounds of
one process are not independent. Therefore each process gives one observation, and intervals are over processes.

Which figure makes a good observation: on a virtual machine the other half of a physical core belongs to another guest.
While that guest works, everything here takes 1.4 to 1.9 times as long, for tens of milliseconds or for seconds, and a
median measures the neighbour. The speed between such bursts is what a second run reproduces: the first percentile of a
process, and the lower quartile over processes, since some processes see nothing but bursts.
benchmarks.estimator_study compares estimators; harness.plan.settings.ESTIMATOR names this one in every latency's key.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from harness.store.records import Interval

WITHIN_PCT, OVER_PCT = 1, 25
# With fewer samples a percentile cannot be told from its neighbours (MLPerf LoadGen's early stopping criterion).
LEAST_SAMPLES = {50: 11, 90: 64, 95: 130, 99: 662}
RESAMPLES = 9999
CONFIDENCE_PCT = 95.0
# pyperf's thresholds, above which it calls a benchmark unstable.
UNSTABLE_CV_PCT = 10.0
UNSTABLE_RANGE_PCT = 50.0
Floats = npt.NDArray[np.float64]


def undisturbed(samples: Sequence[float]) -> float:
    """The observation that one process gives: its 1st percentile, how long it takes while nothing disturbs it."""
    return float(np.percentile(np.asarray(samples, dtype=np.float64), WITHIN_PCT))


def percentile(samples: Sequence[float], percent: int) -> float | None:
    """A percentile (50, 90, 95 or 99), interpolated linearly; None where there are too few samples for it."""
    if len(samples) < LEAST_SAMPLES[percent]:
        return None
    return float(np.percentile(np.asarray(samples, dtype=np.float64), percent))


def estimate(values: Sequence[float]) -> float:
    """One figure from the observations of several processes: their lower quartile. ValueError without observations."""
    if not values:
        raise ValueError("no observations")
    return float(_estimates(np.asarray(values, dtype=np.float64)[None])[0])


def median_process(values: Iterable[float | None]) -> float | None:
    """The upper median of what processes gave, those left out that gave nothing; None where that is all of them."""
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] if known else None


def interval(values: Sequence[float], seed: int) -> Interval:
    """The estimate and its 95 % percentile-bootstrap interval over processes, whatever the order of `values`."""
    value, ordered = estimate(values), np.sort(np.asarray(values, dtype=np.float64))
    low, high = _middle(_estimates(_resampled(ordered, seed, RESAMPLES)), CONFIDENCE_PCT)
    return _holding(value, low, high)


def paired_ratio(
    model: Mapping[int, float], teacher: Mapping[int, float], seed: int, resamples: int = RESAMPLES
) -> Interval | None:
    """The model's estimate divided by the teacher's; below 1 is faster. None where they have no block in common.

    Both are maps block -> observation. Blocks are resampled, and both models with them, since whatever slows a whole
    block (the clock, other guests) slows both.
    """
    pairs = _pairs(model, teacher)
    if not len(pairs):
        return None
    low, high = _middle(_ratios(_resampled(pairs, seed, resamples)), CONFIDENCE_PCT)
    return _holding(float(_ratios(pairs[None])[0]), low, high)


def change_of_estimates(
    before: Sequence[float], after: Sequence[float], seed: int, confidence_pct: float = CONFIDENCE_PCT
) -> Interval:
    """The estimate after divided by the one before, of two separate runs, with its percentile-bootstrap interval.

    Nothing is paired, since the two runs share no block. The order within either run does not matter.
    """
    value = estimate(after) / estimate(before)
    ordered = [np.sort(np.asarray(values, dtype=np.float64)) for values in (before, after)]
    # Separate random streams: with one, two equal series would be resampled alike and their ratio could not vary.
    first, second = (_estimates(_resampled(values, [seed, place], RESAMPLES)) for place, values in enumerate(ordered))
    return _holding(value, *_middle(second / first, confidence_pct))


Paired = tuple[Mapping[int, float], Mapping[int, float]]


def change_of_ratios(
    before: Paired, after: Paired, seed: int, confidence_pct: float = CONFIDENCE_PCT
) -> Interval | None:
    """The ratio after divided by the one before, with its interval; None where either has no common block.

    Each is (model, teacher) as for `paired_ratio`.
    """
    runs = [_pairs(*before), _pairs(*after)]
    if not all(map(len, runs)):
        return None
    first, second = (_ratios(_resampled(pairs, [seed, place], RESAMPLES)) for place, pairs in enumerate(runs))
    value = float(_ratios(runs[1][None])[0] / _ratios(runs[0][None])[0])
    return _holding(value, *_middle(second / first, confidence_pct))


def halfwidth_pct(found: Interval) -> float:
    """Half an interval's width, in percent of its value."""
    return 100 * (found.high - found.low) / 2 / found.value


def _estimates(values: Floats) -> Floats:
    """Lower quartile along the second axis, interpolated linearly; [N, processes, ...] -> [N, ...]."""
    return np.asarray(np.percentile(values, OVER_PCT, axis=1))


def _pairs(model: Mapping[int, float], teacher: Mapping[int, float]) -> Floats:
    """Common blocks as [blocks, 2], model first."""
    common = sorted(model.keys() & teacher.keys())
    return np.asarray([(model[block], teacher[block]) for block in common], dtype=np.float64)


def _ratios(pairs: Floats) -> Floats:
    """[N, blocks, 2] -> [N]."""
    both = _estimates(pairs)
    return np.asarray(both[:, 0] / both[:, 1])


def _resampled(rows: Floats, seed: int | Sequence[int], resamples: int) -> Floats:
    """`rows` drawn again with replacement, `resamples` times: [n, ...] -> [resamples, n, ...]."""
    picks = np.random.default_rng(seed).integers(0, len(rows), size=(resamples, len(rows)))
    return rows[picks]


def _middle(values: Floats, confidence_pct: float) -> tuple[float, float]:
    tail = (100 - confidence_pct) / 2
    # Interpolating between two equal values may give another in the last bit; picking one of them cannot.
    low, high = np.percentile(values, [tail, 100 - tail], method="nearest")
    return float(low), float(high)


def _holding(value: float, low: float, high: float) -> Interval:
    """An interval that holds its estimate: a percentile bootstrap from few processes may leave it just outside."""
    return Interval(value=value, low=min(low, value), high=max(high, value))


def instability(observations: Sequence[float]) -> list[str]:
    """Warnings about processes that lie far apart, worded without figures so that several rows can share one."""
    values = np.asarray(observations, dtype=np.float64)
    middle = float(np.median(values))
    warnings = []
    if len(values) > 1 and 100 * float(values.std(ddof=1) / values.mean()) >= UNSTABLE_CV_PCT:
        warnings.append(f"processes vary by {UNSTABLE_CV_PCT:g} % or more (CV): the machine is shared")
    for word, value in (("fastest", float(values.min())), ("slowest", float(values.max()))):
        if 100 * abs(value - middle) / middle >= UNSTABLE_RANGE_PCT:
            warnings.append(f"the {word} process is {UNSTABLE_RANGE_PCT:g} % or more off the median process")
    return warnings
