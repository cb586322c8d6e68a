"""What is on record of the full-width profile, and how far `plan --time` is from the time that training then takes.

The forecast is tried on a profile that trains in minutes: the full-width one takes a night. It needs a quiet machine.
"""

import tempfile
import time
from pathlib import Path

from benchmarks import ROOT, Figures
from benchmarks.workload import Silent
from harness.commands.scope import Scope
from harness.plan.planning import Cell, Plan
from harness.store.chain import Chain
from harness.store.records import TrainRecord
from harness.training.device import choose_device
from harness.training.forecast import forecast
from harness.training.pipeline import make_cells

PROFILE, TRIED = "overnight", "quick"


class Mute(Silent):
    """A reporter that says nothing."""

    def stage(self, *_: object) -> None:
        """See harness.training.finishing.Reporter."""

    def cell(self, *_: object) -> None:
        """See harness.training.finishing.Reporter."""


def measure() -> Figures:
    """Every figure; those of models that are not on record yet are None."""
    return {**_on_record(), **_forecast_error()}


def _on_record() -> Figures:
    scope = Scope.of(ROOT / "matrix.toml", PROFILE, ROOT / "results", ROOT / "artifacts")
    plan = scope.plan()
    chain = Chain(plan, scope.paths.results)
    trained = {cell.id: record for cell in plan.cells if (record := chain.train(cell).standing)}
    teacher = trained.get(plan.teacher.id)
    measured = [one.ratio_to_teacher for cell in plan.cells if (one := chain.latency(cell).standing)]
    halves = [50 * (one.bounds[1] - one.bounds[0]) / one.value for one in measured if one and one.bounds]
    return {
        "profile": PROFILE,
        "device": str(teacher.environment["device"]) if teacher else None,
        # sparse training is in no record of its own, and not counted
        "overnight_hours": sum(record.seconds for record in trained.values()) / 3600 if teacher else None,
        "teacher_hours": teacher.seconds / 3600 if teacher else None,
        "teacher_accuracy_pct": teacher.accuracy_pct if teacher else None,
        "students_done": len(trained) - bool(teacher),
        "worst_bn_0.3_loss_points": _worst(plan, trained, 0.3),
        "worst_bn_0.4_loss_points": _worst(plan, trained, 0.4),
        "ratio_halfwidth_pct_max": max(halves, default=None),
    }


def _worst(plan: Plan, trained: dict[str, TrainRecord], amount: float) -> float | None:
    """By how many points the worst student of the study's that BN pruned stays behind its teacher."""

    def of_bn(cell: Cell) -> bool:
        return (cell.protocol, cell.prune_method, cell.prune_amount) == ("study", "bn", amount)

    teacher = trained.get(plan.teacher.id)
    found = [trained[cell.id].accuracy_pct for cell in plan.cells if of_bn(cell) and cell.id in trained]
    if teacher is None or teacher.accuracy_pct is None:
        return None
    return max((teacher.accuracy_pct - one for one in found if one is not None), default=None)


def _forecast_error() -> Figures:
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        scope = Scope.of(ROOT / "matrix.toml", TRIED, Path(folder) / "results", Path(folder) / "artifacts")
        plan = scope.plan()
        device = choose_device(plan.settings.precision)
        said = forecast(plan, scope.paths, device, plan.cells).total_s
        started = time.monotonic()
        make_cells(plan, scope.paths, device, Mute())
        took = time.monotonic() - started
    return {"plan_said_s": said, "plan_took_s": took, "plan_error_pct": 100 * abs(said / took - 1)}
