from pathlib import Path
from typing import Any

import pytest

from harness.commands.remaining import Network, Remaining, networks_ahead
from harness.training.pipeline import make_cells
from tests.training_kit import CPU, Told, below, tiny_plan


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


AHEAD = {
    "teacher-s0": Network("teacher", (1.0, 4.0)),
    "sparse-x": Network("sparse", (4.0,)),
    "a": Network("student", (4.0, 4.0)),
    "b": Network("student", (4.0, 4.0)),
}
WHOLE = 5 + 4 + 16


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_ahead_is_all_done() -> None:
    assert Remaining({}).share == 1.0 and Remaining(AHEAD).share == 0.0


def test_epochs_count_by_the_area_of_their_images(clock: Clock) -> None:
    found = Remaining(AHEAD, clock)
    found.epoch("teacher-s0", 1, 2)
    assert found.share == pytest.approx(1 / WHOLE)
    found.epoch("teacher-s0", 2, 2)
    assert found.share == pytest.approx(5 / WHOLE)


def test_steps_count_for_every_network_that_takes_them(clock: Clock) -> None:
    found = Remaining(AHEAD, clock)
    found.epoch("teacher-s0", 2, 2)
    found.epoch("sparse-x", 1, 1)
    found.step(0, 5, 10, 2)
    assert found.share == pytest.approx((5 + 4 + 2 * 0.5 * 4) / WHOLE)


def test_the_time_left_is_unknown_before_anything_was_done_and_nothing_at_the_end(clock: Clock) -> None:
    found = Remaining(AHEAD, clock)
    assert found.left_s is None
    found.step(0, 1, 10, 1)
    assert found.left_s is None
    clock.s = 60.0
    for name, one in AHEAD.items():
        found.epoch(name, len(one.epochs), len(one.epochs))
    assert found.left_s == 0.0 and found.share == 1.0


def test_each_kind_of_network_has_a_pace_of_its_own(clock: Clock) -> None:
    """The teacher takes 10 s for a unit of work; students, once they have been seen, take 1 s."""
    found = Remaining(AHEAD, clock)
    found.step(0, 0, 10, 1)
    clock.s = 50.0
    found.epoch("teacher-s0", 2, 2)
    assert found.left_s == pytest.approx(10.0 * (WHOLE - 5))
    clock.s = 54.0
    found.epoch("sparse-x", 1, 1)
    for name in ("a", "b"):
        clock.s += 4.0
        found.epoch(name, 1, 2)
    assert found.left_s == pytest.approx(8.0)


def test_a_network_that_is_resumed_counts_what_it_had_done_and_not_its_time(clock: Clock) -> None:
    found = Remaining({"a": Network("student", (4.0,) * 10)}, clock)
    found.epoch("a", 9, 10)
    assert found.share == pytest.approx(0.9) and found.left_s is None


def test_a_method_with_more_stages_than_expected_is_taken_at_its_word(clock: Clock) -> None:
    found = Remaining({"a": Network("student", (4.0, 9.0))}, clock)
    found.epoch("a", 1, 4)
    assert found.share == pytest.approx(4 / (4 + 9 + 4 + 9))


def test_a_network_that_was_not_expected_changes_nothing(clock: Clock) -> None:
    found = Remaining(AHEAD, clock)
    found.epoch("another", 1, 1)
    assert found.share == 0.0


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize("protocol", ["study", "controlled"])
def test_training_trains_what_was_expected(tmp_path: Path, protocol: str) -> None:
    sizes: dict[str, Any] = {
        "profile__quick__teacher__image_sizes": [8, 16],
        "profile__quick__teacher__epochs": 2,
        "experiment__0__protocol": protocol,
    }
    plan, told = tiny_plan(tmp_path, ["bn"], ["base", "fmse"], **sizes), Told()
    ahead = networks_ahead(plan.cells)
    assert next(iter(ahead.values())).kind == "teacher"
    assert ahead[plan.teacher.id].epochs == (64.0, 256.0)
    assert make_cells(plan, below(tmp_path), CPU, told).complete
    assert {name: of for name, _, of in told.epochs} == {name: len(one.epochs) for name, one in ahead.items()}
