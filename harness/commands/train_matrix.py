"""`harness train-matrix`: make what is missing, here or in the GPU image."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from harness.commands.budget import Budget
from harness.commands.scope import Scope
from harness.errors import HarnessError
from harness.plan.planning import Cell, Plan
from harness.plan.specs import code_of
from harness.store.chain import Chain
from harness.store.paths import Paths
from harness.store.records import Record, save
from harness.store.states import CellState, states

if TYPE_CHECKING:
    from harness.training.finishing import Reporter
    from harness.training.ray_tasks import RayCluster

# What to do with finished cells whose plug-ins have changed since: say so and stop, make them again, or declare that
# the change makes no difference.
CodePolicy = Literal["refuse", "redo", "keep"]
# Where models are trained: on this machine, or on a Ray cluster.
ExecutorName = Literal["local", "ray"]
# In place of the ids of cells to make again.
ALL = "all"


def code_policy(given: str) -> CodePolicy:
    """The policy by its name; HarnessError on any other."""
    for policy in get_args(CodePolicy):
        if given == policy:
            return policy
    raise HarnessError(f"--code {given}: unknown; allowed: {', '.join(get_args(CodePolicy))}")


def executor_name(given: str) -> ExecutorName:
    """The executor by its name; HarnessError on any other."""
    for name in get_args(ExecutorName):
        if given == name:
            return name
    raise HarnessError(f"--executor {given}: unknown; allowed: {', '.join(get_args(ExecutorName))}")


@dataclass(frozen=True)
class Request:
    """The options of the command."""

    scope: Scope
    cells: Sequence[str] = ()
    budget: str = ""
    together: int | None = None
    devices: str = ""
    executor: ExecutorName = "local"
    redo: Sequence[str] = ()
    code: CodePolicy = "refuse"

    @property
    def paths(self) -> Paths:
        """The folders to work in."""
        return self.scope.paths

    def wanted(self, plan: Plan) -> list[Cell]:
        """The cells that are named, to make or to make again; all where none is."""
        return plan.named([*self.cells, *self.redone(plan)])

    def redone(self, plan: Plan) -> set[str]:
        """The ids of the cells that are named to be made again. HarnessError where one does not exist."""
        if ALL in self.redo:
            return {cell.id for cell in plan.cells}
        return {cell.id for cell in plan.named(self.redo)} if self.redo else set()


def to_redo(request: Request, plan: Plan, found: Collection[CellState]) -> set[str]:
    """The ids of cells to make again: those named, and those whose code has changed if that is the choice.

    With the choice "keep" the records of these take note that the present code is held to be equivalent. HarnessError
    where there are such cells and no choice was made, or where a cell to make again does not exist.
    """
    again = request.redone(plan)
    wanted = {cell.id for cell in request.wanted(plan)}
    changed = [one for one in found if one.training == "changed" and one.cell.id in wanted - again]
    if not changed or request.code == "redo":
        return again | {one.cell.id for one in changed}
    if request.code == "keep":
        keep_code(request.paths, plan, [one.cell for one in changed])
        return again
    reasons = sorted({one.reason or "" for one in changed})
    raise HarnessError(
        f"{len(changed)} finished models were made by code that has changed since ({'; '.join(reasons)}); choose: "
        f"CODE=redo (--code redo) makes them again, CODE=keep (--code keep) declares that the change is immaterial"
    )


def keep_code(paths: Paths, plan: Plan, cells: Sequence[Cell]) -> list[Path]:
    """Put on record that the present code of these cells' plug-ins is equivalent to the code that made them."""
    chain = Chain(plan, paths.results)
    written = []
    for cell in cells:
        link = chain.train(cell)
        record: Record | None = link.standing
        if record and link.changed:
            update = {"code": code_of(cell.trained), "code_kept": [*record.code_kept, record.code]}
            written.append(save(paths.results, record.model_copy(update=update)))
    return written


@dataclass(frozen=True)
class Outcome:
    """What was made now (ids), what failed and why, how many were wanted, and whether that is all of them."""

    made: list[str]
    failed: dict[str, str]
    wanted: int
    complete: bool


def nothing_to_train(request: Request) -> int | None:
    """How many models are wanted, if all of them are there; None where something is missing. Loads no torch."""
    plan = request.scope.plan()
    found = states(request.paths, plan)
    again = to_redo(request, plan, found)
    if not again and request.code == "keep":
        found = states(request.paths, plan)
    wanted = {cell.id for cell in request.wanted(plan)}
    done = all(state.training == "done" for state in found if state.cell.id in wanted)
    return len(wanted) if done and not again and request.paths.testset(plan.profile, plan.dataset).is_file() else None


def train(
    request: Request,
    say: Callable[[str], None],
    reporter: "Reporter",
    uninterrupted: Callable[[], bool],
    expect: Callable[[Sequence[Cell]], None] = lambda _: None,
) -> Outcome:
    """Make what is missing, within the budget; `expect` is told what that is.

    Raises HarnessError on bad options and missing data.
    """
    from harness.datasets import provide_for
    from harness.plan import registry
    from harness.training.allocation import device_names
    from harness.training.device import choose_device, emulates_bf16, gpu_count
    from harness.training.dispatch import make_on
    from harness.training.pipeline import make_cells
    from harness.training.workers import Workers

    time_box = Budget(request.budget)
    gpus = gpu_count()
    several: list[str] = []
    if request.executor == "local":
        several = device_names(request.devices, gpus) or ([f"cuda:{n}" for n in range(gpus)] if gpus > 1 else [])
    settings = request.scope.settings
    dataset = provide_for(request.paths, settings, request.scope.profile)
    plan = request.scope.plan(dataset)
    wanted = request.wanted(plan)
    found = states(request.paths, plan)
    redo = to_redo(request, plan, found)
    there = {one.cell.id for one in found if one.training not in ("missing", "failed", "recorded")} - redo
    expect([cell for name, cell in {cell.id: cell for cell in (plan.teacher, *wanted)}.items() if name not in there])

    def keep_going() -> bool:
        return uninterrupted() and time_box.lasts()

    title = registry.find("dataset", dataset).title
    if dataset != settings.data.dataset:
        missing = registry.find("dataset", settings.data.dataset).title
        say(f"{missing} can neither be found nor downloaded: training on {title}.")
    by_value = bool(request.budget)
    if several or request.executor == "ray":
        executor = Workers(several) if several else ray_cluster(request.devices)
        say(f"Profile {plan.profile}: {len(wanted)} models on {executor.about}")
        summary = make_on(executor, plan, request.paths, reporter, keep_going, wanted, by_value, request.together, redo)
    else:
        device = choose_device(plan.settings.precision)
        facts = device.facts()
        say(
            f"Profile {plan.profile}: {len(wanted)} models on {facts['device']} "
            f"({facts['threads']} threads, {facts['precision']})"
        )
        if emulates_bf16(device):
            say('This device emulates bf16, which is slow; precision = "fp32" in matrix.toml makes other models.')
        summary = make_cells(
            plan, request.paths, device, reporter, keep_going, wanted, by_value, request.together, redo
        )
    return Outcome(summary.made, summary.failed, len(wanted), summary.complete)


def ray_cluster(device: str) -> "RayCluster":
    """The Ray cluster to train on; HarnessError where Ray is not installed."""
    try:
        from harness.training.ray_tasks import RayCluster
    except ModuleNotFoundError as error:
        raise HarnessError(
            f"--executor ray: no module named {error.name} here; `make train-matrix EXECUTOR=ray` installs Ray "
            f"(requirements/ray.txt)"
        ) from error
    return RayCluster(device)
