import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.interval_study import (
    KINDS,
    NOISES,
    SHOWN,
    Runs,
    false_alarm_pct,
    interval_figures,
    observed,
    paired_t,
    shown_changes_pct,
    simulated,
)


def runs(off: list[float], reach: float = 1.0) -> Runs:
    """Estimates that are off by these logarithms, with intervals that reach so far to either side."""
    value = np.exp(np.asarray(off))
    return Runs(value, value * math.exp(-reach), value * math.exp(reach), power=1.0, truth=1.0)


def test_coverage_counts_the_intervals_that_hold_the_truth() -> None:
    assert runs([0.0, 0.5, -0.9, 1.1, -3.0]).coverage_pct == 60
    assert runs([0.0, 0.5, -0.9, 1.1, -3.0]).lowered(0.6).coverage_pct == 40
    assert runs([0.0]).halfwidth_pct == pytest.approx(50 * (math.e - 1 / math.e))


def test_the_power_that_is_needed_gives_the_coverage_that_is_wanted() -> None:
    noisy = runs(list(np.random.default_rng(0).standard_normal(1001)))
    assert noisy.needed_power(95.0) == pytest.approx(1.96, abs=0.1)
    for wanted in (50.0, 80.0, 95.0):
        found = noisy.lowered(noisy.needed_power(wanted) * (1 + 1e-9))
        assert found.coverage_pct == pytest.approx(wanted, abs=0.1)


def test_the_simulated_noise_is_that_of_the_records() -> None:
    random = np.random.default_rng(0)
    quiet, measured, disturbed = (
        observed(random, "latency", noise, 30, 1000) for noise in ("even", "measured", "disturbed")
    )
    assert quiet.std() == pytest.approx(0.003, rel=0.05)
    for rows, slow in ((measured, 0.03), (disturbed, 0.20)):
        assert np.mean(rows > 1.15) == pytest.approx(slow, abs=0.01)
        assert np.median(rows) < 1.02


def test_an_interval_by_students_t_holds_what_it_says_in_even_noise() -> None:
    assert paired_t("even", 5, 4000).coverage_pct == pytest.approx(95, abs=1.5)


def test_ours_is_the_narrower_where_processes_are_slow() -> None:
    assert simulated("ratio", "disturbed", 12, 500).halfwidth_pct < paired_t("disturbed", 12, 500).halfwidth_pct / 5


def test_a_change_is_shown_from_twelve_processes_that_is_not_much_larger_than_the_noise() -> None:
    latency, ratio = shown_changes_pct(draws=200)
    assert 0 < latency < ratio < 2


def test_the_figures_are_finite_and_the_document_gets_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "docs/estimators.md"
    document.parent.mkdir()
    tables = ["studies estimators", "studies bursts", "studies intervals"]
    document.write_text("# Study\n" + "".join(f"\n<!-- table: {name} -->\n<!-- end -->\n" for name in tables))
    monkeypatch.chdir(tmp_path)
    figures = interval_figures(draws=100, comparisons=20, processes=20)
    assert all(isinstance(value, float) and math.isfinite(value) for value in figures.values())
    wanted = {"interval_coverage_pct_min", "compare_false_alarm_pct", "estimator_bias_pct_max_at_15ms"}
    assert wanted <= figures.keys()
    _, measured, bursts, intervals = document.read_text().split("<!-- table: ")
    assert measured.count("|") == 0, "that table is another study's"
    assert bursts.count("**1st percentile, nearest rank**") == 1
    assert [int(line.split("|")[1]) for line in intervals.splitlines()[4:] if line.startswith("|")] == list(SHOWN)


@pytest.mark.parametrize("noise", NOISES)
def test_two_runs_of_the_same_seed_simulate_the_same(noise: str) -> None:
    for kind in KINDS:
        first, second = (simulated(kind, noise, 6, 50) for _ in range(2))
        assert np.array_equal(first.low, second.low)
    assert false_alarm_pct(10) == false_alarm_pct(10)
