import pytest

from benchmarks.container_costs import ratio_of_medians


def test_what_runs_equally_fast_has_no_overhead() -> None:
    runs = [[1.0, 1.1, 1.2], [0.9, 1.0, 1.1], [1.0, 1.0, 1.3]]
    assert ratio_of_medians(runs, runs) == (1.0, 1.0, 1.0)


def test_a_tenth_slower_is_ten_percent_and_inside_its_interval() -> None:
    below = [[1.00, 1.02], [0.98, 1.01], [1.03, 0.99], [1.00, 1.01]]
    above = [[1.1 * value for value in run] for run in reversed(below)]
    value, low, high = ratio_of_medians(above, below)
    assert value == pytest.approx(1.1)
    assert low < value < high and low > 1.05 and high < 1.15
