"""The verb for a night or a borrowed machine: as much of the matrix as the time allows."""

import signal
from typing import Annotated

import typer

from harness.cli.options import (
    ARTIFACTS,
    MATRIX,
    RESULTS,
    Artifacts,
    Budget,
    Documents,
    Executor,
    Experiment,
    Matrix,
    Profile,
    Results,
    require_one_host,
)
from harness.cli.stopping import STOPPED


def results(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    document: Documents = None,
    budget: Budget = "",
    executor: Executor = "local",
    bench: Annotated[bool, typer.Option("--bench/--no-bench", help="Measure here what is trained.")] = True,
) -> None:
    """Train, export, measure and report as much as the budget allows, the most valuable first; resume the next time.

    A stage that fails is on record under results/<profile>/runs, and the next one starts; exit code 1 says so.
    """
    from harness.commands import budget as budgets
    from harness.commands.scope import Scope
    from harness.commands.subprocess_stage import CommandRunner
    from harness.commands.unattended import Unattended

    require_one_host(executor)
    scope = Scope.of(matrix, profile, results, artifacts, experiment)
    # what is wrong with the settings is said before anything starts
    scope.plan()
    runner = CommandRunner()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: runner.stop())
    where = ["--profile", profile, "--matrix", str(matrix), "--results", str(results), "--artifacts", str(artifacts)]
    which = [word for name in experiment or [] for word in ("--experiment", name)]
    steps = Unattended(
        plan_of=lambda: Scope.of(matrix, profile, results, artifacts, experiment).plan(),
        paths=scope.paths,
        runner=runner,
        whole_s=budgets.seconds(budget) if budget else float("inf"),
        budget=budget,
        common=[*where, *which],
        documents=document or [],
        bench=bench,
    ).run()
    for step in steps:
        took = f" ({step.seconds:.0f} s)" if step.seconds else ""
        print(f"{step.name}: {step.outcome}{took}")
    if runner.stopping:
        raise typer.Exit(STOPPED)
    if any(step.outcome == "failed" for step in steps):
        raise typer.Exit(1)
