"""Trains a matrix on several devices of one host: one worker process per device, each with a share of the students.

The process that starts the workers holds the profile's lock and every worker inherits it, so it is released when the
last one has ended. The first device makes the teacher before anything else. Workers write the same records as a single
process would, so any later call finds what they made, on whatever devices it runs.
"""

import json
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch

from harness.errors import HarnessError
from harness.plan.planning import Cell, Plan
from harness.store.chain import Chain
from harness.store.lock import alone
from harness.store.paths import Paths
from harness.store.records import Epoch, TrainRecord
from harness.store.states import cell_state
from harness.training.allocation import spread
from harness.training.finishing import Reporter
from harness.training.pipeline import Summary
from harness.training.worker import Order

ROOT = Path(__file__).parents[2]
# How often, in seconds, it is checked whether the workers should stop.
LISTEN_EVERY_S = 0.25


class Worker:
    """A worker process, and what it has reported."""

    def __init__(self, name: str, order: Order, environment: dict[str, str], lock: int) -> None:
        self.name, self.cells = name, order.cells
        self.said: dict[str, Any] | None = None
        # the cells that it has reported as done
        self.made: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.training.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            pass_fds=[lock],
        )
        assert self.process.stdin
        # If it died at once, `summary` reports its exit code.
        with suppress(BrokenPipeError):
            pickle.dump(order, self.process.stdin)
            self.process.stdin.flush()

    def stop(self) -> None:
        """Ask the worker to stop after its next step."""
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def summary(self) -> Summary:
        """What the worker did. If it ended without a report, its unfinished cells have failed.

        Raises the HarnessError that stopped it, if one did.
        """
        code = self.process.wait()
        if self.said and "error" in self.said:
            raise HarnessError(self.said["error"])
        if self.said:
            return Summary(self.said["made"], self.said["failed"], self.said["complete"])
        reason = f"the worker on {self.name} ended with exit code {code}; the same command resumes where it stopped"
        unfinished = [cell for cell in self.cells if cell not in self.made]
        return Summary(self.made, dict.fromkeys(unfinished, reason), complete=True)


def make_on(
    devices: Sequence[str],
    plan: Plan,
    paths: Paths,
    reporter: Reporter,
    keep_going: Callable[[], bool],
    cells: Sequence[Cell] | None = None,
    by_value: bool = False,
    together: int | None = None,
    redo: Collection[str] = (),
) -> Summary:
    """Make the plan's missing cells, or those among `cells`, on the given devices: "cuda:0", "cuda:1", or "cpu".

    Naming "cpu" n times starts n workers that share its cores and memory. At most `together` networks train side by
    side on a device; None: as many as fit into its memory. With `by_value` each device makes the most valuable cells of
    its share first. Cells in `redo` are made again even if they are done.
    """
    chain = Chain(plan, paths.results)

    def missing(cell: Cell) -> bool:
        return cell.id in redo or cell_state(paths, plan, cell, chain).training not in ("done", "changed")

    def start(device: str, cells: Sequence[Cell], threads: int, lock: int) -> Worker:
        ids = tuple(cell.id for cell in cells)
        share = 1 / devices.count(device)
        # Only its own cells: a worker for students must not make the teacher once more.
        again = tuple(sorted(set(redo) & set(ids)))
        order = Order(plan, paths, ids, device != "cpu", threads, together, by_value, again, share)
        return Worker(device, order, _environment(device, threads), lock)

    with alone(paths, plan.profile) as lock:
        if missing(plan.teacher):
            first = _run([start(devices[0], [plan.teacher], _cores(1), lock)], plan, reporter, keep_going)
            if first.failed or not first.complete:
                return first
            chain.forget(plan.teacher)
        else:
            first = Summary([], {}, True)
        students = [cell for cell in (plan.cells if cells is None else cells) if not cell.is_teacher and missing(cell)]
        shares = zip(devices, spread(students, len(devices)), strict=True)
        workers = [start(device, share, _cores(len(devices)), lock) for device, share in shares if share]
        rest = _run(workers, plan, reporter, keep_going)
    return Summary(first.made + rest.made, rest.failed, rest.complete)


def _cores(workers: int) -> int:
    return max(1, torch.get_num_threads() // workers)


def _environment(device: str, threads: int) -> dict[str, str]:
    """The environment of a worker, in which only its own GPU is visible, or none."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    number = int(device.removeprefix("cuda:")) if device != "cpu" else None
    # Device numbers count the GPUs that are visible to this process.
    own = "" if number is None else visible[number] if number < len(visible) else str(number)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "CUDA_VISIBLE_DEVICES": own, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}


def _run(workers: Sequence[Worker], plan: Plan, reporter: Reporter, keep_going: Callable[[], bool]) -> Summary:
    """Pass on what the workers report until all of them have ended."""
    lines: queue.Queue[tuple[Worker, str | None]] = queue.Queue()
    for worker in workers:
        threading.Thread(target=_listen, args=(worker, lines), daemon=True).start()
    talking = list(workers)
    try:
        while talking:
            if not keep_going():
                for worker in talking:
                    worker.stop()
            try:
                worker, line = lines.get(timeout=LISTEN_EVERY_S)
            except queue.Empty:
                continue
            if line is None:
                talking.remove(worker)
                worker.stop()
            else:
                # Only the first worker that is still busy reports steps: those of several at once would flicker.
                _pass_on(json.loads(line), worker, plan, reporter, len(workers) > 1, worker is talking[0])
    finally:
        # On an error or a second Ctrl-C no process is left running.
        for worker in talking:
            worker.process.kill()
    summaries = [worker.summary() for worker in workers]
    return Summary(
        [cell for one in summaries for cell in one.made],
        {cell: reason for one in summaries for cell, reason in one.failed.items()},
        all(one.complete for one in summaries),
    )


def _listen(worker: Worker, lines: "queue.Queue[tuple[Worker, str | None]]") -> None:
    stream: IO[bytes] | None = worker.process.stdout
    assert stream
    for line in stream:
        lines.put((worker, line.decode()))
    lines.put((worker, None))


def _pass_on(
    said: dict[str, Any], worker: Worker, plan: Plan, reporter: Reporter, several: bool, steps_too: bool
) -> None:
    if "stage" in said:
        reporter.stage(f"{worker.name}: {said['stage']}" if several else said["stage"])
    elif "step" in said:
        if steps_too:
            reporter.step(*said["step"])
    elif "epoch" in said:
        learner, number, of, epoch = said["epoch"]
        reporter.epoch(learner, number, of, Epoch.model_validate(epoch))
    elif "cell" in said:
        cell = next(cell for cell in plan.cells if cell.id == said["cell"])
        record = TrainRecord.model_validate(said["record"])
        if not record.failure:
            worker.made.append(cell.id)
        reporter.cell(cell, record)
    else:
        worker.said = said
