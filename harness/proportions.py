"""What counts of right answers say: the difference between two accuracies, with its interval.

Which interval is right depends on what the two accuracies have in common.

- Two models answered the same images (`paired_difference`). Where both are right or both are wrong the difference is
  known; only the images on which one of them is right are left to chance. Such an interval is much narrower than one
  that takes the two accuracies for independent.
- Several trainings each, which also share the images (`crossed_difference`): then the seeds are a sample as well.
- Nothing is known but the counts (`change_of_shares`).

All functions are pure. Results are in percentage points, and positive where the second of two is the better one.
"""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from harness.store.records import Interval

CONFIDENCE_PCT = 95.0
# Halvings of a range that is at most 2 wide: to the last digit of a double.
HALVINGS = 60
# Whether each image was answered rightly, [N]
Right = npt.NDArray[np.bool_]
# Of several trainings, [seeds, N]
Rights = npt.NDArray[np.bool_]


def paired_difference(before: Right, after: Right, confidence_pct: float = CONFIDENCE_PCT) -> Interval:
    """How much more often `after` is right than `before` on the same images [N], with its interval.

    Tango's score interval (Statistics in Medicine 17, 1998, 891-908). It excludes 0 exactly where McNemar's test
    rejects at that confidence, and unlike the usual approximation it also holds where few images decide.
    ValueError without images, and where the two are not of the same number of images.
    """
    if before.shape != after.shape or not before.size:
        raise ValueError(f"answers to {before.shape} and {after.shape} images cannot be paired")
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return _tango(gained, lost, before.size, confidence_pct)


def crossed_difference(before: Rights, after: Rights, confidence_pct: float = CONFIDENCE_PCT) -> Interval:
    """The same over several trainings of each, [seeds, N]; row by row they belong together.

    Both the seeds and the images are a sample. The mean differences of the seeds have an interval by Student's t, which
    allows for how few they are, and so have those of the images; half their widths are added as squares. What is
    particular to one seed and one image counts in both, so the interval is a little too wide rather than too narrow.
    One seed says nothing about others: its interval is that of `paired_difference`.
    """
    if before.shape != after.shape or before.ndim != 2:
        raise ValueError(f"answers of shape {before.shape} and {after.shape} cannot be paired")
    differences = after.astype(np.int8) - before
    if len(differences) == 1 or not differences.any():
        return paired_difference(before[0], after[0], confidence_pct)
    value = float(differences.mean())
    half = math.hypot(*(half_width(differences.mean(axis=axis), confidence_pct) for axis in (0, 1)))
    return _points(value, max(value - half, -1.0), min(value + half, 1.0))


def change_of_shares(
    before: tuple[int, int], after: tuple[int, int], confidence_pct: float = CONFIDENCE_PCT
) -> Interval:
    """The share after minus the one before; each is (correct, of how many).

    Newcombe's interval from two Wilson intervals (Statistics in Medicine 17, 1998, 873-890, method 10), which also
    holds for shares near 0 and 100 %. It assumes that the two are independent. Answers to the same images are
    correlated, so for these the interval is too wide rather than too narrow.
    """
    z = NormalDist().inv_cdf(0.5 + confidence_pct / 200)
    one, (one_low, one_high) = before[0] / before[1], _wilson(*before, z)
    two, (two_low, two_high) = after[0] / after[1], _wilson(*after, z)
    value = two - one
    low = value - math.hypot(two - two_low, one_high - one)
    high = value + math.hypot(two_high - two, one - one_low)
    return _points(value, low, high)


def half_width(values: npt.NDArray[np.float64], confidence_pct: float = CONFIDENCE_PCT) -> float:
    """Half the width of the interval of a mean by Student's t; 0 where a single value says nothing of it."""
    # here, since only tables over several seeds need it
    from scipy.special import stdtrit

    if len(values) < 2:
        return 0.0
    quantile = float(stdtrit(len(values) - 1, 0.5 + confidence_pct / 200))
    return quantile * float(values.std(ddof=1)) / math.sqrt(len(values))


def _tango(gained: int, lost: int, images: int, confidence_pct: float) -> Interval:
    z = NormalDist().inv_cdf(0.5 + confidence_pct / 200)
    value = (gained - lost) / images
    # The upper limit is the lower one with the models exchanged, so that exchanging them changes nothing but the sign.
    return _points(value, _least(gained, lost, images, z), -_least(lost, gained, images, z))


def _least(gained: int, lost: int, images: int, z: float) -> float:
    """The smallest difference that the counts do not contradict at z, by halving: the score falls as it grows."""
    low, high = -1.0, (gained - lost) / images
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        # The likeliest probability of losing an image, given that the difference is `middle`: the positive root of
        # a q^2 + b q + c.
        a, b, c = 2 * images, (2 * images - gained + lost) * middle - gained - lost, lost * middle * (middle - 1)
        losing = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        deviation = math.sqrt(max(images * (2 * losing + middle * (1 - middle)), 0.0))
        if gained - lost - images * middle > z * deviation:
            low = middle
        else:
            high = middle
    return low


def _wilson(correct: int, count: int, z: float) -> tuple[float, float]:
    share = correct / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = ((middle + side * half) / (1 + z * z / count) for side in (-1, 1))
    # Exact at 0 and 100 %, where rounding would put the share itself just outside.
    return min(low, share), max(high, share)


def _points(value: float, low: float, high: float) -> Interval:
    return Interval(value=100 * value, low=100 * low, high=100 * high)
