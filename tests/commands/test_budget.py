import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.commands.budget import Budget, seconds
from harness.errors import HarnessError


@given(st.integers(0, 99), st.integers(0, 59), st.integers(1, 59))
def test_hours_minutes_and_seconds_add_up(hours: int, minutes: int, rest: int) -> None:
    assert seconds(f"{hours}h{minutes}m{rest}s") == 3600 * hours + 60 * minutes + rest


@pytest.mark.parametrize("text", ["9", "m9", "9 m", "-9m", "1m1h", "9min", "1.5h"])
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(HarnessError, match="90s, 9m or 1h30m"):
        seconds(text)


def test_it_ends_before_the_time_is_up_and_leaves_a_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("harness.commands.budget.time.monotonic", lambda: clock[0])
    box = Budget("10m")
    clock[0] += 600 - 31
    assert box.lasts()
    clock[0] += 2
    assert not box.lasts()


def test_no_text_is_no_limit() -> None:
    assert Budget("").lasts()
