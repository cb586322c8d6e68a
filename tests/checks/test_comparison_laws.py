from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from harness.checks.comparison import LEAST_PROCESSES, compare
from harness.store.records import LatencyRecord, Process, save
from tests.checks.planted import CELL, HEADLINE, listed
from tests.synthetic import change, plan_for, processes, records_for

PLAN = plan_for("lite", experiments=["prune-0.3"])
observations = st.lists(st.floats(0.1, 1e3), min_size=LEAST_PROCESSES, max_size=10)


def observed(values: list[float]) -> list[Process]:
    model = processes(PLAN, 1.0)[0]
    return [
        model.model_copy(update={"block": block, "low_ms": value, "median_ms": value, "p90_ms": value})
        for block, value in enumerate(values)
    ]


def write(folder: Path, values: list[float]) -> Path:
    """Records of the teacher and one student under one condition; the student's processes gave these."""
    for cell in (PLAN.teacher, next(cell for cell in PLAN.cells if cell.id == CELL)):
        for record in records_for(PLAN, cell):
            if not isinstance(record, LatencyRecord) or record.condition == HEADLINE:
                save(folder, record)
    change(folder, PLAN, CELL, LatencyRecord, processes=observed(values))
    return folder / PLAN.profile


@pytest.fixture
def made(tmp_path: Path) -> Callable[[list[float], str], Path]:
    def make(values: list[float], name: str = "a") -> Path:
        return write(tmp_path / name, values)

    return make


few = hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(values=observations)
def test_a_folder_compared_with_itself_shows_no_change(made: Callable[..., Path], values: list[float]) -> None:
    folder = made(values)
    comparison = compare(folder, folder)
    assert comparison.significant == ()
    for one in comparison.changes:
        assert one.before == one.after
        assert one.by.covers(one.unchanged)
        assert one.by.value == one.unchanged


@few
@given(first=observations, second=observations)
def test_comparing_b_with_a_inverts_comparing_a_with_b(
    made: Callable[..., Path], first: list[float], second: list[float]
) -> None:
    one, two = made(first, "a"), made(second, "b")
    there = {(change.cell, change.what): change for change in compare(one, two).changes}
    back = {(change.cell, change.what): change for change in compare(two, one).changes}
    assert there.keys() == back.keys()
    for name, found in there.items():
        assert (found.before, found.after) == (back[name].after, back[name].before)
        if found.what == "accuracy":
            assert found.by.value == -back[name].by.value
        else:
            assert found.by.value * back[name].by.value == pytest.approx(1)


@few
@given(values=observations, factor=st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_a_model_that_is_slower_throughout_is_listed(
    made: Callable[..., Path], values: list[float], factor: float
) -> None:
    # Within a factor of 1.1 from the fastest to the slowest process, which the change is well above.
    close = [1 + 0.1 * value / max(values) for value in values]
    found = listed(made(close, "a"), made([factor * value for value in close], "b"))
    assert found == {(f"{HEADLINE}/{CELL}", "latency"), (f"{HEADLINE}/{CELL}", "latency / teacher's")}


@pytest.mark.parametrize("count", [LEAST_PROCESSES, 15])
def test_two_runs_of_equal_models_are_rarely_called_different(made: Callable[..., Path], count: int) -> None:
    """Drawn from one distribution, with bursts: the whole list is to be empty nineteen times in twenty."""
    random = np.random.default_rng(3)

    def run() -> list[float]:
        return list(1 + 0.01 * random.standard_normal(count) + 0.5 * (random.random(count) < 0.05))

    wrong = sum(bool(listed(made(run(), "a"), made(run(), "b"))) for _ in range(30))
    assert wrong <= 2
