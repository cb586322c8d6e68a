from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.plan.planning import Plan
from harness.training import forecast as timing
from harness.training.forecast import Forecast, Rehearsal, forecast
from harness.training.pipeline import make_cells
from tests.training_kit import CPU, Told, below, tiny_plan

pytestmark = pytest.mark.usefixtures("few_images")
TEACHER, BASE, FMSE = "teacher-s0", "p0.3-bn-base-s0", "p0.3-bn-fmse-s0"
SIZES: dict[str, Any] = {
    "profile__quick__teacher__epochs": 2,
    "profile__quick__teacher__image_sizes": [8, 16],
    "profile__quick__student__epochs": 2,
    "profile__quick__student__image_sizes": [8, 16],
}


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of networks this small need no second to be timed in a test."""
    monkeypatch.setattr(timing, "LEAST_S", 0.01)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return tiny_plan(tmp_path, ["bn"], ["base", "fmse"], **SIZES)


def counted(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: str) -> Forecast:
    """The forecast where what `only` names takes 1,000 seconds each time, and all else nothing to speak of."""
    for name in ("_step_s", "_batch_s", "_answers_s", "_test_s"):
        monkeypatch.setattr(Rehearsal, name, lambda *_, seconds=1000.0 if name == only else 0.0, **__: seconds)
    return forecast(plan, below(tmp_path), CPU, plan.cells)


def thousands(found: Forecast) -> dict[str, int]:
    return {name: round(seconds / 1000) for name, seconds in (found.cells | found.shared).items()}


def test_there_are_as_many_steps_as_training_takes(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = thousands(counted(plan, tmp_path, monkeypatch, "_step_s"))
    told = Told()
    assert make_cells(plan, below(tmp_path), CPU, told).complete
    # four steps an epoch
    assert found[TEACHER] == 2 * 4 and found[BASE] == 2 * 4 and found[FMSE] == 4 * 4
    epochs = Counter(name for name, _, _ in told.epochs)
    assert {name: found[name] for name in (TEACHER, BASE, FMSE)} == {
        name: 4 * epochs[name] for name in (TEACHER, BASE, FMSE)
    }
    assert found["sparse training before pruning, 2 networks"] == 2 * 4


def test_batches_and_the_teachers_answers_count_once_for_students_side_by_side(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = "batches and the teacher's answers to them"
    for only, teacher in (("_batch_s", 2 * 4), ("_answers_s", 0)):
        found = thousands(counted(plan, tmp_path, monkeypatch, only))
        assert (found[shared], found[TEACHER], found[FMSE]) == (4 * 4, teacher, 0)


def test_students_are_tested_as_pruned_calibrated_after_every_epoch_and_at_the_end(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = counted(plan, tmp_path, monkeypatch, "_test_s")
    # the 2,000 images that BatchNorm is estimated over are more than the 300 test images
    calibration = 2000 / 300
    assert [round(found.cells[name] / 1000 - calibration) for name in (BASE, FMSE)] == [2 + 2 + 1, 2 + 4 + 1]
    assert round(found.cells[TEACHER] / 1000) == 1


def test_real_steps_are_timed_and_nothing_is_left_behind(plan: Plan, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    said: list[str] = []
    found = forecast(plan, below(tmp_path), CPU, plan.cells, said.append)
    assert found.cells.keys() == {cell.id for cell in plan.cells}
    assert all(seconds > 0 for seconds in (found.cells | found.shared).values())
    assert found.total_s == pytest.approx(sum(found.cells.values()) + sum(found.shared.values()))
    # every loss at every size, once; sparse training has but one epoch
    assert len(said) == len(set(said)) == 2 + 1 + 2 + 2 * 2
    assert sorted(tmp_path.rglob("*")) == before


def test_of_students_alone_there_is_no_teacher(plan: Plan, tmp_path: Path) -> None:
    (student,) = plan.named([BASE])
    found = forecast(plan, below(tmp_path), CPU, [student])
    assert list(found.cells) == [BASE]


def test_of_nothing_there_is_nothing(plan: Plan, tmp_path: Path) -> None:
    assert forecast(plan, below(tmp_path), CPU, []).total_s == 0
