"""How a training run looks: a live display on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from harness.commands.budget import clock
from harness.plan.planning import Cell
from harness.store.records import Epoch, TrainRecord

# Without a terminal a line at most this often, in seconds.
PLAIN_EVERY_S = 30.0


class Display:
    """Told by the training room what happens, it says so: stages, steps, epochs with loss and speed, cells.

    What is set as `after_cell` is called after each cell that is done or has failed.
    """

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.live = sys.stdout.isatty()
        self.progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.live,
            transient=True,
        )
        self.after_cell: Callable[[], None] = lambda: None
        self._task: TaskID | None = None
        self._said = time.monotonic()
        self._from: tuple[float, int] | None = None

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

    def stage(self, text: str) -> None:
        """A new stage begins."""
        self._from = None
        if self._task is not None:
            self.progress.remove_task(self._task)
            self._task = None
        self.say(text)

    def step(self, epoch: int, epochs: int, step: int, steps: int, learners: int, images_per_s: float) -> None:
        """A step was taken by all learners."""
        done, total = epoch * steps + step, epochs * steps
        if self._from is None:
            # The first step compiles kernels; the clock starts after it.
            self._from = (time.monotonic(), done)
        since, first = self._from
        facts = f"{images_per_s:,.0f} images/s"
        if done > first:
            facts += f", {clock((time.monotonic() - since) / (done - first) * (total - done))} left"
        if self.live:
            name = f"epoch {epoch + 1} of {epochs}" + (f", {learners} networks" if learners > 1 else "")
            if self._task is None:
                self._task = self.progress.add_task(name, total=total, facts=facts)
            self.progress.update(self._task, description=name, completed=done, total=total, facts=facts)
        elif time.monotonic() - self._said > PLAIN_EVERY_S:
            self._said = time.monotonic()
            self.say(f"  epoch {epoch + 1} of {epochs}, step {step} of {steps}: {facts}")

    def epoch(self, learner: str, number: int, of: int, epoch: Epoch) -> None:
        """A learner finished an epoch."""
        self._said = time.monotonic()
        right = "" if epoch.accuracy_pct is None else f"  training accuracy {epoch.accuracy_pct:.1f} %"
        tested = "" if epoch.test_accuracy_pct is None else f"  test accuracy {epoch.test_accuracy_pct:.1f} %"
        self.say(f"  {learner:<24} {epoch.phase:<8} epoch {number} of {of}  loss {epoch.loss:.3f}{right}{tested}")

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
