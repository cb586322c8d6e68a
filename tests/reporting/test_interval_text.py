import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.reporting.interval_text import interval_text
from harness.store.records import Interval


@pytest.mark.parametrize(
    ("low", "value", "high", "text"),
    [
        (0.61, 0.62, 0.63, "0.62 ± 0.01"),
        (0.60, 0.62, 0.63, "0.62 [0.60, 0.63]"),
        # halves that differ by less than the last digit are the same, and the longer one is printed
        (0.604, 0.62, 0.632, "0.62 ± 0.02"),
        # a half that would be printed as zero says nothing
        (0.619, 0.62, 0.621, "0.62 [0.62, 0.62]"),
        (0.97, 0.99, 1.02, "≈ 0.99 [0.97, 1.02]"),
        (-0.2, -0.001, 0.2, "≈ 0.00 ± 0.20"),
    ],
)
def test_an_interval_is_shown_as_short_as_it_can_be(low: float, value: float, high: float, text: str) -> None:
    same = 0 if low < 0 else 1
    assert interval_text(Interval(value=value, low=low, high=high), 2, same) == text


def test_one_without_bounds_says_why() -> None:
    assert interval_text(Interval(value=0.5), 2, same=1) == "≈ 0.50 [too few processes]"


@given(st.floats(-9, 9), st.floats(0, 3), st.floats(0, 3))
def test_what_is_printed_is_the_interval_to_its_last_digit(value: float, below: float, above: float) -> None:
    interval = Interval(value=value, low=value - below, high=value + above)
    text = interval_text(interval, 1, same=0, sign="+").removeprefix("≈ ")
    if "±" in text:
        middle, half = map(float, text.split(" ± "))
        low, high = middle - half, middle + half
    else:
        low, high = map(float, text.split("[")[1].rstrip("]").split(", "))
    assert low == pytest.approx(value - below, abs=0.2001) and high == pytest.approx(value + above, abs=0.2001)
