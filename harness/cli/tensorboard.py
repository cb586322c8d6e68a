"""Every epoch of every network as TensorBoard shows it: a run per network, a point per epoch."""

from pathlib import Path

from tensorboardX import SummaryWriter

from harness.plan.planning import Cell
from harness.store.records import Epoch, TrainRecord
from harness.training.finishing import Reporter


class Board:
    """A reporter that writes event files into `folder`/NETWORK, and passes everything on to another reporter."""

    def __init__(self, folder: Path, inner: Reporter) -> None:
        self.folder, self.inner = folder, inner
        # one each for as long as it trains: its file is named by the second in which it was opened
        self._writers: dict[str, SummaryWriter] = {}

    def step(self, epoch: int, epochs: int, step: int, steps: int, learners: int, images_per_s: float) -> None:
        """See harness.training.loop.Watcher."""
        self.inner.step(epoch, epochs, step, steps, learners, images_per_s)

    def stage(self, text: str) -> None:
        """See harness.training.finishing.Reporter."""
        self.inner.stage(text)

    def cell(self, cell: Cell, record: TrainRecord) -> None:
        """See harness.training.finishing.Reporter."""
        self.inner.cell(cell, record)

    def epoch(self, learner: str, number: int, of: int, epoch: Epoch) -> None:
        """Write the epoch's figures."""
        figures = {
            "loss": epoch.loss,
            "accuracy/training": epoch.accuracy_pct,
            "accuracy/test": epoch.test_accuracy_pct,
            "learning rate": epoch.lr,
            "images per second": epoch.images_per_s,
            "image size": epoch.image_size,
        }
        if learner not in self._writers:
            self._writers[learner] = SummaryWriter(str(self.folder / learner))
        writer = self._writers[learner]
        for name, value in figures.items():
            if value is not None:
                writer.add_scalar(name, value, number)
        if number == of:
            self._writers.pop(learner).close()
        else:
            writer.flush()
        self.inner.epoch(learner, number, of, epoch)
