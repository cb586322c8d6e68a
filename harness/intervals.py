"""What the samples say. All functions are pure, and results are in the unit of what is given.

A whole process can be slow by chance, because of where its memory was placed or what ran beside it, so the rounds of
one process are not independent. Therefore each process gives one observation, and intervals are over processes.

Which figure makes a good observation: on a virtual machine the other half of a physical core belongs to another guest.
While that guest works, everything here takes 1.4 to 1.9 times as long, for tens of milliseconds or for seconds, and a
median measures the neighbour. The speed between such bursts is what a second run reproduces: the first percentile of a
process, and the lower quartile over processes, since some processes see nothing but bursts.
benchmarks.estimator_study compares estimators. harness.plan.bench_settings.ESTIMATOR names this one in every latency's
key.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from harness.store.records import Interval

WITHIN_PCT, OVER_PCT = 1, 25
# With fewer samples a percentile cannot be told from its neighbours (MLPerf LoadGen's early stopping criterion).
LEAST_SAMPLES = {50: 11, 90: 64, 95: 130, 99: 662}
RESAMPLES = 9999
CONFIDENCE_PCT = 95.0
# A percentile bootstrap from few processes is too narrow (docs/estimators.md). So its distance from the estimate, as a
# ratio, is raised to a power: to this one from so many processes on. Simulated noise needs no more for 95 %
# (`python -m benchmarks.interval_study powers`). From fewer processes than the first of these it would need more than
# 5. Such an interval would rest on the shape that was assumed for the noise, so none is given.
LATENCY_POWERS = {6: 3.0, 7: 2.3, 8: 1.75, 9: 1.5, 13: 1.65, 15: 1.45, 18: 1.35}
RATIO_POWERS = {3: 4.0, 4: 2.05, 5: 1.6, 6: 1.35, 7: 1.3, 8: 1.15, 9: 1.1, 15: 1.05}
# pyperf's thresholds, above which it calls a benchmark unstable.
UNSTABLE_CV_PCT = 10.0
UNSTABLE_RANGE_PCT = 50.0
Floats = npt.NDArray[np.float64]


def undisturbed(samples: Sequence[float]) -> float:
    """The observation that one process gives: its 1st percentile, how long it takes while nothing disturbs it.

    By nearest rank, so it is one of the samples. A long model has fewer samples in the same time, and interpolating
    between its fastest two would mix a disturbed one in.
    """
    return float(np.percentile(np.asarray(samples, dtype=np.float64), WITHIN_PCT, method="inverted_cdf"))


def percentile(samples: Sequence[float], percent: int) -> float | None:
    """A percentile (50, 90, 95 or 99), interpolated linearly; None where there are too few samples for it."""
    if len(samples) < LEAST_SAMPLES[percent]:
        return None
    return float(np.percentile(np.asarray(samples, dtype=np.float64), percent))


def estimate(values: Sequence[float]) -> float:
    """One figure from the observations of several processes: their lower quartile. ValueError without observations."""
    if not values:
        raise ValueError("no observations")
    return float(_estimates(np.asarray(values, dtype=np.float64)))


def median_process(values: Iterable[float | None]) -> float | None:
    """The upper median of what processes gave, those left out that gave nothing; None where that is all of them."""
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] if known else None


def interval(values: Sequence[float], seed: int, resamples: int = RESAMPLES) -> Interval:
    """The estimate and its 95 % interval over processes, whatever the order of `values`; without one from too few."""
    value = estimate(values)
    if len(values) < min(LATENCY_POWERS):
        return Interval(value=value)
    low, high = latency_bounds(np.sort(np.asarray(values, dtype=np.float64))[None], seed, resamples)
    return Interval(value=value, low=float(low[0]), high=float(high[0]))


def paired_ratio(
    model: Mapping[int, float], teacher: Mapping[int, float], seed: int, resamples: int = RESAMPLES
) -> Interval | None:
    """The model's estimate divided by the teacher's; below 1 is faster. None where they have no block in common.

    Both are maps block -> observation. Blocks are resampled, and both models with them, since whatever slows a whole
    block (the clock, other guests) slows both. From too few blocks the ratio has no interval.
    """
    pairs = _pairs(model, teacher)
    if not pairs.size:
        return None
    value = float(_ratios(pairs))
    # exactly 1 for the teacher itself, however few blocks there are
    if pairs.shape[1] < min(RATIO_POWERS) and not np.array_equal(*pairs):
        return Interval(value=value)
    low, high = ratio_bounds(pairs[None], seed, resamples)
    return Interval(value=value, low=float(low[0]), high=float(high[0]))


def latency_bounds(observed: Floats, seed: int, resamples: int) -> tuple[Floats, Floats]:
    """The 95 % intervals of the estimates of many series at once; [N, processes] -> two of [N]."""
    return _bounds(observed, _estimates, LATENCY_POWERS, seed, resamples)


def ratio_bounds(pairs: Floats, seed: int, resamples: int) -> tuple[Floats, Floats]:
    """The 95 % intervals of many paired ratios at once; [N, 2, blocks], the model first -> two of [N]."""
    return _bounds(pairs, _ratios, RATIO_POWERS, seed, resamples)


def power_for(count: int, powers: Mapping[int, float]) -> float:
    """What a bootstrap from so many processes has to be raised to; the first power where they are too few for any."""
    return powers[max((least for least in powers if least <= count), default=min(powers))]


def change_of_estimates(
    before: Sequence[float], after: Sequence[float], confidence_pct: float = CONFIDENCE_PCT
) -> Interval:
    """The estimate after divided by the one before, of two separate runs, with its interval.

    Nothing is paired, since the two runs share no block. The order within either run does not matter.
    """
    return _change(estimate(after) / estimate(before), before, after, confidence_pct)


Paired = tuple[Mapping[int, float], Mapping[int, float]]


def change_of_ratios(before: Paired, after: Paired, confidence_pct: float = CONFIDENCE_PCT) -> Interval | None:
    """The ratio after divided by the one before, with its interval; None where either has no common block.

    Each is (model, teacher) as for `paired_ratio`. What is compared is the ratio within each block.
    """
    runs = [_pairs(*before), _pairs(*after)]
    if not all(pairs.size for pairs in runs):
        return None
    first, second = (pairs[0] / pairs[1] for pairs in runs)
    return _change(float(_ratios(runs[1]) / _ratios(runs[0])), first.tolist(), second.tolist(), confidence_pct)


def halfwidth_pct(found: Interval) -> float:
    """Half an interval's width, in percent of its value; infinite where there is no interval."""
    return 100 * (found.bounds[1] - found.bounds[0]) / 2 / found.value if found.bounds else math.inf


def _estimates(values: Floats) -> Floats:
    """Lower quartile along the last axis, interpolated linearly; [..., processes] -> [...]."""
    return np.asarray(np.percentile(values, OVER_PCT, axis=-1))


def _pairs(model: Mapping[int, float], teacher: Mapping[int, float]) -> Floats:
    """What both took in their common blocks, [2, blocks]."""
    common = sorted(model.keys() & teacher.keys())
    return np.asarray([[one[block] for block in common] for one in (model, teacher)], dtype=np.float64)


def _ratios(pairs: Floats) -> Floats:
    """[..., 2, blocks] -> [...]."""
    both = _estimates(pairs)
    return np.asarray(both[..., 0] / both[..., 1])


def _bounds(
    rows: Floats, of: Callable[[Floats], Floats], powers: Mapping[int, float], seed: int, resamples: int
) -> tuple[Floats, Floats]:
    """Percentile-bootstrap intervals of a figure of [N, ..., n], each bound as far from it as the power says."""
    count = rows.shape[-1]
    picks = np.random.default_rng(seed).integers(0, count, size=(resamples, count))
    # [N, resamples, ..., n]
    value, again = of(rows), of(np.moveaxis(rows[..., picks], -2, 1))
    tail = (100 - CONFIDENCE_PCT) / 2
    # Interpolating between two equal values may give another in the last bit; picking one of them cannot.
    low, high = np.percentile(again, [tail, 100 - tail], axis=1, method="nearest")
    power = power_for(count, powers)
    # A percentile bootstrap from few processes may leave its estimate just outside.
    return value * np.minimum(low / value, 1) ** power, value * np.maximum(high / value, 1) ** power


def _change(value: float, before: Sequence[float], after: Sequence[float], confidence_pct: float) -> Interval:
    """The factor by which a second series is slower than a first, by inverting the rank sum test of Mann and Whitney.

    The test is exact whatever the noise is like, as long as it is alike in both, so the interval keeps its promise at
    any confidence (Hodges and Lehmann, Annals of Mathematical Statistics 34, 1963). A bootstrap from a dozen processes
    cannot: it knows nothing of what happens one time in a thousand. It has no bounds where there are too few of them.
    """
    spared = _spared(len(before), len(after), confidence_pct)
    if spared is None:
        return Interval(value=value)
    factors = np.sort(np.divide.outer(np.asarray(after), np.asarray(before)), axis=None)
    low, high = float(factors[spared]), float(factors[-1 - spared])
    # The estimate is not the middle of these factors, and may lie just outside.
    return Interval(value=value, low=min(low, value), high=max(high, value))


@cache
def _spared(before: int, after: int, confidence_pct: float) -> int | None:
    """How many of the factors between two series may be left out at either end; None where even none is too many."""
    # The number of orders in which exactly u of the factors are below 1: coefficients of a Gaussian binomial.
    orders = [1] + [0] * (before * after)
    for step in range(1, before + 1):
        for place in range(before * after, after + step - 1, -1):
            orders[place] -= orders[place - after - step]
        for place in range(step, before * after + 1):
            orders[place] += orders[place - step]
    allowed = (100 - confidence_pct) / 200 * math.comb(before + after, before)
    below, spared = 0, None
    for place, count in enumerate(orders):
        below += count
        if below > allowed:
            break
        spared = place
    return spared


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
