import pytest

from harness.reporting.published import published_means, published_rows


def test_the_studys_tables_are_whole() -> None:
    rows = published_rows()
    # a teacher, nine students at 0.3, six at 0.4
    assert len(rows) == 16
    best = rows["P(0.3_BN)_KD(3)_SEED(0)"]
    assert (best.latency_ms, best.accuracy_pct, best.params_m) == (9.8, 75.39, 16)


def test_ratios_are_to_the_studys_teacher() -> None:
    assert published_rows()["ResNet50"].ratio_to_teacher == 1
    assert published_rows()["P(0.4_BN)_KD(0)_SEED(0)"].ratio_to_teacher == pytest.approx(4.77 / 12.28)


def test_the_charts_means() -> None:
    means = {kd: mean for (_, _, kd), mean in published_means().items()}
    assert means == {"Base": 73.36, "FMSE+Base": 74.99, "GRAM+Base": 75.30}
