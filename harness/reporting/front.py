"""The Pareto front of accuracy against latency: which models are worth their latency."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple


class Place(NamedTuple):
    """Where a model lies: latency divided by the teacher's, and accuracy (%)."""

    ratio: float
    accuracy_pct: float

    def beats(self, other: "Place") -> bool:
        """Whether it is at least as good in both, and better in one."""
        return self.ratio <= other.ratio and self.accuracy_pct >= other.accuracy_pct and self != other


def middle(places: Iterable[Place | None]) -> Place | None:
    """The mean of those that are known; None where that is none of them."""
    known = [place for place in places if place is not None]
    return Place(*map(fmean, zip(*known, strict=True))) if known else None


def pareto_ranks(places: Sequence[Place | None]) -> list[int | None]:
    """1 for the front: models that no other beats; 2 for the front of those that are left; and so on.

    A model of rank 1 is the best for its latency: whatever is as fast is less accurate. Estimates decide, not their
    intervals. None where a model has no place.
    """
    ranks: dict[Place, int] = {}
    # of each front so far, the highest accuracy, negated to rise from front to front
    highest: list[float] = []
    known = {place for place in places if place is not None}
    for place in sorted(known, key=lambda one: (one.ratio, -one.accuracy_pct)):
        # whatever beats it came before, and is in a front that reaches its accuracy
        front = bisect_right(highest, -place.accuracy_pct)
        highest[front : front + 1] = [-place.accuracy_pct]
        ranks[place] = front + 1
    return [None if place is None else ranks[place] for place in places]


def most_per_latency(places: Sequence[Place | None]) -> int | None:
    """The number of the model with the highest accuracy divided by its latency ratio; None where none has a place.

    It is on the front.
    """
    known = [(place.accuracy_pct / place.ratio, -number) for number, place in enumerate(places) if place]
    return -max(known)[1] if known else None
