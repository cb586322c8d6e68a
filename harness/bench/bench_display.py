"""What a person sees while the bench runs: one changing line on a terminal, else a line per milestone, on stderr."""

import sys
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text
from tabulate import tabulate

from harness.plan.cpu_table import whose_instruction_set
from harness.store.records import AccuracyRecord, LatencyRecord


class Progress:
    """What is being measured, as a context manager. In a log only milestones and failures stay."""

    def __init__(self, stage: str, stream: TextIO | None = None) -> None:
        self.stage = stage
        self.stream = stream or sys.stderr
        self.milestone = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        console = Console(file=self.stream, highlight=False)
        if console.is_terminal:
            # Drawn when something happens and by no thread of its own: this process must sleep while another measures.
            live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
            self._live = live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.__exit__(kind, error, traceback)

    def at(self, what: str) -> None:
        """Show what comes next, beside the last milestone; on terminals only."""
        if self._live:
            line = f"{self.stage}: {what}" + (f" ({self.milestone})" if self.milestone else "")
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)

    def reached(self, what: str) -> None:
        """Note a milestone: a line in a log."""
        self.milestone = what
        if not self._live:
            self._line(what)

    def failed(self, what: str) -> None:
        """Print a line that stays, on terminals as well."""
        self._line(what)

    def _line(self, what: str) -> None:
        if self._live:
            self._live.console.print(Text(f"{self.stage}: {what}"), soft_wrap=True)
        else:
            print(f"{self.stage}: {what}", file=self.stream, flush=True)


def duration(seconds: float) -> str:
    """Seconds for people: "8 s", "3 min 20 s", "1 h 04 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def summary(latencies: Sequence[LatencyRecord], accuracies: Sequence[AccuracyRecord]) -> str:
    """A short table of one condition, named above it, with the reasons of failures and the warnings below it."""
    accuracy_of = {record.cell: record for record in accuracies}
    rows, reasons, warnings = [], [], Counter[str]()
    for latency in latencies:
        accuracy, took, ratio = accuracy_of.get(latency.cell), latency.latency_ms, latency.ratio_to_teacher
        known = accuracy is not None and accuracy.accuracy_pct is not None
        rows.append(
            [
                latency.title,
                took.text(".3f") if took else "failed",
                ratio.text(".3f") if ratio else "-",
                f"{accuracy.accuracy_pct:.2f}" if accuracy and known else "failed",
            ]
        )
        if latency.control_ratio:
            rows.append([f"{latency.title}, again", "", latency.control_ratio.text(".3f"), ""])
        reasons += [
            f"{record.cell}: {record.stage} failed ({record.failure.kind}): {record.failure.message}"
            for record in (latency, accuracy)
            if record and record.failure
        ]
        warnings.update(latency.warnings)
    headers = ["Model", "Latency (ms) [95 %]", "Ratio to teacher [95 %]", "Accuracy (%)"]
    table = tabulate(rows, headers, disable_numparse=True, colalign=("left", "right", "right", "right"))
    title = [_condition(latencies[0])] if latencies else []
    notes = [
        f"{'all rows' if count == len(latencies) else _count(count, 'row')}: {text}" for text, count in warnings.items()
    ]
    return "\n".join([*title, table, *reasons, *notes])


def _condition(record: LatencyRecord) -> str:
    isa = whose_instruction_set(str(record.spec.get("isa", "host")))
    return f"{record.runtime}, {_count(record.threads, 'thread')}, {isa}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
