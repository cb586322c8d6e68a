"""The executor of a Ray cluster: each order is a task, which Ray puts on a node that has room for it.

Ray schedules, and notices what dies. Nothing is kept in Ray: a task's results are files in the store, folders that
every node sees at the same path, and its reports are forgotten once they have been read. So a dead head node costs only
what was in flight, and the driver's memory does not grow with the number of cells.

Ray itself retries nothing, because it retries without end what memory ran out for; what is tried again, and how often,
is for the dispatcher to say. Where several drivers share a store, claims decide who makes what (harness.store.claims),
whichever clusters the drivers use.
"""

import logging
import os
import platform
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

# Nothing is reported to anybody unless the user asks for it.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

from harness.errors import HarnessError
from harness.plan.planning import Cell, Plan
from harness.store.claims import CHECK_EVERY_S, Claim, Run
from harness.store.lock import alone
from harness.store.paths import Paths
from harness.training.allocation import cost, units
from harness.training.dispatch import LostWorkerError
from harness.training.worker import Order, Teller, carry_out, python_path

# Orders that wait at the cluster beside those that it has room for, so that no node is idle, and an autoscaler sees
# that there is more to do.
SPARE = 4
# For how long, in seconds, the cluster's nodes are taken to be those that were counted last.
COUNT_EVERY_S = 2.0
# A worker says how many steps it has taken at most this often, in seconds.
STEP_EVERY_S = 1.0
# After so many orders a worker process is replaced by a fresh one, which gives back what libraries have cached; after
# each order on a GPU, whose memory is the next one's.
ORDERS_PER_PROCESS = {"cpu": 16, "cuda": 1}
# What a worker does: harness.training.worker.carry_out
Work = Callable[[Order, Teller, Callable[[], bool]], None]
# What a worker tells that was stopped before it began.
STOPPED = {"made": [], "failed": {}, "complete": False}


def make(work: Work, order: Order, claim: Claim) -> Iterator[dict[str, Any]]:
    """Do an order's work on this node; yields what the worker tells, and first where it is.

    Stops after its next step when the claim does not stand any more.
    """
    yield {"place": platform.node()}
    teacher = order.paths.weights(order.plan.profile, order.plan.teacher)
    if not claim.in_sight() or not (order.for_teacher or teacher.is_file()):
        yield {
            "error": f"{platform.node()} does not see the files of this run in {claim.folder.parent}; "
            f"results and artifacts have to be folders that all nodes share, at the same path on each"
        }
        return
    if not claim.stands():
        # Another run has taken over while this waited for a node.
        yield STOPPED
        return
    said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    stop = threading.Event()

    def run() -> None:
        try:
            work(order, Teller(said.put), lambda: not stop.is_set())
        finally:
            said.put(None)

    worker = threading.Thread(target=run)
    worker.start()
    try:
        yield from _told(said, claim, stop)
    finally:
        # Ray has interrupted this thread, or the other has ended.
        stop.set()
        worker.join()


def _told(
    said: "queue.SimpleQueue[dict[str, Any] | None]", claim: Claim, stop: threading.Event
) -> Iterator[dict[str, Any]]:
    checked = stepped = time.monotonic()
    while True:
        if time.monotonic() - checked > CHECK_EVERY_S:
            checked = time.monotonic()
            if not claim.stands():
                stop.set()
        try:
            told = said.get(timeout=CHECK_EVERY_S)
        except queue.Empty:
            continue
        if told is None:
            return
        if "step" in told:
            if time.monotonic() - stepped < STEP_EVERY_S:
                continue
            stepped = time.monotonic()
        yield told


# by whether they have a GPU
TASKS = {
    cuda: ray.remote(max_retries=0, max_calls=ORDERS_PER_PROCESS["cuda" if cuda else "cpu"])(make)
    for cuda in (False, True)
}


class Task:
    """An order at the cluster."""

    def __init__(self, reports: ray.ObjectRefGenerator, run: Run, under_way: "set[Task]") -> None:
        self.place = "a node"
        self._begun = False
        self._reports = reports
        self._run = run
        self._under_way = under_way
        under_way.add(self)

    def reports(self) -> Iterator[dict[str, Any]]:
        """What the worker tells."""
        try:
            for report in self._reports:
                said = ray.get(report)
                if "place" in said:
                    self.place, self._begun = said["place"], True
                else:
                    yield said
        except TaskCancelledError:
            yield STOPPED
        except RayTaskError as error:
            reason = str(error).strip().splitlines()[-1]
            yield {"error": f"a node cannot carry out orders: {reason}; install the same harness on every node"}
        except RayError as error:
            # Its text names hosts, and what was lost goes on record.
            raise LostWorkerError(f"the worker was lost ({type(error).__name__})") from error
        finally:
            self._under_way.discard(self)

    def stop(self) -> None:
        """Say in the store that the run is stopping, which a worker sees; drop what has not begun."""
        self._run.stop()
        if not self._begun:
            ray.cancel(self._reports)

    def kill(self) -> None:
        """End its worker's process."""
        ray.cancel(self._reports, force=True)


class RayCluster:
    """The cluster that RAY_ADDRESS names, or that this host belongs to; where there is neither, one of this host alone.

    An order gets a GPU with its share of the node's cores; or, without GPUs or where `device` is "cpu", a core for each
    of its networks. The teacher gets as many cores as the largest node has: their number decides its bits.
    """

    def __init__(self, device: str = "", work: Work = carry_out) -> None:
        if device not in ("", "cpu", "cuda"):
            raise HarnessError(f"--devices {device}: names devices of one host; with --executor ray: cpu or cuda")
        self._joined = not ray.is_initialized()
        if self._joined:
            try:
                ray.init(
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=False,
                    runtime_env={"env_vars": {"PYTHONPATH": python_path()}},
                )
            except Exception as error:  # Ray raises bare ones as well
                reason = str(error).strip().splitlines()[0]
                raise HarnessError(
                    f"the Ray cluster cannot be reached: {reason}; start it, or correct RAY_ADDRESS"
                ) from error
        self._work = work
        self._nodes: list[dict[str, float]] = []
        self._counted = 0.0
        self._under_way: set[Task] = set()
        self._claims: dict[str, Claim] = {}
        self.cuda = device == "cuda" or (not device and self._total("GPU") > 0)

    @property
    def about(self) -> str:
        """The cluster in a few words."""
        counts = f"nodes: {len(self._alive())}, CPUs: {self._total('CPU'):g}, GPUs: {self._total('GPU'):g}"
        return f"a Ray cluster ({counts})"

    @contextmanager
    def store(self, paths: Paths, profile: str) -> Iterator[None]:
        """Share the profile's folders with other drivers, and be one of those that claim units."""
        with alone(paths, profile, sharing=True), Run(paths.artifacts / profile / "claims") as self._run:
            try:
                yield
            finally:
                if self._joined:
                    ray.shutdown()

    def units(self, students: Sequence[Cell], plan: Plan, by_value: bool) -> list[list[Cell]]:
        """Students that start from the same network; the most valuable first, or those that take longest."""
        found = units(students)
        if by_value:
            places = {cell.id: place for place, cell in enumerate(cell for group in plan.groups for cell in group)}
            return sorted(found, key=lambda unit: min(places[cell.id] for cell in unit))
        return sorted(found, key=lambda unit: -sum(map(cost, unit)))

    def room(self) -> int:
        """What the cluster has room for as it is now, and a few more."""
        return int(self._total("GPU" if self.cuda else "CPU")) + SPARE - len(self._under_way)

    def claim(self, unit: str) -> bool:
        """Hold the unit, under a number of its own for every attempt."""
        claim = self._run.claim(unit)
        if claim:
            self._claims[unit] = claim
        return claim is not None

    def settle(self, unit: str) -> None:
        """Give the unit up."""
        self._run.settle(unit)
        self._claims.pop(unit, None)

    def start(self, order: Order, unit: str) -> Task:
        """A task with its resources."""
        largest = max((node.get("CPU", 0) for node in self._alive()), default=1)
        if self.cuda:
            cores = max((node.get("CPU", 0) // node["GPU"] for node in self._alive() if node.get("GPU")), default=1)
        else:
            # students of one seed train side by side
            (_, networks), *_ = Counter(cell.seed for cell in order.plan.cells if cell.id in order.cells).most_common()
            cores = largest if order.for_teacher else min(largest, networks, order.together or networks)
        threads = max(1, int(cores))
        options: dict[str, Any] = {"num_cpus": threads, "name": f"make {order.cells[0]}"}
        if self.cuda:
            options["num_gpus"] = 1
        order = replace(order, cuda=self.cuda, threads=threads)
        reports = TASKS[self.cuda].options(**options).remote(self._work, order, self._claims[unit])
        # what a task that yields gives, which Ray's own types do not say
        return Task(cast(ray.ObjectRefGenerator, reports), self._run, self._under_way)

    def _alive(self) -> list[dict[str, float]]:
        if time.monotonic() - self._counted > COUNT_EVERY_S:
            self._nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._counted = time.monotonic()
        return self._nodes

    def _total(self, what: str) -> float:
        return sum(node.get(what, 0) for node in self._alive())
