"""How much of a training run is done, and how long the rest of it will take: of all cells, not of the stage at hand.

Work is counted in epochs of one network, each weighted by the area of its images. The teacher has the machine to
itself, students share it and are pruned: so the time that a unit of work takes is measured for each kind of network,
and until the first of a kind has trained, that of all together stands in for it.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from harness.plan import registry
from harness.plan.planning import Cell
from harness.plan.settings import Recipe
from harness.plan.specs import JointObjective, Sparse, Student


@dataclass(frozen=True)
class Network:
    """One that is to be trained: of which kind, and the work of each of its epochs."""

    kind: str
    epochs: tuple[float, ...]


def networks_ahead(cells: Iterable[Cell]) -> dict[str, Network]:
    """What has to be trained for these cells, by the names that training has for it, in its order."""
    ahead: dict[str, Network] = {}
    ordered = sorted(cells, key=lambda cell: not cell.is_teacher)
    for cell in ordered:
        if cell.is_teacher and cell.teacher.recipe:
            ahead[cell.id] = Network("teacher", _work(cell.teacher.recipe, 1))
    for cell in ordered:
        for stage in cell.spec.lineage:
            if isinstance(stage, Sparse):
                ahead[f"{stage.kind}-{stage.key.partition('-')[2]}"] = Network("sparse", _work(stage.recipe, 1))
    for cell in ordered:
        if not cell.is_teacher:
            ahead[cell.id] = Network("student", _work(cell.student.recipe, _stages(cell.student)))
    return ahead


def _work(recipe: Recipe, stages: int) -> tuple[float, ...]:
    return tuple(float(recipe.image_size(epoch) ** 2) for epoch in range(recipe.epochs)) * stages


def _stages(student: Student) -> int:
    """How many stages its method is expected to have; training knows, and says so with the first epoch that ends."""
    if isinstance(student.objective, JointObjective):
        return student.objective.stages
    return 2 if registry.find("method", student.method.name).constants.get("FEATURES") else 1


class Remaining:
    """Told of steps and epochs as they end, it knows what share of the work is done and how long the rest will take."""

    def __init__(self, ahead: Mapping[str, Network], now: Callable[[], float] = time.monotonic) -> None:
        self._ahead, self._now = dict(ahead), now
        self._ended = dict.fromkeys(ahead, 0)
        # summed up as epochs end, since a step should not take longer where the matrix is large
        self._whole = sum(sum(one.epochs) for one in ahead.values())
        self._left: dict[str, float] = defaultdict(float)
        for one in ahead.values():
            self._left[one.kind] += sum(one.epochs)
        self._within, self._at = 0.0, ""
        # of each kind: the work done since the first step of this run, and the seconds it took
        self._work: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._last: tuple[float, float] | None = None

    def step(self, epoch: int, step: int, steps: int, learners: int) -> None:
        """So many networks have taken this step of the steps of an epoch; epochs count from 0."""
        if not self._is_at(self._at, epoch):
            self._at = next((name for name in self._ahead if self._is_at(name, epoch)), "")
        at_it = self._ahead.get(self._at)
        self._within = learners * step / steps * at_it.epochs[epoch] if at_it else 0.0
        self._count(at_it.kind if at_it else "")

    def epoch(self, learner: str, number: int, of: int) -> None:
        """A network has ended this epoch of its epochs; epochs count from 1."""
        one = self._ahead.get(learner)
        if one is None:
            return
        if len(one.epochs) != of:
            longer = Network(one.kind, (one.epochs * of)[:of])
            more = sum(longer.epochs) - sum(one.epochs)
            self._whole += more
            self._left[one.kind] += more
            self._ahead[learner] = one = longer
        self._left[one.kind] -= sum(one.epochs[self._ended[learner] : number])
        self._ended[learner], self._within = number, 0.0
        self._count(one.kind)

    @property
    def share(self) -> float:
        """The share of the work that is done, from 0 to 1."""
        return min(self._done() / self._whole, 1.0) if self._whole else 1.0

    @property
    def left_s(self) -> float | None:
        """Seconds until everything is trained; None until something has been."""
        work, seconds = sum(self._work.values()), sum(self._seconds.values())
        if work <= 0:
            return None
        left = -self._within * seconds / work
        for kind, ahead in self._left.items():
            of_kind = self._work.get(kind, 0.0)
            left += ahead * (self._seconds[kind] / of_kind if of_kind > 0 else seconds / work)
        return max(left, 0.0)

    def _is_at(self, name: str, epoch: int) -> bool:
        """Whether this network is in that epoch, as far as is known."""
        one = self._ahead.get(name)
        return one is not None and self._ended[name] == epoch < len(one.epochs)

    def _done(self) -> float:
        return self._whole - sum(self._left.values()) + self._within

    def _count(self, kind: str) -> None:
        """Credit what has been done since it was last asked to this kind; the first step compiles, and counts not."""
        now, done = self._now(), self._done()
        if self._last is not None:
            self._work[kind] = self._work.get(kind, 0.0) + done - self._last[1]
            self._seconds[kind] = self._seconds.get(kind, 0.0) + now - self._last[0]
        self._last = now, done
