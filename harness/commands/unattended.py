"""All of it: the teacher, the students by value, latency and accuracy, the tables; with a log of what became of each.

Every stage is a process of its own: one that fails, crashes or runs out of memory is on record, and the next starts.
The log is results/<profile>/runs/<when>.json, rewritten after every stage.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.commands.schedule import (
    LEAST_TRAINING_S,
    REPORT_S,
    Clock,
    Costs,
    next_cells,
    tables_that_fit,
    training_s,
)
from harness.commands.subprocess_stage import Ended
from harness.files import write_text
from harness.plan.planning import Cell, Plan
from harness.store.chain import Chain
from harness.store.paths import Paths
from harness.store.records import now
from harness.store.revision import revision
from harness.store.states import CellState, counts, states

# Names of cells that a line has room for.
NAMED = 3


class Runs(Protocol):
    """What runs a command: harness.commands.subprocess_stage.CommandRunner."""

    stopping: bool

    def run(self, arguments: Sequence[str], limit_s: float) -> Ended:
        """`python -m harness ARGUMENTS`."""


@dataclass(frozen=True)
class Step:
    """A stage as the log has it. `outcome`: done, stopped (its time was up), failed, or skipped with the reason."""

    name: str
    outcome: str
    seconds: float = 0.0
    exit_code: int | None = None
    cells: list[str] = field(default_factory=list)
    last_words: list[str] = field(default_factory=list)


@dataclass
class Unattended:
    """One run. `common` are the options that every verb gets, `plan_of` gives the plan over the data at hand then."""

    plan_of: Callable[[], Plan]
    paths: Paths
    runner: Runs
    whole_s: float
    budget: str
    common: list[str]
    documents: Sequence[Path] = ()
    bench: bool = True
    say: Callable[[str], None] = print
    steps: list[Step] = field(default_factory=list)
    started_at: str = field(default_factory=now)
    _started: float = field(default_factory=time.monotonic)

    def run(self) -> list[Step]:
        """Everything that there is time for; what became of each stage."""
        self._train()
        if self.bench:
            self._bench()
        else:
            self._skip("bench", "--no-bench: to be measured on another machine")
        self._report()
        return self.steps

    @property
    def left_s(self) -> float:
        """Seconds until the time is up."""
        return self.whole_s - (time.monotonic() - self._started)

    # --- training ---------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        tried: set[str] = set()
        unlimited = self.whole_s == float("inf")
        while not self.runner.stopping:
            plan, found = self._now()
            cells = next_cells(plan, found, tried, all_at_once=unlimited)
            if not cells:
                self._say_why_nothing_is_left(plan, found)
                return
            if self.bench:
                seconds = training_s(plan, found, cells, self._costs(plan), Clock(self.whole_s, self.left_s))
            else:
                seconds = self.left_s - REPORT_S
            if seconds < LEAST_TRAINING_S:
                self._skip(f"train {_named(cells)}", f"no time: {max(seconds, 0):.0f} s before measuring has to begin")
                return
            box = [] if unlimited else ["--budget", f"{int(seconds)}s"]
            only = [word for cell in cells for word in ("--cell", cell.id)]
            ended = self._stage(f"train {_named(cells)}", ["train-matrix", *self.common, *box, *only], seconds, cells)
            tried |= {cell.id for cell in cells}
            if ended.outcome == "stopped" or (ended.outcome == "done" and not self._settled(cells)):
                # Out of time: the next run resumes from its checkpoint.
                return

    def _settled(self, cells: Sequence[Cell]) -> bool:
        wanted = {cell.id for cell in cells}
        _, found = self._now()
        return all(state.training in ("done", "changed", "failed") for state in found if state.cell.id in wanted)

    def _say_why_nothing_is_left(self, plan: Plan, found: Sequence[CellState]) -> None:
        teacher = next(state for state in found if state.cell.is_teacher)
        missing = [state.cell for state in found if state.training == "missing"]
        if missing and teacher.training == "recorded":
            self._skip(f"train {_named(missing)}", "the teacher is on record, its weights are not here: unpack them")
        elif missing and teacher.training == "failed":
            self._skip(f"train {_named(missing)}", f"the teacher failed: {teacher.reason}")

    # --- measuring and reporting ------------------------------------------------------------------------------------

    def _bench(self) -> None:
        if self.runner.stopping:
            return
        plan, found = self._now()
        seconds = self.left_s - REPORT_S
        tables = tables_that_fit(plan, found, self._costs(plan), seconds)
        if not tables:
            self._skip("bench", "no exported model here")
        elif seconds <= 0:
            self._skip("bench", "no time left")
        else:
            only = [word for table in tables for word in ("--experiment", table)]
            self._stage(f"bench {', '.join(tables)}", ["bench", *_without_experiments(self.common), *only], seconds)

    def _report(self) -> None:
        if not self.runner.stopping:
            named = [word for path in self.documents for word in ("--document", str(path))]
            self._stage("report", ["report", *self.common, *named], max(self.left_s, REPORT_S))

    # --- common to all ----------------------------------------------------------------------------------------------

    def _now(self) -> tuple[Plan, list[CellState]]:
        plan = self.plan_of()
        return plan, states(self.paths, plan)

    def _costs(self, plan: Plan) -> Costs:
        macs, seconds = {}, {}
        chain = Chain(plan, self.paths.results)
        for cell in plan.cells:
            train, accuracy = chain.train(cell).standing, chain.accuracy(cell).standing
            if train and train.macs:
                macs[cell.id] = train.macs
            if accuracy:
                seconds[cell.id] = accuracy.seconds
        return Costs(macs, seconds)

    def _stage(self, name: str, arguments: list[str], limit_s: float, cells: Sequence[Cell] = ()) -> Ended:
        left = f", {limit_s:.0f} s at most" if limit_s != float("inf") else ""
        self.say(f"==> {name}{left}")
        ended = self.runner.run(arguments, limit_s)
        words = ended.last_words if ended.outcome == "failed" else []
        outcome = ended.outcome
        self._note(Step(name, outcome, ended.seconds, ended.code, [cell.id for cell in cells], words))
        if outcome != "done":
            self.say(f"==> {name}: {outcome} (exit code {ended.code}); continuing")
        return ended

    def _skip(self, name: str, reason: str) -> None:
        self.say(f"==> {name}: skipped ({reason})")
        self._note(Step(name, f"skipped: {reason}"))

    def _note(self, step: Step) -> None:
        self.steps.append(step)
        plan, found = self._now()
        document = {
            "profile": plan.profile,
            "started_at": self.started_at,
            "ended_at": now(),
            "seconds": time.monotonic() - self._started,
            "budget": self.budget or None,
            "harness_revision": revision(),
            "devices": self._devices(plan),
            "stages": [asdict(one) for one in self.steps],
            "models": counts(found),
        }
        name = self.started_at.replace(":", "").replace("+0000", "Z")
        write_text(self.paths.results / plan.profile / "runs" / f"{name}.json", json.dumps(document, indent=1) + "\n")

    def _devices(self, plan: Plan) -> list[Any]:
        """Where the models were trained that ended in this run."""
        chain = Chain(plan, self.paths.results)
        trained = (chain.train(cell).standing for cell in plan.cells)
        return sorted(
            {str(one.environment.get("device")) for one in trained if one and one.finished_at >= self.started_at}
        )


def _named(cells: Sequence[Cell]) -> str:
    named = ", ".join(cell.id for cell in cells[:NAMED])
    return named + (f" and {len(cells) - NAMED} more" if len(cells) > NAMED else "")


def _without_experiments(options: Sequence[str]) -> list[str]:
    """The options less --experiment NAME."""
    kept = list(options)
    while "--experiment" in kept:
        at = kept.index("--experiment")
        del kept[at : at + 2]
    return kept
