"""Which cells go to which device: nothing that cells share is made twice, and all devices end at about the same time.

Batches are a function of (stage, seed, epoch, step), so students of a seed stay paired on whatever device each of them
trains.
"""

import re
from collections.abc import Sequence

from harness.errors import HarnessError
from harness.plan.planning import Cell
from harness.plan.specs import JointObjective, Pruned, Sparse


def device_names(given: str, gpus: int) -> list[str]:
    """ "cuda:0,cuda:1" -> names; HarnessError on what is no device, or none of a host with so many GPUs."""
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if not re.fullmatch(r"cpu|cuda:\d+", name):
            raise HarnessError(f"--devices {given}: {name!r} is no device; allowed: cpu or cuda:N, separated by commas")
        if name != "cpu" and int(name.removeprefix("cuda:")) >= gpus:
            raise HarnessError(f"--devices {given}: no {name} here: PyTorch finds {gpus} GPUs, and the first is cuda:0")
    return names


def cost(cell: Cell) -> int:
    """What a student takes, in epochs: those of its recipe for each of its phases."""
    spec = cell.student
    if isinstance(spec.objective, JointObjective):
        return spec.recipe.epochs * spec.objective.stages
    return spec.recipe.epochs * len(spec.methods)


def units(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Students that start from the same sparsely trained network (the same pruned one, where there is none) stay
    together: two devices must not both make it."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(shared_start(cell).key, []).append(cell)
    return list(found.values())


def shared_start(cell: Cell) -> Sparse | Pruned:
    """The network that a student shares with the rest of its unit."""
    pruned = cell.student.start
    return pruned.start if isinstance(pruned.start, Sparse) else pruned


def spread(cells: Sequence[Cell], devices: int) -> list[list[Cell]]:
    """The students by device: the longest unit first, each to the device with the least to do.

    Among devices with equally little to do it is the one that has students of the unit's seed: they share a teacher
    pass.
    """
    shares: list[list[Cell]] = [[] for _ in range(devices)]
    for unit in sorted(units(cells), key=lambda unit: -sum(map(cost, unit))):
        seeds = {cell.seed for cell in unit}
        share = min(shares, key=lambda share: (sum(map(cost, share)), not seeds & {cell.seed for cell in share}))
        share += unit
    return shares
