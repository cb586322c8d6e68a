"""How a training run looks: a bar that is updated in place on a terminal, plain lines anywhere else."""

import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from harness.commands.budget import clock
from harness.commands.remaining import Remaining, networks_ahead
from harness.plan.planning import Cell
from harness.store.records import Epoch, TrainRecord

# Where nothing is updated in place, a line at most this often, in seconds.
PLAIN_EVERY_S = 30.0


class Display:
    """Told by the training room what happens, it says so: stages, steps, epochs with loss and speed, cells.

    The bar and the time left are those of all that is to be trained. What is printed fits 80 columns, unless a model
    has a long name. What is set as `after_cell` is called after each cell that is done or has failed.
    """

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.live = self.console.is_terminal and os.environ.get("TERM") not in ("dumb", "unknown")
        self.progress = Progress(
            TextColumn("  {task.percentage:3.0f} %"),
            BarColumn(bar_width=10),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.live,
            transient=True,
        )
        self.remaining = Remaining({})
        self.after_cell: Callable[[], None] = lambda: None
        self._task: TaskID | None = None
        self._said = time.monotonic()

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, markup=False)

    def expect(self, cells: Sequence[Cell]) -> None:
        """These are to be trained."""
        self.remaining = Remaining(networks_ahead(cells))

    def stage(self, text: str) -> None:
        """A new stage begins."""
        self.say(text)

    def step(self, epoch: int, epochs: int, step: int, steps: int, learners: int, images_per_s: float) -> None:
        """A step was taken by all learners."""
        self.remaining.step(epoch, step, steps, learners)
        left = self.remaining.left_s
        speed = f"{images_per_s:,.0f} images/s" + ("" if left is None else f", {clock(left)} left")
        if self.live:
            networks = f", {learners} networks" if learners > 1 else ""
            if self._task is None:
                self._task = self.progress.add_task("", total=1.0)
            facts = f"epoch {epoch + 1}/{epochs}{networks}, {speed}"
            self.progress.update(self._task, completed=self.remaining.share, description=facts)
        elif time.monotonic() - self._said > PLAIN_EVERY_S:
            self._said = time.monotonic()
            share = f"{100 * self.remaining.share:.0f} %"
            self.say(f"  {share}: epoch {epoch + 1} of {epochs}, step {step} of {steps}: {speed}")

    def epoch(self, learner: str, number: int, of: int, epoch: Epoch) -> None:
        """A learner finished an epoch."""
        self.remaining.epoch(learner, number, of)
        self._said = time.monotonic()
        right = "" if epoch.accuracy_pct is None else f"  train {epoch.accuracy_pct:.1f} %"
        tested = "" if epoch.test_accuracy_pct is None else f"  test {epoch.test_accuracy_pct:.1f} %"
        self.say(f"  {learner:<15} {epoch.phase:<7} epoch {number} of {of}  loss {epoch.loss:.3f}{right}{tested}")

    def cell(self, cell: Cell, record: TrainRecord) -> None:
        """A cell is done or has failed."""
        if record.failure:
            self.say(f"  {cell.title}: failed ({record.failure.kind}): {record.failure.message}")
        else:
            assert record.accuracy_pct is not None and record.params is not None
            self.say(
                f"  {cell.title}: accuracy {record.accuracy_pct:.2f} %, {record.params / 1e6:.2f} M parameters, "
                f"{clock(record.seconds)}"
            )
        self.after_cell()
