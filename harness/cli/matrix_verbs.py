"""The matrix verbs: plan, train and measure everything that matrix.toml asks for."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import (
    ARTIFACTS,
    MATRIX,
    RESULTS,
    Artifacts,
    Budget,
    Code,
    Executor,
    Experiment,
    Json,
    Matrix,
    Memory,
    Profile,
    Redo,
    Results,
    Runner,
    many_objects,
    require_one_host,
)
from harness.cli.stopping import STOPPED, until_interrupted
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.commands.scope import Scope
    from harness.commands.train_matrix import Outcome
    from harness.commands.training_time import TrainingTime
    from harness.plan.planning import Plan
    from harness.store.paths import Paths
    from harness.store.states import CellState

# How often `status --watch` looks again.
WATCH_EVERY_S = 2.0


def plan(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    as_json: Json = False,
    time: Annotated[bool, typer.Option("--time", help="Also how long training will take here: times steps.")] = False,
) -> None:
    """Show the cells, what is done, missing or failed, and what would run. Runs nothing."""
    from harness.commands.overview import as_text
    from harness.commands.scope import Scope

    if not time:
        many_objects()
    scope = Scope.of(matrix, profile, results, artifacts, experiment)
    planned, found = _found(scope)
    if as_json:
        _print_document(planned, found, **(_training_time(scope.paths, planned, found).document if time else {}))
        return
    print(as_text(planned, found, only_counts=False))
    if time:
        print(f"\n{_training_time(scope.paths, planned, found).text}")


def status(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")] = False,
) -> None:
    """Show how far each table has come, as a grid, and the reason of everything that failed."""
    from harness.commands.grid import as_grid
    from harness.commands.overview import as_text
    from harness.commands.scope import Scope

    if not watch:
        many_objects()
    scope = Scope.of(matrix, profile, results, artifacts, experiment)
    if as_json:
        _print_document(*_found(scope))
        return

    def text() -> str:
        planned, found = _found(scope)
        return f"{as_text(planned, found, only_counts=True)}\n\n{as_grid(planned, found, scope.paths)}"

    if not watch:
        print(text())
        return
    from rich.live import Live
    from rich.text import Text

    with Live(Text(text()), auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            sleep(WATCH_EVERY_S)
            live.update(Text(text()), refresh=True)


def _found(scope: "Scope") -> "tuple[Plan, list[CellState]]":
    from harness.store.states import states

    planned = scope.plan()
    return planned, states(scope.paths, planned)


def _print_document(planned: "Plan", found: "list[CellState]", **more: Any) -> None:
    from harness.commands.overview import as_document

    # without indentation, which would take longer than all the rest for thousands of cells
    print(json.dumps(as_document(planned, found) | more))


def _training_time(paths: "Paths", planned: "Plan", found: "list[CellState]") -> "TrainingTime":
    from harness.commands.training_time import training_time

    return training_time(paths, planned, found, lambda what: print(f"timing {what}", file=sys.stderr))


def data(profile: Profile = "full", matrix: Matrix = MATRIX) -> None:
    """Fetch the profile's data set into DATA_DIR or ./data, or say that it is there."""
    from harness.commands.scope import Scope
    from harness.datasets import provide_for
    from harness.plan import registry

    scope = Scope.of(matrix, profile, RESULTS, ARTIFACTS)
    settings = scope.settings
    wanted = registry.find("dataset", settings.data.dataset).title
    used = provide_for(scope.paths, settings, profile)
    if used == settings.data.dataset:
        print(f"{wanted}: in {scope.paths.data}, checksums match.")
    else:
        fallback = registry.find("dataset", used).title
        print(f"{wanted} can neither be found nor downloaded; profile {profile} uses {fallback}.")


def train_matrix(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    budget: Budget = "",
    cell: Annotated[list[str] | None, typer.Option(help="Only this model, by its id; may be repeated.")] = None,
    redo: Redo = None,
    code: Code = "refuse",
    together: Annotated[
        int | None, typer.Option(min=1, help="At most so many networks side by side; else what fits into memory.")
    ] = None,
    devices: Annotated[
        str, typer.Option(help="On this machine: cuda:0,cuda:1 or cpu; without it all GPUs, or the CPU.")
    ] = "",
    executor: Executor = "local",
    runner: Runner = "auto",
    gpus: Annotated[str, typer.Option(help="For the image: auto, all, none, or numbers like 0,2.")] = "auto",
    memory: Memory = "",
    tensorboard: Annotated[Path | None, typer.Option(help="Write every epoch there, for TensorBoard to show.")] = None,
) -> None:
    """Train, prune, distil and export every cell that is not there yet.

    With a budget the most valuable cells come first; without one all students of a seed train side by side.
    """
    from harness.commands.scope import Scope
    from harness.commands.train_matrix import Request, code_policy, executor_name, nothing_to_train, train
    from harness.containers.runner import choose

    scope = Scope.of(matrix, profile, results, artifacts, experiment)
    policy, where = code_policy(code), executor_name(executor)
    request = Request(scope, cell or [], budget, together, devices, where, redo or [], policy)
    # Bad settings are reported before anything is downloaded, and a finished matrix without loading torch.
    if (there := nothing_to_train(request)) is not None:
        print(f"Nothing to train: all {there} models of profile {profile} are there.")
        return
    limits = {"MEMORY": memory, "GPUS": "" if gpus == "auto" else gpus}
    if where == "ray" and runner == "docker":
        raise HarnessError("EXECUTOR=ray trains where the cluster's nodes were started; leave RUNNER=docker out")
    if docker := choose("local" if where == "ray" else runner, "gpu", limits):
        if tensorboard:
            raise HarnessError(f"--tensorboard {tensorboard}: a container writes nothing there; add RUNNER=local")
        from harness.containers.in_docker import train as train_in
        from harness.datasets import provide_for

        # A container has no network: what is to be fetched is fetched here.
        planned = scope.plan(provide_for(scope.paths, scope.settings, profile))
        more = [f"--cell={one}" for one in cell or []] + [f"--redo={one}" for one in redo or []]
        more += [f"--together={together}"] if together else []
        more += [f"--devices={devices}"] if devices else []
        more += [f"--code={code}"] if code != "refuse" else []
        raise typer.Exit(train_in(docker, planned, scope.paths, matrix, experiment or [], budget, gpus, memory, more))
    from harness.cli.tensorboard import Board
    from harness.cli.training_display import Display
    from harness.commands.live_page import LivePage

    uninterrupted = until_interrupted()
    with Display() as display:
        page = LivePage(scope, display.say)
        display.after_cell = page.cell_done
        reporter = Board(tensorboard, display) if tensorboard else display
        outcome = train(request, display.say, reporter, uninterrupted, display.expect)
        # who stops a run, or gives it so much time and no more, waits for nothing else
        if outcome.complete:
            page.ended()
    _close(outcome, out_of_time=uninterrupted())


def _close(outcome: "Outcome", out_of_time: bool) -> None:
    for cell, reason in outcome.failed.items():
        print(f"failed: {cell}: {reason}", file=sys.stderr)
    print(f"{len(outcome.made)} of {outcome.wanted} models made now, {len(outcome.failed)} failed.")
    if not outcome.complete:
        why = "The budget is used up" if out_of_time else "Stopped before the end"
        print(f"{why}; the same command resumes from here.")
        # Running out of a budget is what was asked for.
        raise typer.Exit(0 if out_of_time else STOPPED)
    if outcome.failed:
        raise typer.Exit(1)


def bench(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    code: Code = "refuse",
    again: Annotated[bool, typer.Option("--again", help="Measure every model again, whatever is up to date.")] = False,
    executor: Executor = "local",
    runner: Runner = "auto",
    memory: Memory = "",
) -> None:
    """Measure latency and accuracy of every exported model, in the image or environment with the pinned runtime."""
    from harness.commands.bench_job import (
        matrix_job,
        not_exported,
        require_exported,
        run_bench,
        with_those_measured,
    )
    from harness.commands.live_page import LivePage
    from harness.commands.scope import Scope
    from harness.commands.train_matrix import code_policy
    from harness.containers.runner import choose
    from harness.store.lock import alone

    require_one_host(executor)
    scope = Scope.of(matrix, profile, results, artifacts, experiment)
    asked = scope.plan_to_measure()
    planned = with_those_measured(asked, scope.whole_plan(), scope.paths) if experiment else asked
    if along := len(planned.cells) - len(asked.cells):
        models = f"{along} models of other experiments are" if along > 1 else "a model of another experiment is"
        print(f"{models} measured along: a ratio to the teacher holds within one run.", file=sys.stderr)
    docker, page = choose(runner, "cpu", {"MEMORY": memory}), LivePage(scope)
    require_exported(planned, scope.paths)
    with alone(scope.paths, profile) as lock:
        job = matrix_job(planned, scope.paths, docker is None, code_policy(code), again)
        for cell in not_exported(planned, scope.paths):
            print(f"left out, no ONNX file here: {cell.title}", file=sys.stderr)
        if docker:
            from harness.containers.in_docker import bench as bench_in

            exit_code = bench_in(docker, job, memory)
        else:
            exit_code = run_bench(job, lock)
    # not before: what is measured must not be disturbed
    if exit_code != STOPPED:
        page.ended()
    raise typer.Exit(exit_code)


def images(fresh: Annotated[bool, typer.Option(help="Build from nothing, whatever is there.")] = False) -> None:
    """Build the images whose content has changed, and print the ids and sizes of both."""
    from harness.containers.docker_engine import connect
    from harness.containers.images import CPU, GPU, build

    client = connect()
    for image in (CPU, GPU):
        built = build(client, image, print, fresh)
        how = "unchanged" if built.seconds is None else f"built in {built.seconds:.0f} s"
        print(f"{image.tag}  {built.id}  {built.megabytes:,.0f} MB  {how}")
