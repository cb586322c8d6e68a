"""What a check gives: the row, the stage whose figures it concerns, and the reason."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.checks.evidence import Entry, Evidence
from harness.store.records import StageName


@dataclass(frozen=True)
class Fault:
    """One row that fails a check. The reason names the value found and the one expected.

    `condition` is that of the latency at fault; without one, the headline.
    """

    entry: Entry
    stage: StageName
    reason: str
    condition: str = ""


Find = Callable[[Evidence], Iterator[Fault]]
