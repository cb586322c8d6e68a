"""Which models are worth their latency: the Pareto front of accuracy against latency, and the best per latency."""

from collections.abc import Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """Where a model lies: latency divided by the teacher's, and accuracy (%)."""

    ratio: float
    accuracy_pct: float

    def beats(self, other: "Place") -> bool:
        """Whether it is at least as good in both, and better in one."""
        return self.ratio <= other.ratio and self.accuracy_pct >= other.accuracy_pct and self != other


def pareto_ranks(places: Sequence[Place | None]) -> list[int | None]:
    """1 for the front: models that no other beats; 2 for the front of those that are left; and so on.

    Estimates decide, not their intervals. None where a model has no place.
    """
    ranks: list[int | None] = [None] * len(places)
    left = {number: place for number, place in enumerate(places) if place is not None}
    rank = 0
    while left:
        rank += 1
        front = [number for number, one in left.items() if not any(other.beats(one) for other in left.values())]
        for number in front:
            ranks[number] = rank
            del left[number]
    return ranks


def best_per_latency(places: Sequence[Place | None]) -> int | None:
    """The number of the model with the highest accuracy divided by its latency ratio; None where none has a place."""
    known = [(place.accuracy_pct / place.ratio, -number) for number, place in enumerate(places) if place]
    return -max(known)[1] if known else None
