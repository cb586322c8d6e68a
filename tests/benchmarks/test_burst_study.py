import numpy as np
import pytest

from benchmarks.burst_study import (
    AT_15_MS,
    BURSTS,
    CHOSEN,
    ESTIMATORS,
    ROUNDS,
    SAMPLING_S,
    SLOWDOWN,
    WORST,
    biases,
    figures,
    process,
    table,
)

FOR_EVER, NEVER = 1e6, 1e-9


@pytest.mark.parametrize(
    ("takes_s", "rounds"), [(0.0003, 1 / 0.0003), (0.0074, 135), (0.0155, ROUNDS), (0.030, ROUNDS)]
)
def test_a_process_is_sampled_for_as_long_and_as_often_as_the_bench_does(takes_s: float, rounds: float) -> None:
    samples = process(np.random.default_rng(0), takes_s, NEVER * FOR_EVER, FOR_EVER)
    assert len(samples) == pytest.approx(max(ROUNDS, rounds), rel=0.02)
    assert takes_s * samples.sum() >= SAMPLING_S * 0.98


def test_bursts_slow_what_they_meet_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    quiet = process(random, 0.015, 1e-3, FOR_EVER)
    assert 1 <= quiet.min() <= quiet.max() < 1.1
    busy = process(random, 0.015, FOR_EVER, 1e-3)
    assert SLOWDOWN <= busy.min() <= busy.max() < 1.1 * SLOWDOWN
    mixed = np.concatenate([process(random, 0.015, 0.4, 0.8) for _ in range(50)])
    assert np.mean(mixed > 1.3) == pytest.approx(1 / 3, abs=0.12)
    assert mixed.min() >= 1
    assert mixed.max() < 1.1 * SLOWDOWN


def test_the_estimator_of_the_bench_is_hardly_biased_and_others_are() -> None:
    found = biases(processes=60, runs=300)
    assert found.keys() == ESTIMATORS.keys()
    assert set(found[CHOSEN]) > {(pair, rhythm) for pair in AT_15_MS for rhythm in [*BURSTS, WORST]}
    assert float(figures(found)["estimator_bias_pct_max_at_15ms"] or 0) <= 0.5
    worst = {name: max(abs(found[name][pair, rhythm]) for pair in AT_15_MS for rhythm in BURSTS) for name in found}
    assert worst["median"] > 1
    assert worst["mean"] > 1
    assert worst[CHOSEN] <= worst["1st percentile, interpolated"]
    assert table(found).count("**") == 2 * (1 + len(BURSTS) + 1)
