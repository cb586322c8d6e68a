"""What a person sees while the bench runs: one updating line on a terminal, else a line per block, on stderr."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from tabulate import tabulate

from harness.store.records import AccuracyRecord, LatencyRecord


class Progress:
    """One line about what is happening, on terminals replaced by the next; milestones stay in a log."""

    def __init__(self, stage: str, stream: TextIO | None = None) -> None:
        self.stage = stage
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.milestone = ""

    def at(self, what: str) -> None:
        """Before a step: what comes, for terminals, beside the last milestone."""
        if self.live:
            self._print(what + (f" ({self.milestone})" if self.milestone else ""), "")

    def reached(self, what: str) -> None:
        """A milestone: a line in a log."""
        self.milestone = what
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
        start = "\r\x1b[K" if self.live else ""
        self._write(f"{start}{self.stage}: {what}{end}")

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


def summary(latencies: Sequence[LatencyRecord], accuracies: Sequence[AccuracyRecord], several: bool = False) -> str:
    """A short table of one condition, model by model, with the reasons of failures and the warnings below it."""
    right = {record.cell: record for record in accuracies}
    rows, reasons, warned = [], [], Counter[str]()
    for latency in latencies:
        accuracy, took, ratio = right.get(latency.cell), latency.latency_ms, latency.ratio_to_teacher
        known = accuracy is not None and accuracy.accuracy_pct is not None
        rows.append(
            [
                latency.title,
                f"{took.value:.3f} [{took.low:.3f}, {took.high:.3f}]" if took else "failed",
                f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio else "-",
                f"{accuracy.accuracy_pct:.2f}" if accuracy and known else "failed",
            ]
        )
        if latency.control_ratio:
            aa = latency.control_ratio
            rows.append([f"{latency.title}, again", "", f"{aa.value:.3f} [{aa.low:.3f}, {aa.high:.3f}]", ""])
        reasons += [
            f"{record.cell}: {record.stage} failed ({record.failure.kind}): {record.failure.message}"
            for record in (latency, accuracy)
            if record and record.failure
        ]
        warned.update(latency.warnings)
    headers = ["Model", "Latency (ms) [95 %]", "Ratio to teacher [95 %]", "Accuracy (%)"]
    table = tabulate(rows, headers, disable_numparse=True, colalign=("left", "right", "right", "right"))
    title = [f"{latencies[0].runtime}, {_count(latencies[0].threads, 'thread')}"] if several and latencies else []
    told = [
        f"{'all rows' if count == len(latencies) else _count(count, 'row')}: {text}" for text, count in warned.items()
    ]
    return "\n".join([*title, table, *reasons, *told])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
