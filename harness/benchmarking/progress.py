"""What a person sees while the bench runs: one updating line on a terminal, else a line per block, on stderr."""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from tabulate import tabulate

from harness.records import AccuracyRecord, LatencyRecord


class Progress:
    """Counts equal steps of one stage, to say how much time is left."""

    def __init__(self, stage: str, steps: int, stream: TextIO | None = None) -> None:
        self.stage, self.steps, self.done = stage, steps, 0
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.started = time.monotonic()

    def at(self, what: str) -> None:
        """Before a step: what comes, for terminals."""
        if self.live:
            self._print(what, "")

    def advance(self, steps: int = 1) -> None:
        """After a step, or after steps that fell away."""
        self.done += steps

    def reached(self, what: str) -> None:
        """After a step worth a line in a log."""
        if not self.live:
            self._print(what, "\n")

    def failed(self, what: str) -> None:
        """A line that stays in either case."""
        self._print(what, "\n")

    def close(self) -> None:
        """Leave no half line behind."""
        if self.live:
            self._write("\r\x1b[K")

    def _print(self, what: str, end: str) -> None:
        left = f", {duration(self._left())} left" if 0 < self.done < self.steps else ""
        start = "\r\x1b[K" if self.live else ""
        self._write(f"{start}{self.stage} {self.done}/{self.steps}{left}: {what}{end}")

    def _left(self) -> float:
        return (time.monotonic() - self.started) / self.done * (self.steps - self.done)

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def duration(seconds: float) -> str:
    """Seconds for people: "8 s", "3 min 20 s", "1 h 04 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def summary(latencies: Sequence[LatencyRecord], accuracies: Sequence[AccuracyRecord]) -> str:
    """A short table of the run, model by model, with the reasons of failures below it."""
    rows, reasons = [], []
    for latency, accuracy in zip(latencies, accuracies, strict=True):
        took, ratio = latency.latency_ms, latency.ratio_to_teacher
        rows.append(
            [
                latency.title,
                f"{took.value:.2f} [{took.low:.2f}, {took.high:.2f}]" if took else "failed",
                f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio else "-",
                f"{accuracy.accuracy_pct:.2f}" if accuracy.accuracy_pct is not None else "failed",
            ]
        )
        reasons += [
            f"{record.cell}: {record.stage} failed ({record.failure.kind}): {record.failure.message}"
            for record in (latency, accuracy)
            if record.failure
        ]
        reasons += [f"{latency.cell}: {warning}" for warning in latency.warnings]
    headers = ["Model", "Latency (ms) [95 %]", "Ratio to teacher [95 %]", "Accuracy (%)"]
    table = tabulate(rows, headers, disable_numparse=True, colalign=("left", "right", "right", "right"))
    return "\n".join([table, *reasons])
