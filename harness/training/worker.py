"""What a worker does with its order; as a process of its own: `python -m harness.training.worker`.

That process reads its order, pickled, from stdin, and says what happens as one JSON object per line on stdout. It works
for as long as stdin stays open: when the process that started it closes it, or dies, the worker stops after its next
step and keeps what it has.
"""

import json
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness.errors import HarnessError
from harness.plan.planning import Cell, Plan
from harness.store.paths import Paths
from harness.store.records import Epoch, TrainRecord

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Order:
    """What a worker has to make: cells of a plan by their ids, the most valuable first where `by_value`.

    Who makes the order says what; on which device and how many threads, the executor that gives it to a worker.
    """

    plan: Plan
    paths: Paths
    cells: tuple[str, ...]
    together: int | None = None
    by_value: bool = False
    redo: tuple[str, ...] = ()
    cuda: bool = False
    threads: int = 1
    # the part of the device's free memory that is this worker's
    memory_share: float = 1.0

    @property
    def for_teacher(self) -> bool:
        """Whether it is the teacher that is to be made, which everything else waits for."""
        return self.plan.teacher.id in self.cells


class Teller:
    """A reporter that hands on what happens, as JSON objects."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self.send = send

    def tell(self, **said: Any) -> None:
        """One object."""
        self.send(said)

    def stage(self, text: str) -> None:
        self.tell(stage=text)

    def step(self, epoch: int, epochs: int, step: int, steps: int, learners: int, images_per_s: float) -> None:
        self.tell(step=[epoch, epochs, step, steps, learners, images_per_s])

    def epoch(self, learner: str, number: int, of: int, epoch: Epoch) -> None:
        self.tell(epoch=[learner, number, of, epoch.model_dump()])

    def cell(self, cell: Cell, record: TrainRecord) -> None:
        self.tell(cell=cell.id, record=record.model_dump(mode="json"))


def python_path() -> str:
    """Where a worker process finds this package, and the plug-ins that this process finds."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def carry_out(order: Order, teller: Teller, keep_going: Callable[[], bool]) -> None:
    """Make what the order says, in this process and thread.

    The last thing told is how it ended: `made`, `failed` and `complete`; or `error`, which the user can put right, and
    which would meet every other order as well; or `broke`, an exception that is a defect of the harness.
    """
    # only now: the environment decides which GPU there is
    import torch

    from harness.training.device import choose_device
    from harness.training.pipeline import Maker

    torch.set_num_threads(order.threads)
    plan = order.plan
    maker = Maker(
        plan,
        order.paths,
        choose_device(plan.settings.precision, order.cuda),
        teller,
        keep_going,
        plan.groups if order.by_value else None,
        order.together,
        order.redo,
        order.memory_share,
    )
    try:
        summary = maker.run([cell for cell in plan.cells if cell.id in order.cells])
    except HarnessError as error:
        teller.tell(error=str(error))
    except Exception as error:  # one order's defect is no reason to give up the others
        traceback.print_exc()
        teller.tell(broke=f"{type(error).__name__}: {error}")
    else:
        teller.tell(made=summary.made, failed=summary.failed, complete=summary.complete)


def main() -> None:
    """Do what stdin says."""
    # Ctrl-C reaches every process of the terminal; whether to stop is for the one that started us to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # what libraries print must not get between the lines
    os.dup2(2, 1)
    order: Order = pickle.load(sys.stdin.buffer)
    stop = threading.Event()
    threading.Thread(target=_until_closed, args=(sys.stdin.buffer, stop), daemon=True).start()

    def send(said: dict[str, Any]) -> None:
        print(json.dumps(said), file=out, flush=True)

    carry_out(order, Teller(send), lambda: not stop.is_set())
    # the thread still reads stdin, and Python would wait for its lock
    os._exit(0)


def _until_closed(stream: IO[bytes], stop: threading.Event) -> None:
    stream.read()
    stop.set()


if __name__ == "__main__":
    main()
