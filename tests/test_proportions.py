import math
import random
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, multinomial, norm

from harness.proportions import Right, change_of_shares, crossed_difference, paired_difference
from harness.store.records import Interval

CONFIDENCES = st.floats(50, 99.99)
# Of each image, whether the first model and whether the second one was right.
answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)
trainings = st.integers(1, 4).flatmap(
    lambda seeds: st.lists(
        st.lists(st.tuples(st.booleans(), st.booleans()), min_size=seeds, max_size=seeds), min_size=2, max_size=60
    )
)


def sides(pairs: list[tuple[bool, bool]]) -> tuple[Right, Right]:
    both = np.array(pairs)
    return both[:, 0], both[:, 1]


def counted(both: int, gained: int, lost: int, images: int) -> tuple[Right, Right]:
    """Two models of which so many images are answered rightly by both, by the second alone and by the first alone."""
    before, after = np.zeros(images, bool), np.zeros(images, bool)
    before[: both + lost] = True
    after[:both] = after[both + lost : both + lost + gained] = True
    return before, after


def bounds(found: Interval) -> tuple[float, float, float]:
    """Lower bound, value and upper bound."""
    assert found.bounds
    return found.bounds[0], found.value, found.bounds[1]


def inverted(found: Interval) -> tuple[float, float, float]:
    """The bounds of the difference the other way round."""
    low, value, high = bounds(found)
    return -high, -value, -low


# --- Two models on the same images -----------------------------------------------------------------------------------


def test_the_paired_interval_agrees_with_published_examples() -> None:
    # Fagerland, Lydersen and Laake (Statistics in Medicine 33, 2014): airway hyper-responsiveness, Tango's interval.
    found = paired_difference(*counted(1, 1, 7, 21))
    assert bounds(found) == pytest.approx((-51.7, -28.6, -2.6), abs=0.05)
    # Without a single image that only one answers rightly it is z^2 / (n + z^2), as Tango's paper has it.
    z2 = norm.ppf(0.975) ** 2
    same = paired_difference(*counted(30, 0, 0, 50))
    assert bounds(same) == pytest.approx((-100 * z2 / (50 + z2), 0, 100 * z2 / (50 + z2)))


@given(answers, CONFIDENCES)
def test_a_paired_difference_is_inside_its_interval_and_changes_sign_with_the_models(
    pairs: list[tuple[bool, bool]], confidence: float
) -> None:
    before, after = sides(pairs)
    there, back = paired_difference(before, after, confidence), paired_difference(after, before, confidence)
    assert -100 <= min(bounds(there)) <= max(bounds(there)) <= 100
    assert there.value == pytest.approx(100 * (after.mean() - before.mean()))
    assert bounds(there) == inverted(back)


@given(answers, st.randoms())
def test_the_order_of_the_images_does_not_matter(pairs: list[tuple[bool, bool]], shuffle: random.Random) -> None:
    found = paired_difference(*sides(pairs))
    shuffle.shuffle(pairs)
    assert paired_difference(*sides(pairs)) == found


@given(answers)
def test_a_model_compared_with_itself_always_includes_no_difference(pairs: list[tuple[bool, bool]]) -> None:
    before, _ = sides(pairs)
    found = paired_difference(before, before)
    low, value, high = bounds(found)
    assert low < value == 0 < high


@given(st.integers(0, 400), st.integers(0, 400), st.integers(1, 2000), CONFIDENCES)
def test_no_difference_is_excluded_exactly_where_mcnemars_test_rejects(
    gained: int, lost: int, others: int, confidence: float
) -> None:
    statistic = (gained - lost) ** 2 / max(gained + lost, 1)
    critical = chi2.ppf(confidence / 100, 1)
    found = paired_difference(*counted(others // 2, gained, lost, gained + lost + others), confidence)
    if not math.isclose(statistic, critical, rel_tol=1e-9):
        assert found.covers(0) is not bool(statistic > critical)


@given(answers)
def test_more_confidence_is_a_wider_paired_interval(pairs: list[tuple[bool, bool]]) -> None:
    usual, surer = paired_difference(*sides(pairs)), paired_difference(*sides(pairs), 99.5)
    assert bounds(surer)[0] <= bounds(usual)[0] <= bounds(usual)[2] <= bounds(surer)[2]


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_paired_interval_of_models_that_mostly_agree_is_the_narrower_one(gained: int, lost: int) -> None:
    """As models of one teacher do; 10,000 images, three quarters of them right."""
    before, after = counted(7400, gained, lost, 10_000)
    paired = paired_difference(before, after)
    independent = change_of_shares((int(before.sum()), 10_000), (int(after.sum()), 10_000))
    widths = [bounds(found)[2] - bounds(found)[0] for found in (paired, independent)]
    assert widths[0] < widths[1] / 3


@pytest.mark.parametrize(
    ("images", "gained", "lost"),
    [(100, 0.1, 0.1), (100, 0.2, 0.05), (300, 0.05, 0.05), (300, 0.1, 0.05), (1000, 0.02, 0.02), (1000, 0.04, 0.01)],
)
def test_the_paired_interval_covers_what_it_says(images: int, gained: float, lost: float) -> None:
    """Not simulated: every outcome that is possible, with its probability."""
    found = cache(lambda b, c: paired_difference(*counted(0, b, c, images)))
    most = [math.ceil(images * share + 6 * math.sqrt(images * share)) for share in (gained, lost)]
    outcomes = [(b, c) for b in range(most[0] + 1) for c in range(most[1] + 1) if b + c <= images]
    counts = [(b, c, images - b - c) for b, c in outcomes]
    likely = multinomial.pmf(counts, images, [gained, lost, 1 - gained - lost])
    true = 100 * (gained - lost)
    possible = [(outcome, chance) for outcome, chance in zip(outcomes, likely, strict=True) if chance > 1e-8]
    covered = sum(chance for (b, c), chance in possible if found(b, c).covers(true))
    assert 0.94 <= covered <= 0.97


@pytest.mark.parametrize(("before", "after"), [((3,), (4,)), ((0,), (0,)), ((2, 3), (3, 2))])
def test_answers_to_other_images_are_not_paired(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(np.zeros(before, bool), np.zeros(after, bool))
    with pytest.raises(ValueError, match="cannot be paired"):
        crossed_difference(np.zeros(before, bool), np.zeros(after, bool))


# --- Several trainings -----------------------------------------------------------------------------------------------


@given(trainings, CONFIDENCES, st.randoms())
def test_a_difference_of_trainings_is_inside_its_interval_symmetric_and_in_no_order(
    rows: list[list[tuple[bool, bool]]], confidence: float, shuffle: random.Random
) -> None:
    before, after = np.array(rows).transpose(2, 1, 0)
    there, back = crossed_difference(before, after, confidence), crossed_difference(after, before, confidence)
    assert -100 <= min(bounds(there)) <= max(bounds(there)) <= 100
    assert there.value == pytest.approx(100 * (after.mean() - before.mean()))
    assert bounds(there) == pytest.approx(inverted(back))
    seeds, images = (shuffle.sample(range(count), count) for count in before.shape)
    shuffled = (side[seeds][:, images] for side in (before, after))
    assert bounds(crossed_difference(next(shuffled), next(shuffled), confidence)) == pytest.approx(bounds(there))


@given(answers)
def test_one_training_says_what_its_images_say(pairs: list[tuple[bool, bool]]) -> None:
    before, after = sides(pairs)
    assert crossed_difference(before[None], after[None]) == paired_difference(before, after)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("over_seeds", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("over_images", [0.5, 2.0])
def test_the_interval_over_seeds_and_images_covers_what_it_says(
    seeds: int, over_seeds: float, over_images: float
) -> None:
    """Students of several seeds and one teacher, all of which find the same images hard."""
    draw, images, hits = np.random.default_rng(seeds), 400, 0
    ease = 0.7
    share = norm.cdf(ease / math.sqrt(1 + over_seeds**2 + over_images**2))
    true = 100 * (share - norm.cdf(ease / math.sqrt(1 + over_images**2)))
    for _ in range(500):
        easy = ease + over_images * draw.normal(size=images)
        teacher = easy + draw.normal(size=images) > 0
        students = easy + over_seeds * draw.normal(size=(seeds, 1)) + draw.normal(size=(seeds, images)) > 0
        found = crossed_difference(np.broadcast_to(teacher, students.shape), students)
        hits += found.covers(true)
    # 95 %, less two and a half standard errors of 500 draws
    assert hits / 500 >= 0.95 - 2.5 * math.sqrt(0.95 * 0.05 / 500)


def test_few_seeds_that_differ_much_say_little() -> None:
    """Two trainings, one as good as the teacher and one far better: a third could be anything."""
    teacher, same = counted(700, 0, 0, 1000)
    better = counted(700, 100, 0, 1000)[1]
    found = crossed_difference(np.stack([teacher, teacher]), np.stack([same, better]))
    assert found.value == pytest.approx(5) and bounds(found)[0] < -50
    assert bounds(paired_difference(teacher, better))[0] > 5


# --- Two runs of which only the counts are known ---------------------------------------------------------------------

counts = st.integers(1, 10_000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count)))


@given(counts, counts)
def test_a_change_of_shares_is_inside_its_interval_and_changes_sign_with_it(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    there, back = change_of_shares(before, after), change_of_shares(after, before)
    assert -100 - 1e-9 <= min(bounds(there)) <= max(bounds(there)) <= 100 + 1e-9
    assert bounds(there) == pytest.approx(inverted(back))


@given(counts)
def test_a_share_compared_with_itself_always_includes_no_change(share: tuple[int, int]) -> None:
    found = change_of_shares(share, share)
    assert found.value == 0
    assert found.covers(0)


def test_the_interval_of_a_change_of_shares_agrees_with_newcombe_s_own_example() -> None:
    # Statistics in Medicine 17 (1998), table II, case (a): 56/70 - 48/80.
    found = change_of_shares((48, 80), (56, 70))
    assert bounds(found) == pytest.approx((5.24, 20.0, 33.39), abs=0.01)
