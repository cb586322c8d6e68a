"""`harness plan --time`: how long what is missing will take to train here, in words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from harness.commands.budget import clock
from harness.plan.planning import Plan
from harness.store.paths import Paths
from harness.store.states import CellState

if TYPE_CHECKING:
    from harness.training.forecast import Forecast


@dataclass(frozen=True)
class TrainingTime:
    """A forecast, and the device that it is for."""

    plan: Plan
    forecast: "Forecast"
    device: str

    @property
    def document(self) -> dict[str, Any]:
        """The seconds as plain JSON values."""
        seconds = {"cells": self.forecast.cells, "shared": self.forecast.shared, "all": self.forecast.total_s}
        return {"training_s": seconds, "device": self.device}

    @property
    def text(self) -> str:
        """A table of durations, and their sum."""
        titles = {cell.id: cell.title for cell in self.plan.cells}
        rows = [(titles[name], clock(seconds)) for name, seconds in self.forecast.cells.items()]
        rows += [(what, clock(seconds)) for what, seconds in self.forecast.shared.items()]
        if not rows:
            return "Nothing is left to train."
        table = tabulate([*rows, ("in all", clock(self.forecast.total_s))], headers=("Training", "Time"))
        return f"On {self.device}, by a step of each network at each size:\n\n{table}"


def training_time(paths: Paths, plan: Plan, states: list[CellState], say: Callable[[str], None]) -> TrainingTime:
    """Time what is missing; `say` is told what is being timed. HarnessError where the data set is not here."""
    from harness.training.device import choose_device
    from harness.training.forecast import forecast

    device = choose_device(plan.settings.precision)
    facts = device.facts()
    missing = [state.cell for state in states if state.training in ("missing", "failed")]
    name = f"{facts['device']} ({facts['threads']} threads, {facts['precision']})"
    return TrainingTime(plan, forecast(plan, paths, device, missing, say), name)
