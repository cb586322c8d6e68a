"""What the scheduler does with workers that die or stop, and with other runs: its workers here are scripted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.plan.planning import Cell, Plan
from harness.store.paths import Paths
from harness.store.records import ExportRecord, Failure, TrainRecord, failed, identity, load, now, record_path, save
from harness.store.states import cell_state
from harness.training import dispatch
from harness.training.dispatch import TRIES, LostWorkerError, make_on
from harness.training.pipeline import Summary
from harness.training.worker import Order
from tests.training_kit import Told, below, tiny_plan

# What becomes of an order: the reports, or how the worker is lost.
Script = Callable[[Order], Iterator[dict[str, Any]]]
DONE = {"failed": {}, "complete": True}


class Scripted:
    """An executor with room for so many orders, which it notes, whose workers do what a script says."""

    about = "scripted workers"

    def __init__(self, script: Script, room: int = 1) -> None:
        self.script, self.left = script, room
        self.orders: list[tuple[str, ...]] = []
        self.held: Callable[[str], bool] = lambda unit: False
        self.settled: list[str] = []

    @contextmanager
    def store(self, paths: Paths, profile: str) -> Iterator[None]:
        yield

    def units(self, students: Sequence[Cell], plan: Plan, by_value: bool) -> list[list[Cell]]:
        return [list(students)] if students else []

    def room(self) -> int:
        return self.left

    def claim(self, unit: str) -> bool:
        return not self.held(unit)

    def settle(self, unit: str) -> None:
        self.settled.append(unit)

    def start(self, order: Order, unit: str) -> "Job":
        self.left -= 1
        self.orders.append(order.cells)
        return Job(self, order)


class Job:
    place = "here"

    def __init__(self, executor: Scripted, order: Order) -> None:
        self.executor, self.order, self.stopped = executor, order, False

    def reports(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self.executor.script(self.order)
        finally:
            self.executor.left += 1

    def stop(self) -> None:
        self.stopped = True

    def kill(self) -> None:
        pass


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A teacher and eight students."""
    methods = ["base", "fmse", "gram", "scratch"]
    return tiny_plan(tmp_path_factory.mktemp("dispatch"), ["l1", "gn"], methods)


def finish(plan: Plan, paths: Paths, cell: Cell) -> None:
    """Leave the records and files of a cell that is done."""
    for path in (paths.weights(plan.profile, cell), paths.model_file(plan.profile, cell)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    common: dict[str, Any] = {"status": "done", "finished_at": now(), "seconds": 0.0, "environment": {}}
    save(paths.results, TrainRecord(**identity(plan.profile, cell.model_id, cell.title, cell.trained), **common))
    save(paths.results, ExportRecord(**identity(plan.profile, cell.id, cell.title, cell.spec), **common))


def made_by(plan: Plan, paths: Paths, deadly: str = "") -> Script:
    """A worker that makes its cells one after the other, and dies at the deadly one."""

    def script(order: Order) -> Iterator[dict[str, Any]]:
        for cell in plan.cells:
            if cell.id in order.cells:
                if cell.id == deadly:
                    raise LostWorkerError("the worker was lost")
                finish(plan, paths, cell)
                path = record_path(paths.results, plan.profile, "train", cell.model_id)
                yield {"cell": cell.id, "record": load(path, TrainRecord).model_dump(mode="json")}
        yield {"made": list(order.cells), **DONE}

    return script


def test_the_teacher_is_an_order_of_its_own_and_the_first(plan: Plan, tmp_path: Path) -> None:
    executor = Scripted(made_by(plan, below(tmp_path)), room=4)
    summary = make_on(executor, plan, below(tmp_path), Told())
    ids = [cell.id for cell in plan.cells]
    assert executor.orders == [tuple(ids[:1]), tuple(ids[1:])]
    assert summary == Summary(ids, {}, True) and len(executor.settled) == 2


@pytest.mark.parametrize("place", [1, 4, 8])
def test_a_cell_that_kills_its_worker_takes_no_other_along(plan: Plan, tmp_path: Path, place: int) -> None:
    paths, deadly = below(tmp_path), plan.cells[place]
    executor, told = Scripted(made_by(plan, paths, deadly.id)), Told()
    summary = make_on(executor, plan, paths, told)
    others = [cell.id for cell in plan.cells if cell != deadly]
    assert sorted(summary.made) == sorted(others) and summary.complete
    assert summary.failed == {deadly.id: f"the worker was lost, {TRIES} times"}
    assert sorted(told.cells) == sorted(cell.id for cell in plan.cells), "each is told of once"
    assert [order for order in executor.orders if deadly.id in order][1 - TRIES :] == [(deadly.id,)] * (TRIES - 1)
    state = cell_state(paths, plan, deadly)
    assert (state.training, state.reason) == ("failed", summary.failed[deadly.id])


def test_one_that_was_lost_in_its_export_has_failed_there_and_stays_trained(plan: Plan, tmp_path: Path) -> None:
    paths, cell = below(tmp_path), plan.cells[1]

    def script(order: Order) -> Iterator[dict[str, Any]]:
        finish(plan, paths, plan.teacher)
        if cell.id in order.cells:
            finish(plan, paths, cell)
            record_path(paths.results, plan.profile, "export", cell.id).unlink()
            raise LostWorkerError("the worker was lost")
        yield {"made": list(order.cells), **DONE}

    summary = make_on(Scripted(script), plan, paths, Told(), cells=[cell])
    record = load(record_path(paths.results, plan.profile, "export", cell.id), ExportRecord)
    assert record.failure == Failure(kind="killed", message=summary.failed[cell.id])
    assert load(record_path(paths.results, plan.profile, "train", cell.id), TrainRecord).status == "done"


def test_a_defect_fails_the_cells_of_its_order_at_once(plan: Plan, tmp_path: Path) -> None:
    executor = Scripted(lambda order: iter([{"broke": "RuntimeError: a defect"}]))
    summary = make_on(executor, plan, below(tmp_path), Told())
    assert summary == Summary([], {plan.teacher.id: "RuntimeError: a defect"}, True) and len(executor.orders) == 1


def test_what_the_user_can_put_right_ends_the_run(plan: Plan, tmp_path: Path) -> None:
    executor = Scripted(lambda order: iter([{"error": "no data there; give some"}]))
    with pytest.raises(HarnessError, match="no data there; give some"):
        make_on(executor, plan, below(tmp_path), Told())
    assert len(executor.orders) == 1


def test_what_another_run_has_in_hand_is_waited_for_and_not_made_again(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run makes the teacher, then one student; another of its students fails."""
    monkeypatch.setattr(dispatch, "LOOK_AGAIN_S", 0.01)
    paths, looked = below(tmp_path), []
    _, made, lost, *rest = plan.cells
    executor = Scripted(made_by(plan, paths))

    def held(unit: str) -> bool:
        looked.append(unit)
        if len(looked) == 2:
            finish(plan, paths, plan.teacher)
        if len(looked) == 5:
            finish(plan, paths, made)
            about = identity(plan.profile, lost.model_id, lost.title, lost.trained)
            failure = Failure(kind="diverged", message="elsewhere")
            save(paths.results, failed(TrainRecord, failure, seconds=0.0, environment={}, **about))
        return len(looked) < 6

    executor.held = held
    summary = make_on(executor, plan, paths, Told())
    assert executor.orders == [tuple(cell.id for cell in rest)]
    assert summary == Summary([cell.id for cell in rest], {lost.id: "elsewhere"}, True)


def test_what_has_failed_before_is_tried_again(plan: Plan, tmp_path: Path) -> None:
    paths = below(tmp_path)
    about = identity(plan.profile, plan.teacher.model_id, plan.teacher.title, plan.teacher.trained)
    failure = Failure(kind="diverged", message="yesterday")
    save(paths.results, failed(TrainRecord, failure, seconds=0.0, environment={}, **about))
    summary = make_on(Scripted(made_by(plan, paths)), plan, paths, Told(), cells=[plan.teacher])
    assert summary.made == [plan.teacher.id] and not summary.failed


def test_a_worker_that_stopped_unasked_is_followed_by_another(plan: Plan, tmp_path: Path) -> None:
    """Another run had taken its unit over, and has given it up since."""
    paths, stops = below(tmp_path), iter([True, False, False])

    def script(order: Order) -> Iterator[dict[str, Any]]:
        if next(stops):
            yield {"made": [], "failed": {}, "complete": False}
        else:
            yield from made_by(plan, paths)(order)

    executor = Scripted(script)
    assert make_on(executor, plan, paths, Told()).complete
    assert [len(order) for order in executor.orders] == [1, 1, len(plan.cells) - 1]


def test_when_a_run_is_to_stop_nothing_more_is_started(plan: Plan, tmp_path: Path) -> None:
    paths, told = below(tmp_path), Told()
    executor = Scripted(made_by(plan, paths))
    summary = make_on(executor, plan, paths, told, lambda: not told.cells)
    assert not summary.complete and executor.orders == [(plan.teacher.id,)]


def test_an_order_carries_no_more_of_the_plan_than_its_worker_needs(plan: Plan) -> None:
    few = plan.only([plan.cells[3].id])
    assert few.cells == (plan.teacher, plan.cells[3]) and few.groups == ((plan.cells[3],),)
