"""What comes next, and how much of the time it may take: decided from states and clocks, without running anything."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.plan.planning import Cell, Plan
from harness.store.states import CellState

# Kept for tables and charts, in seconds.
REPORT_S = 20.0
# Training is not begun for less.
LEAST_TRAINING_S = 20.0
# What measuring may claim of the whole, however many models there are: without training there is nothing to measure.
LARGEST_BENCH_SHARE = 0.5
# One thread of a slow core at batch 1, and starting a process: on the safe side where no accuracy is on record yet.
MACS_PER_S, START_S = 4e10, 4.0
TEST_IMAGES = 10_000
# torchvision's ResNet50, multiply-adds at (image size): the CIFAR stem, the ImageNet stem.
TEACHER_MACS = {"cifar": (1.308e9, 32), "imagenet": (4.09e9, 224)}
# A student's multiply-adds by its teacher's, before it is known.
STUDENT_SHARE = 0.65


@dataclass(frozen=True)
class Costs:
    """What is known of models already: their multiply-adds, and how long their accuracies took (s)."""

    macs: Mapping[str, int]
    accuracy_s: Mapping[str, float]


def next_cells(plan: Plan, states: Sequence[CellState], tried: Collection[str], all_at_once: bool) -> list[Cell]:
    """What to train next: the teacher, then group after group by value, then what failed before, each once in a run.

    What is on record and made elsewhere is not made again, weights or not. Empty where there is nothing left, or
    where the students' teacher is not here.
    """
    by_id = {state.cell.id: state for state in states}

    def open_(cell: Cell, *found: str) -> bool:
        return cell.id not in tried and by_id[cell.id].training in found

    teacher = plan.teacher
    if open_(teacher, "missing", "trained", "failed"):
        return [teacher]
    exports = [cell for cell in plan.cells if open_(cell, "trained")]
    if by_id[teacher.id].training not in ("trained", "changed", "done"):
        return exports
    groups = [[cell for group in plan.groups for cell in group]] if all_at_once else plan.groups
    for found in (("missing", "trained"), ("failed",)):
        for group in groups:
            if cells := [cell for cell in group if open_(cell, *found)]:
                return cells
    return []


def training_s(plan: Plan, states: Sequence[CellState], coming: Sequence[Cell], costs: Costs, budget: "Clock") -> float:
    """Seconds that training `coming` may take, so that they and all that is here can be measured and reported."""
    exported = {state.cell.id for state in states if state.training in ("done", "changed")} | {
        cell.id for cell in coming
    }
    bench = bench_s(plan, [state for state in states if state.cell.id in exported], costs, coming)
    return budget.left - REPORT_S - min(bench, LARGEST_BENCH_SHARE * budget.whole)


@dataclass(frozen=True)
class Clock:
    """Seconds: of the whole run, and what is left of them."""

    whole: float
    left: float


def bench_s(plan: Plan, states: Sequence[CellState], costs: Costs, coming: Sequence[Cell] = ()) -> float:
    """Seconds that measuring these models takes at most; 0 where all is measured.

    Latencies are measured all together as soon as one is new, accuracies one by one.
    """
    new = {cell.id for cell in coming} | {state.cell.id for state in states if state.benching != "done"}
    if not new:
        return 0.0
    accuracies = sum(_accuracy_s(plan, state.cell, costs) for state in states if state.cell.id in new)
    return accuracies + 60 * plan.settings.bench.minutes_per_model * len(states)


def _accuracy_s(plan: Plan, cell: Cell, costs: Costs) -> float:
    if cell.id in costs.accuracy_s:
        return costs.accuracy_s[cell.id]
    return START_S + TEST_IMAGES * costs.macs.get(cell.id, guessed_macs(plan, cell)) / MACS_PER_S


def guessed_macs(plan: Plan, cell: Cell) -> float:
    """A model's multiply-adds for one image, from its settings alone."""
    network = cell.teacher.network
    macs, size = TEACHER_MACS[network.stem]
    whole = macs * network.width**2 * (plan.settings.data.image_size / size) ** 2
    return whole * (1.0 if cell.is_teacher else STUDENT_SHARE)


def tables_that_fit(plan: Plan, states: Sequence[CellState], costs: Costs, seconds: float) -> list[str]:
    """The experiments to measure: as many from the first on as the time allows, at least the one that comes first.

    A table's latencies are of one run and share their teacher with all others, so none is measured by itself later on,
    and those that have been measured are measured again: where there is not enough time for that, a bench that is
    stopped leaves the latencies as they were. Tables without a trained student add nothing; empty where nothing at all
    is exported here.
    """
    done = {state.cell.id: state for state in states if state.training in ("done", "changed")}
    chosen: list[str] = []
    cells: dict[str, CellState] = {}
    measured = [
        number
        for number, table in enumerate(plan.tables)
        if any(cell.id in done and done[cell.id].benching == "done" for cell in table.cells[1:])
    ]
    for number, table in enumerate(plan.tables):
        own = {cell.id: done[cell.id] for cell in table.cells if cell.id in done}
        if not own.keys() - cells.keys() and chosen:
            chosen.append(table.name)
            continue
        needed = not chosen or number <= max(measured, default=-1)
        if own and (needed or bench_s(plan, list({**cells, **own}.values()), costs) <= seconds):
            chosen.append(table.name)
            cells |= own
        elif own:
            break
    return chosen
