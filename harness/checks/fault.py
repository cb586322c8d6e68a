"""What a check gives: the row, the stage whose figures it concerns, and the reason."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.checks.evidence import Entry, Evidence
from harness.store.records import Stage


@dataclass(frozen=True)
class Fault:
    """One row that one check does not let pass. The reason names the value found and the one expected."""

    entry: Entry
    stage: Stage
    reason: str


Find = Callable[[Evidence], Iterator[Fault]]


def short(sha256: str | None) -> str:
    """A hash as a reader can compare it."""
    return f"{sha256[:12]}..." if sha256 else "none"
