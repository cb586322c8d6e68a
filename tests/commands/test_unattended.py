"""The run's decisions, with commands that leave what the real ones would; tests/test_carrying.py has the real ones."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.commands.subprocess_stage import Ended
from harness.commands.unattended import Step, Unattended
from harness.plan.planning import Plan
from harness.store.paths import Paths
from harness.store.records import ExportRecord, Record, TrainRecord, save
from tests.synthetic import plan_for, records_for

Effect = Callable[[Sequence[str]], Ended | None]


def options(arguments: Sequence[str], name: str) -> list[str]:
    return [value for at, value in pairwise(arguments) if at == name]


@dataclass
class Machine:
    """Commands that succeed at once and leave records and files; `effects` take the place of single ones, by verb."""

    plan: Plan
    paths: Paths
    effects: dict[str, Effect] = field(default_factory=dict)
    stopping: bool = False
    calls: list[list[str]] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)

    def run(self, arguments: Sequence[str], limit_s: float) -> Ended:
        self.calls.append(list(arguments))
        self.limits.append(limit_s)
        effect = self.effects.get(arguments[0])
        ended = effect(arguments) if effect else None
        if ended:
            return ended
        if arguments[0] == "train-matrix":
            for name in options(arguments, "--cell"):
                self.leave(name, TrainRecord, ExportRecord)
        return Ended(0, 1.0, False, [])

    def leave(self, name: str, *kinds: type[Record]) -> None:
        (cell,) = self.plan.named([name])
        for record in records_for(self.plan, cell):
            if isinstance(record, kinds):
                save(self.paths.results, record)
        folder = cell.artifacts(self.paths.artifacts, self.plan.profile)
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("weights.safetensors", "model.onnx"):
            (folder / file).write_text(name)

    @property
    def verbs(self) -> list[str]:
        return [call[0] for call in self.calls]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(plan_for("lite"), Paths(tmp_path / "results", tmp_path / "artifacts", tmp_path / "data"))


def unattended(machine: Machine, whole_s: float = 36_000.0, **more: Any) -> list[Step]:
    common = ["--profile", "lite"]
    return Unattended(
        plan_of=lambda: machine.plan,
        paths=machine.paths,
        runner=machine,
        whole_s=whole_s,
        budget="10h",
        common=common,
        say=lambda _: None,
        **more,
    ).run()


def logs(machine: Machine) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((machine.paths.results / "lite/runs").glob("*.json"))]


def test_with_time_enough_everything_is_made_in_the_order_of_value_then_measured_then_reported(
    machine: Machine,
) -> None:
    steps = unattended(machine)
    assert machine.verbs == ["train-matrix"] * 4 + ["bench", "report"]
    assert [options(call, "--cell")[0] for call in machine.calls[:4]] == [
        "teacher-s0",
        "p0.3-bn-base-s0",
        "p0.3-l1-base-s0",
        "p0.4-l1-base-s0",
    ]
    assert {step.outcome for step in steps} == {"done"}
    assert options(machine.calls[4], "--experiment") == ["prune-0.3", "prune-0.4"]
    (log,) = logs(machine)
    assert [stage["name"].split()[0] for stage in log["stages"]] == ["train"] * 4 + ["bench", "report"]
    assert log["models"]["done"] == 19 and log["budget"] == "10h"


def test_a_document_is_filled_in_only_if_it_is_named(machine: Machine) -> None:
    """Left to itself the report fills in this checkout's documents from this checkout's results, and from no others."""
    unattended(machine)
    assert options(machine.calls[-1], "--document") == []
    unattended(machine, documents=[Path("notes.md")])
    assert options(machine.calls[-1], "--document") == ["notes.md"]


def test_the_next_call_finds_nothing_to_train(machine: Machine) -> None:
    unattended(machine)
    machine.calls.clear()
    unattended(machine)
    assert machine.verbs == ["bench", "report"]


def test_a_crash_is_on_record_with_its_last_words_and_the_rest_goes_on(machine: Machine) -> None:
    def crash(arguments: Sequence[str]) -> Ended | None:
        fails = "p0.3-bn-base-s0" in options(arguments, "--cell")
        return Ended(-9, 2.0, False, ["out of memory"]) if fails else None

    machine.effects["train-matrix"] = crash
    steps = unattended(machine)
    assert [step.outcome for step in steps] == ["done", "failed", "done", "done", "done", "done"]
    assert machine.verbs[-2:] == ["bench", "report"]
    (log,) = logs(machine)
    failed = log["stages"][1]
    assert (failed["exit_code"], failed["last_words"]) == (-9, ["out of memory"])
    assert failed["cells"] == ["p0.3-bn-base-s0", "p0.3-bn-fmse-s0", "p0.3-bn-gram-s0"]


def test_a_bench_that_fails_is_followed_by_the_report(machine: Machine) -> None:
    machine.effects["bench"] = lambda _: Ended(2, 1.0, False, ["error: no .venvs"])
    steps = unattended(machine)
    assert [step.outcome for step in steps[-2:]] == ["failed", "done"]


def test_training_that_runs_out_of_time_is_followed_by_the_bench_of_what_is_there(machine: Machine) -> None:
    machine.effects["train-matrix"] = lambda arguments: (
        Ended(0, 1.0, False, []) if "p0.3-l1-base-s0" in options(arguments, "--cell") else None
    )
    steps = unattended(machine)
    assert machine.verbs == ["train-matrix"] * 3 + ["bench", "report"], "the third group was not finished"
    assert options(machine.calls[3], "--experiment") == ["prune-0.3", "prune-0.4"]
    assert {step.outcome for step in steps} == {"done"}


def test_training_gets_a_budget_that_leaves_time_for_the_bench(machine: Machine) -> None:
    unattended(machine, whole_s=3600.0)
    for call, limit in zip(machine.calls[:4], machine.limits[:4], strict=True):
        (budget,) = options(call, "--budget")
        assert 1800 - 30 <= int(budget.removesuffix("s")) <= limit < 3600 - 20
    # the more models there will be, the more time is kept
    assert machine.limits[:4] == sorted(machine.limits[:4], reverse=True)


def test_without_a_budget_nothing_is_limited_and_all_students_train_together(machine: Machine) -> None:
    unattended(machine, whole_s=float("inf"))
    assert [len(options(call, "--cell")) for call in machine.calls[:2]] == [1, 18]
    assert all(not options(call, "--budget") for call in machine.calls)


def test_too_little_time_trains_nothing_and_says_so(machine: Machine) -> None:
    steps = unattended(machine, whole_s=45.0)
    assert machine.verbs == ["report"]
    assert "no time" in steps[0].outcome and steps[1].outcome == "skipped: no exported model here"


def test_no_bench_gives_training_the_whole_time(machine: Machine) -> None:
    steps = unattended(machine, whole_s=3600.0, bench=False)
    assert "bench" not in machine.verbs and "another machine" in steps[-2].outcome
    assert all(3560 < limit < 3600 - 19 for limit in machine.limits[:4])


def test_a_teacher_that_is_only_on_record_is_asked_for_and_none_is_trained_in_its_place(machine: Machine) -> None:
    (teacher,) = machine.plan.named(["teacher-s0"])
    machine.leave(teacher.id, TrainRecord, ExportRecord)
    (teacher.artifacts(machine.paths.artifacts, "lite") / "weights.safetensors").unlink()
    steps = unattended(machine)
    assert "train-matrix" not in machine.verbs
    assert "its weights are not here: unpack them" in steps[0].outcome


def test_stopping_ends_it_after_the_present_stage(machine: Machine) -> None:
    def stop(_: Sequence[str]) -> Ended:
        machine.stopping = True
        return Ended(0, 1.0, True, [])

    machine.effects["train-matrix"] = stop
    steps = unattended(machine)
    assert machine.verbs == ["train-matrix"] and [step.outcome for step in steps] == ["stopped"]
    assert logs(machine)[0]["stages"][0]["outcome"] == "stopped"
