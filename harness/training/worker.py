"""One device's share of a matrix, in a process of its own: `python -m harness.training.worker`.

Reads its order, pickled, from stdin, and says what happens as one JSON object per line on stdout. It works for as long
as stdin stays open: when the process that started it closes it, or dies, the worker stops after its next step and keeps
what it has.
"""

import json
import os
import pickle
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from harness.errors import HarnessError
from harness.plan.planning import Cell, Plan
from harness.store.paths import Paths
from harness.store.records import Epoch, TrainRecord


@dataclass(frozen=True)
class Order:
    """What a worker has to make: cells of a plan by their ids, the most valuable first where `by_value`."""

    plan: Plan
    paths: Paths
    cells: tuple[str, ...]
    cuda: bool
    threads: int
    together: int | None
    by_value: bool = False
    redo: tuple[str, ...] = ()
    # the part of the device's free memory that is this worker's
    memory_share: float = 1.0


class Teller:
    """A reporter that writes JSON lines."""

    def __init__(self, out: IO[str]) -> None:
        self.out = out

    def tell(self, **said: Any) -> None:
        """One line."""
        self.out.write(json.dumps(said) + "\n")
        self.out.flush()

    def stage(self, text: str) -> None:
        self.tell(stage=text)

    def step(self, epoch: int, epochs: int, step: int, steps: int, learners: int, images_per_s: float) -> None:
        self.tell(step=[epoch, epochs, step, steps, learners, images_per_s])

    def epoch(self, learner: str, number: int, of: int, epoch: Epoch) -> None:
        self.tell(epoch=[learner, number, of, epoch.model_dump()])

    def cell(self, cell: Cell, record: TrainRecord) -> None:
        self.tell(cell=cell.id, record=record.model_dump(mode="json"))


def main() -> None:
    """Do what stdin says."""
    # Ctrl-C reaches every process of the terminal; whether to stop is for the one that started us to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    teller = Teller(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    # what libraries print must not get between the lines
    os.dup2(2, 1)
    order: Order = pickle.load(sys.stdin.buffer)
    stop = threading.Event()
    threading.Thread(target=_until_closed, args=(sys.stdin.buffer, stop), daemon=True).start()

    # only now: the environment decides which GPU there is
    import torch

    from harness.training.device import choose_device
    from harness.training.pipeline import Maker

    torch.set_num_threads(order.threads)
    plan = order.plan
    device = choose_device(plan.settings.precision, order.cuda)
    wanted: Sequence[Cell] = [cell for cell in plan.cells if cell.id in order.cells]
    maker = Maker(
        plan,
        order.paths,
        device,
        teller,
        lambda: not stop.is_set(),
        plan.groups if order.by_value else None,
        order.together,
        order.redo,
        order.memory_share,
    )
    try:
        summary = maker.run(wanted)
    except HarnessError as error:
        teller.tell(error=str(error))
    else:
        teller.tell(made=summary.made, failed=summary.failed, complete=summary.complete)
    # the thread still reads stdin, and Python would wait for its lock
    os._exit(0)


def _until_closed(stream: IO[bytes], stop: threading.Event) -> None:
    stream.read()
    stop.set()


if __name__ == "__main__":
    main()
