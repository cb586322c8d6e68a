import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from harness.statistics import (
    LEAST_SAMPLES,
    change_of_medians,
    change_of_shares,
    instability,
    median_interval,
    paired_ratio,
    percentile,
)

times = st.floats(1e-3, 1e4)
series = st.lists(times, min_size=1, max_size=12)


@pytest.mark.parametrize(("percent", "least"), LEAST_SAMPLES.items())
def test_a_percentile_needs_its_samples(percent: int, least: int) -> None:
    samples = list(np.random.default_rng(0).exponential(size=least))
    assert percentile(samples[:-1], percent) is None
    assert percentile(samples, percent) == pytest.approx(np.percentile(samples, percent))


@given(st.lists(times, min_size=64, max_size=100))
def test_percentiles_are_numpys_and_in_order(samples: list[float]) -> None:
    middle, high = percentile(samples, 50), percentile(samples, 90)
    assert middle == np.median(samples)
    assert middle is not None
    assert high is not None
    assert middle <= high <= max(samples)


@given(series, st.integers(0, 5))
def test_an_interval_holds_its_median_and_stays_among_the_values(values: list[float], seed: int) -> None:
    found = median_interval(values, seed)
    assert found.value == np.median(values)
    assert min(values) <= found.low <= found.value <= found.high <= max(values)


@given(series, st.randoms())
def test_the_order_of_processes_does_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert median_interval(shuffled, 0) == median_interval(values, 0)


@given(series)
def test_the_unit_does_not_matter(values: list[float]) -> None:
    # a power of two scales without rounding
    found, scaled = median_interval(values, 0), median_interval([1024 * value for value in values], 0)
    assert (scaled.value, scaled.low, scaled.high) == (1024 * found.value, 1024 * found.low, 1024 * found.high)


@given(times, st.integers(1, 12))
def test_equal_values_leave_no_doubt(value: float, count: int) -> None:
    found = median_interval([value] * count, 0)
    assert found.value == found.low == found.high == value


@given(st.integers(0, 30))
def test_the_interval_is_scipys(seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(size=25)
    ours = median_interval(list(values), seed)
    theirs = bootstrap(
        (values,), np.median, method="percentile", rng=np.random.default_rng(seed + 1)
    ).confidence_interval
    # Both resample at random, and the bootstrap distribution of a median is discrete: within a neighbour or so.
    ordered = np.sort(values)
    for mine, other in ((ours.low, theirs.low), (ours.high, theirs.high)):
        assert abs(np.searchsorted(ordered, mine) - np.searchsorted(ordered, other)) <= 1


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(7)
    samples = random.lognormal(size=(200, 15))
    found = [median_interval(list(values), index) for index, values in enumerate(samples)]
    covered = np.mean([one.low <= 1 <= one.high for one in found])
    assert 0.90 <= covered <= 0.99


def test_no_observations_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no observations"):
        median_interval([], 0)


@given(st.dictionaries(st.integers(0, 20), times, min_size=1))
def test_the_teachers_own_ratio_is_exactly_one(medians: dict[int, float]) -> None:
    found = paired_ratio(medians, medians, 0)
    assert found is not None
    assert (found.value, found.low, found.high) == (1, 1, 1)


@given(st.dictionaries(st.integers(0, 20), times, min_size=2))
def test_what_slows_a_whole_block_cancels(drift: dict[int, float]) -> None:
    found = paired_ratio({block: 0.5 * slow for block, slow in drift.items()}, drift, 0)
    assert found is not None
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_blocks_that_only_one_of_them_has_do_not_count() -> None:
    found = paired_ratio({0: 1.0, 1: 1.0, 2: 100.0}, {0: 2.0, 1: 2.0, 3: 1.0}, 0)
    assert found is not None
    assert math.isclose(found.high, 0.5)
    assert paired_ratio({0: 1.0}, {1: 1.0}, 0) is None


@given(series, series, st.integers(0, 5))
def test_a_change_is_that_of_the_medians_and_inside_its_interval(
    before: list[float], after: list[float], seed: int
) -> None:
    found = change_of_medians(before, after, seed)
    assert found.value == np.median(after) / np.median(before)
    assert min(after) / max(before) <= found.low <= found.high <= max(after) / min(before)


@given(series, st.integers(0, 5), st.sampled_from([95.0, 99.0, 99.9]))
def test_a_series_against_itself_never_leaves_out_no_change(values: list[float], seed: int, confidence: float) -> None:
    found = change_of_medians(values, values, seed, confidence)
    assert found.low <= found.value == 1 <= found.high


@given(series, series, st.randoms())
def test_neither_runs_order_matters_for_a_change(before: list[float], after: list[float], random: object) -> None:
    found = change_of_medians(before, after, 0)
    for values in (before, after):
        random.shuffle(values)  # type: ignore[attr-defined]
    assert change_of_medians(before, after, 0) == found


@given(series, series)
def test_more_confidence_is_a_wider_interval(before: list[float], after: list[float]) -> None:
    usual, surer = change_of_medians(before, after, 0), change_of_medians(before, after, 0, 99.5)
    assert surer.low <= usual.low <= usual.high <= surer.high


def test_a_change_without_observations_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no observations"):
        change_of_medians([], [1.0], 0)


counts = st.integers(1, 10_000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count)))


@given(counts, counts)
def test_a_change_of_shares_is_inside_its_interval_and_turns_with_it(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    there, back = change_of_shares(before, after), change_of_shares(after, before)
    assert -100 - 1e-9 <= there.low <= there.value <= there.high <= 100 + 1e-9
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


@given(counts)
def test_a_share_against_itself_never_leaves_out_no_change(share: tuple[int, int]) -> None:
    found = change_of_shares(share, share)
    assert found.low <= found.value == 0 <= found.high


def test_newcombes_own_example() -> None:
    # Statistics in Medicine 17 (1998), table II, case (a): 56/70 - 48/80.
    found = change_of_shares((48, 80), (56, 70))
    assert (found.value, found.low, found.high) == pytest.approx((20.0, 5.24, 33.39), abs=0.01)


@pytest.mark.parametrize(
    ("medians", "said"),
    [
        ([1.0, 1.01, 0.99], []),
        ([5.0], []),
        ([1.0, 1.0, 1.3, 0.9], ["CV"]),
        ([1.0, 1.0, 1.0, 2.0], ["CV", "slowest process is 100 % off"]),
        ([1.0, 1.0, 0.4], ["CV", "fastest process is 60 % off"]),
    ],
)
def test_unstable_series_are_called_so(medians: list[float], said: list[str]) -> None:
    warnings = instability(medians)
    assert len(warnings) == len(said)
    assert all(word in warning for word, warning in zip(said, warnings, strict=True))
