"""The scheduler of a matrix: what is missing becomes orders, and an executor has workers carry them out.

There is one scheduler for two executors: processes on this host's devices (harness.training.workers), and tasks on a
Ray cluster (harness.training.ray_tasks). An executor decides where an order runs, and hands on what its worker says.
Everything else is decided here: the teacher comes first, no more orders are under way than there is room for, what a
lost worker leaves undone is ordered again, and each cell ends on record, done or failed with a reason.

What is finished lies in the store, and nothing else counts. So whatever dies, the same command resumes.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.errors import HarnessError
from harness.plan.planning import Cell, Plan
from harness.store.chain import Chain
from harness.store.paths import Paths
from harness.store.records import Epoch, ExportRecord, Failure, TrainRecord, failed, identity, save
from harness.store.revision import revision
from harness.store.states import cell_state
from harness.training.allocation import shared_start
from harness.training.finishing import Reporter
from harness.training.pipeline import Summary
from harness.training.worker import Order

# A cell whose worker was lost is given to another one; after so many it has failed.
TRIES = 3
# How often, in seconds, it is checked whether the workers should stop.
LISTEN_EVERY_S = 0.25
# How soon, in seconds, a unit is looked at again that another run holds.
LOOK_AGAIN_S = 2.0


class LostWorkerError(Exception):
    """A worker went away without saying how its order ended: its process was killed, or its node died."""


class Job(Protocol):
    """An order that a worker carries out."""

    # where it is carried out, as people know the place
    place: str

    def reports(self) -> Iterator[dict[str, Any]]:
        """What the worker tells (harness.training.worker), to its end; LostWorkerError where it went away before."""

    def stop(self) -> None:
        """Ask the worker to stop after its next step."""

    def kill(self) -> None:
        """Leave no process running, whatever is lost."""


class Executor(Protocol):
    """Where orders are carried out; `about` says where that is."""

    @property
    def about(self) -> str: ...

    def store(self, paths: Paths, profile: str) -> AbstractContextManager[object]:
        """Hold the profile's folders for the length of a run."""

    def units(self, students: Sequence[Cell], plan: Plan, by_value: bool) -> list[list[Cell]]:
        """The students in units, in the order in which to begin them; one worker at a time is at work on a unit."""

    def room(self) -> int:
        """How many more orders can be started now."""

    def claim(self, unit: str) -> bool:
        """Hold a unit for this run; False where another run holds it, which may change."""

    def settle(self, unit: str) -> None:
        """All of a unit is on record."""

    def start(self, order: Order, unit: str) -> Job:
        """Have a worker carry out an order for a unit that this run holds, on a device and threads of its choice."""


@dataclass
class Unit:
    """Cells that one worker makes after the other; `parts` are the orders to come."""

    name: str
    parts: deque[list[Cell]]
    # of the first part, where that is a single cell
    losses: int = 0
    # the ids of cells that its workers have told of
    told: set[str] = field(default_factory=set)
    look_again_at: float = 0.0


def make_on(
    executor: Executor,
    plan: Plan,
    paths: Paths,
    reporter: Reporter,
    keep_going: Callable[[], bool] = lambda: True,
    cells: Sequence[Cell] | None = None,
    by_value: bool = False,
    together: int | None = None,
    redo: Collection[str] = (),
) -> Summary:
    """Make the plan's missing cells, or those among `cells`. Stops cleanly when `keep_going` turns False.

    At most `together` networks train side by side with one worker; None: as many as fit into its memory. With
    `by_value` the most valuable cells come first. Cells in `redo` are made again even if they are done. A HarnessError
    that one worker meets stops the others, and is raised.
    """
    with executor.store(paths, plan.profile):
        dispatcher = Dispatcher(executor, plan, paths, reporter, keep_going, by_value, together, frozenset(redo))
        wanted = plan.cells if cells is None else cells
        missing = dispatcher.missing([plan.teacher, *(cell for cell in wanted if not cell.is_teacher)])
        students = [cell for cell in missing if not cell.is_teacher]
        if len(students) < len(missing):
            first = dispatcher.run([[plan.teacher]])
            if first.failed or not first.complete:
                return first
        return dispatcher.run(executor.units(students, plan, by_value))


@dataclass
class Dispatcher:
    """One run over a plan's units. `made` and `failures` are of the whole run."""

    executor: Executor
    plan: Plan
    paths: Paths
    reporter: Reporter
    keep_going: Callable[[], bool]
    by_value: bool
    together: int | None
    redo: frozenset[str]
    made: dict[str, None] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cells = {cell.id: cell for cell in self.plan.cells}
        # when a cell's records were written that were there at the beginning
        self._before: dict[str, tuple[str, ...]] = {}
        self._said: queue.SimpleQueue[tuple[Job, dict[str, Any] | LostWorkerError | None]] = queue.SimpleQueue()
        self._under_way: dict[Job, Unit] = {}
        self._side_by_side = False
        self._error: str | None = None

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """Those that are to be made."""
        chain = Chain(self.plan, self.paths.results)
        found = []
        for cell in cells:
            if cell.id in self.redo or self._state(cell, chain) not in ("done", "changed"):
                self._before[cell.id] = _written(cell, chain)
                found.append(cell)
        return found

    def run(self, units: Sequence[Sequence[Cell]]) -> Summary:
        """Have these units made, whatever becomes of the workers. Returns when nothing is under way any more."""
        ready = deque(Unit(unit_name(cells), deque([list(cells)])) for cells in units)
        held: deque[Unit] = deque()
        stopping, self._side_by_side = False, False
        try:
            while self._under_way or (not stopping and (ready or held)):
                if not stopping and (self._error or not self.keep_going()):
                    stopping = True
                    for job in list(self._under_way):
                        job.stop()
                if not stopping:
                    while held and held[0].look_again_at <= time.monotonic():
                        ready.append(held.popleft())
                    self._start(ready, held)
                try:
                    job, said = self._said.get(timeout=LISTEN_EVERY_S)
                except queue.Empty:
                    continue
                if isinstance(said, dict):
                    self._hear(job, said)
                    continue
                unit = self._under_way.pop(job)
                if said is not None and not stopping:
                    self._lost(unit, str(said))
                if unit.parts:
                    ready.appendleft(unit)
                else:
                    self.executor.settle(unit.name)
        finally:
            # On an error or a second Ctrl-C nothing is left running.
            for job in self._under_way:
                job.kill()
        if self._error:
            raise HarnessError(self._error)
        return Summary(list(self.made), dict(self.failures), not (ready or held))

    def _start(self, ready: deque[Unit], held: deque[Unit]) -> None:
        """Start what there is room for; put aside what another run holds."""
        while ready and self.executor.room() > 0:
            unit = ready.popleft()
            self._drop_settled(unit)
            if not unit.parts:
                continue
            if not self.executor.claim(unit.name):
                unit.look_again_at = time.monotonic() + LOOK_AGAIN_S
                held.append(unit)
                continue
            # another run may have settled it before it was ours
            self._drop_settled(unit)
            if not unit.parts:
                self.executor.settle(unit.name)
                continue
            ids = tuple(cell.id for cell in unit.parts[0])
            again = tuple(sorted(self.redo.intersection(ids)))
            order = Order(self.plan.only(ids), self.paths, ids, self.together, self.by_value, again)
            job = self.executor.start(order, unit.name)
            self._under_way[job] = unit
            # It stays so until all have ended: the last of several would not look like itself without its place.
            self._side_by_side = self._side_by_side or len(self._under_way) > 1
            threading.Thread(target=self._listen, args=(job,), daemon=True).start()

    def _listen(self, job: Job) -> None:
        """In a thread of its own: hand on what a job says, and last None, or how its worker was lost."""
        try:
            for said in job.reports():
                self._said.put((job, said))
            self._said.put((job, None))
        except LostWorkerError as lost:
            self._said.put((job, lost))
        except Exception as error:  # whatever it is, the run waits for a word of this job
            self._said.put((job, LostWorkerError(f"nothing more was heard of the worker ({type(error).__name__})")))

    def _hear(self, job: Job, said: dict[str, Any]) -> None:
        if "stage" in said:
            self.reporter.stage(f"{job.place}: {said['stage']}" if self._side_by_side else said["stage"])
        elif "step" in said:
            # Only the first that is still busy reports steps: those of several at once would flicker.
            if job is next(iter(self._under_way)):
                self.reporter.step(*said["step"])
        elif "epoch" in said:
            learner, number, of, epoch = said["epoch"]
            self.reporter.epoch(learner, number, of, Epoch.model_validate(epoch))
        elif "cell" in said:
            self._under_way[job].told.add(said["cell"])
            self.reporter.cell(self._cells[said["cell"]], TrainRecord.model_validate(said["record"]))
        else:
            self._ended(self._under_way[job], said)

    def _ended(self, unit: Unit, said: dict[str, Any]) -> None:
        """What a worker said of its order's end. One that has stopped, whoever asked it to, leaves its part to do."""
        if "error" in said:
            self._error = said["error"]
        elif "broke" in said:
            for cell in unit.parts.popleft():
                self._fail(cell, Failure(kind="error", message=said["broke"]))
        else:
            self.made.update(dict.fromkeys(said["made"]))
            self.failures.update(said["failed"])
            if said["complete"]:
                unit.parts.popleft()
                unit.losses = 0

    def _lost(self, unit: Unit, why: str) -> None:
        """Order again what a lost worker has left undone: in two halves, so that a cell that kills its worker ends up
        alone; a single cell up to TRIES times."""
        self._drop_settled(unit)
        if not unit.parts:
            return
        cells = unit.parts.popleft()
        if len(cells) > 1:
            half = len(cells) // 2
            unit.parts.extendleft([cells[half:], cells[:half]])
            return
        unit.losses += 1
        if unit.losses < TRIES:
            unit.parts.appendleft(cells)
        else:
            unit.losses = 0
            self._fail(cells[0], Failure(kind="killed", message=f"{why}, {TRIES} times"))

    def _drop_settled(self, unit: Unit) -> None:
        """Leave out the cells of a unit's first part that are on record since this run began, made or failed.

        Those that failed in another run's hands are failures of this one as well.
        """
        while unit.parts:
            left = []
            for cell in unit.parts[0]:
                chain = Chain(self.plan, self.paths.results)
                state = cell_state(self.paths, self.plan, cell, chain)
                untouched = _written(cell, chain) == self._before[cell.id]
                if untouched or state.training not in ("done", "changed", "failed"):
                    left.append(cell)
                elif state.training == "failed":
                    self.failures[cell.id] = state.reason or ""
                elif cell.id in unit.told:
                    self.made[cell.id] = None
            if left:
                unit.parts[0] = left
                return
            unit.parts.popleft()
            unit.losses = 0

    def _fail(self, cell: Cell, failure: Failure) -> None:
        """Put on record that a cell has failed in a way that its worker could not."""
        self.failures[cell.id] = failure.message
        about = {"seconds": 0.0, "environment": {"harness_revision": revision()}}
        profile = self.plan.profile
        if cell.id not in self.redo and Chain(self.plan, self.paths.results).train(cell).standing:
            export = identity(profile, cell.id, cell.title, cell.spec) | {"code": {}}
            save(self.paths.results, failed(ExportRecord, failure, **export, **about))
            return
        record = failed(TrainRecord, failure, **identity(profile, cell.model_id, cell.title, cell.trained), **about)
        save(self.paths.results, record)
        self.reporter.cell(cell, record)

    def _state(self, cell: Cell, chain: Chain) -> str:
        return cell_state(self.paths, self.plan, cell, chain).training


def unit_name(cells: Sequence[Cell]) -> str:
    """A unit's name: the same in every run that makes some of the cells that start from the same network."""
    return (cells[0].trained if cells[0].is_teacher else shared_start(cells[0])).key.partition("-")[2]


def _written(cell: Cell, chain: Chain) -> tuple[str, ...]:
    """When the cell's records were written; a record that there is not yet has no moment."""
    links = (chain.train(cell), chain.export(cell))
    return tuple(link.record.finished_at if link.record else "" for link in links)
