"""The matrix verbs: plan, train, measure, check and report everything that matrix.toml asks for."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import (
    ARTIFACTS,
    MATRIX,
    README,
    RESULTS,
    Artifacts,
    Budget,
    Experiment,
    Json,
    Matrix,
    Memory,
    Profile,
    Readme,
    Results,
    Runner,
)
from harness.cli.stopping import STOPPED, until_interrupted


def paths_of(results: Path, artifacts: Path) -> Any:
    """The folders that the options name."""
    from harness.store.paths import Paths, data_root

    return Paths(results, artifacts, data_root())


def plan_for(matrix: Path, profile: str, experiment: list[str] | None, paths: Any, data: Any = None) -> Any:
    """What matrix.toml asks for, over the data set at hand or the one given."""
    from harness.plan.planning import make_plan
    from harness.plan.settings import load_settings

    settings = load_settings(matrix, profile)
    return make_plan(settings, profile, data or paths.data_at_hand(profile), experiment)


def plan(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    as_json: Json = False,
) -> None:
    """Show the cells, what is done, missing or failed, and what would run. Runs nothing."""
    _show(profile, experiment, matrix, results, artifacts, as_json, only_counts=False)


def status(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    as_json: Json = False,
) -> None:
    """Show how far the matrix has come, and the reason of everything that failed."""
    _show(profile, experiment, matrix, results, artifacts, as_json, only_counts=True)


def _show(
    profile: str,
    experiment: list[str] | None,
    matrix: Path,
    results: Path,
    artifacts: Path,
    as_json: bool,
    only_counts: bool,
) -> None:
    from harness.commands.overview import as_document, as_text
    from harness.store.chain import states

    paths = paths_of(results, artifacts)
    planned = plan_for(matrix, profile, experiment, paths)
    found = states(paths, planned)
    if as_json:
        print(json.dumps(as_document(planned, found), indent=1))
    else:
        print(as_text(planned, found, only_counts))


def data(profile: Profile = "full") -> None:
    """Fetch CIFAR-100 into DATA_DIR or ./data, or say that it is there."""
    from harness.store.paths import data_root
    from harness.training.data import provide

    root = data_root()
    if provide(root, allow_stand_in=profile == "quick") == "stand-in":
        print("CIFAR-100 can neither be found nor downloaded; the quick profile uses drawn stand-in images.")
    else:
        print(f"CIFAR-100 is in {root}, checksums match.")


def train_matrix(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    budget: Budget = "",
    cell: Annotated[list[str] | None, typer.Option(help="Only this model, by its id; may be repeated.")] = None,
    together: Annotated[
        int | None, typer.Option(min=1, help="At most so many networks side by side; else what fits into memory.")
    ] = None,
    devices: Annotated[
        str, typer.Option(help="On this machine: cuda:0,cuda:1 or cpu; without it all GPUs, or the CPU.")
    ] = "",
    runner: Runner = "auto",
    gpus: Annotated[str, typer.Option(help="For the image: auto, all, none, or numbers like 0,2.")] = "auto",
    memory: Memory = "",
) -> None:
    """Train, prune, distil and export every cell that is not there yet.

    With a budget the most valuable cells come first; without one all students of a seed train side by side.
    """
    from harness.commands import budget as budgets
    from harness.store.chain import states

    paths = paths_of(results, artifacts)
    time_box = budgets.Budget(budget)
    # Bad settings are reported before anything is downloaded, and a finished matrix without loading torch.
    planned = plan_for(matrix, profile, experiment, paths)
    wanted = planned.named(cell or [])
    found = states(paths, planned)
    complete = all(state.training == "done" for state in found if state.cell.id in {one.id for one in wanted})
    if complete and paths.testset(profile, planned.data).is_file():
        print(f"Nothing to train: all {len(wanted)} models of profile {profile} are there.")
        return
    # In the image there is no room that could start another container.
    if runner != "local":
        from harness.containers.runner import choose

        if docker := choose(runner, "gpu"):
            from harness.containers.in_docker import train
            from harness.training.data import provide

            # A container has no network: what is to be fetched is fetched here.
            provide(paths.data, allow_stand_in=profile == "quick")
            more = [f"--cell={one}" for one in cell or []] + ([f"--together={together}"] if together else [])
            raise typer.Exit(train(docker, planned, paths, matrix, experiment or [], budget, gpus, memory, more))
    from harness.cli.training_display import Display
    from harness.training.allocation import device_names
    from harness.training.data import provide
    from harness.training.device import choose_device, gpu_count
    from harness.training.pipeline import make_cells
    from harness.training.workers import make_on

    there = gpu_count()
    several = device_names(devices, there) or ([f"cuda:{number}" for number in range(there)] if there > 1 else [])
    name = provide(paths.data, allow_stand_in=profile == "quick")
    planned = plan_for(matrix, profile, experiment, paths, name)
    wanted = planned.named(cell or [])
    uninterrupted = until_interrupted()

    def keep_going() -> bool:
        return uninterrupted() and time_box.lasts()

    with Display() as display:
        if name == "stand-in":
            display.say("CIFAR-100 can neither be found nor downloaded: training on drawn stand-in images.")
        if several:
            display.say(f"Profile {profile}: {len(wanted)} models on {', '.join(several)}, a process each")
            summary = make_on(several, planned, paths, display, keep_going, wanted, together)
        else:
            device = choose_device(planned.settings.precision)
            facts = device.facts()
            display.say(
                f"Profile {profile}: {len(wanted)} models on {facts['device']} "
                f"({facts['threads']} threads, {facts['precision']})"
            )
            summary = make_cells(planned, paths, device, display, keep_going, wanted, bool(budget), together)
    _close(summary, len(wanted), out_of_time=uninterrupted())


def bench(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    runner: Runner = "auto",
    memory: Memory = "",
) -> None:
    """Measure latency and accuracy of every exported model, in the image or environment with the pinned runtime."""
    from harness.commands.bench_job import matrix_job, run_bench, untrained
    from harness.containers.runner import choose

    paths = paths_of(results, artifacts)
    planned = plan_for(matrix, profile, experiment, paths)
    docker = choose(runner, "cpu")
    job = matrix_job(planned, paths, local=docker is None)
    for cell in untrained(planned, paths):
        print(f"left out, no ONNX file here: {cell.title}", file=sys.stderr)
    if docker:
        from harness.containers.in_docker import bench as bench_in

        raise typer.Exit(bench_in(docker, job, memory))
    raise typer.Exit(run_bench(job))


def images(fresh: Annotated[bool, typer.Option(help="Build from nothing, whatever is there.")] = False) -> None:
    """Build the images whose content has changed, and print the ids and sizes of both."""
    from harness.containers.docker_engine import connect
    from harness.containers.images import CPU, GPU, build

    client = connect()
    for recipe in (CPU, GPU):
        built = build(client, recipe, print, fresh)
        how = "unchanged" if built.seconds is None else f"built in {built.seconds:.0f} s"
        print(f"{recipe.tag}  {built.id}  {built.megabytes:,.0f} MB  {how}")


def check(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    as_json: Json = False,
) -> None:
    """Go through the records and ONNX files with a list of named checks; exit code 1 on errors."""
    from harness.checks import findings as outcome
    from harness.checks.catalogue import check_results, errors

    planned = plan_for(matrix, profile, experiment, paths_of(results, artifacts))
    findings = check_results(planned, results, artifacts)
    if as_json:
        print(json.dumps(outcome.as_document(planned, findings), indent=1))
    else:
        print(outcome.as_text(planned, findings))
    if any(errors(findings)):
        raise typer.Exit(1)


def verify(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    readme: Readme = README,
    as_json: Json = False,
) -> None:
    """Walk every number back: tables, records, raw samples, ONNX files, weights, keys; a line and exit 1 per break."""
    from harness.checks.catalogue import STRICT, errors, run_checks
    from harness.checks.evidence import read_evidence
    from harness.checks.files_on_disk import walked
    from harness.reporting.report import check_report, stale_tables

    planned = plan_for(matrix, profile, experiment, paths_of(results, artifacts))
    evidence = read_evidence(planned, results, artifacts)
    breaks = [f"{one.cell} {one.stage}: {one.reason} ({one.check})" for one in errors(run_checks(evidence, STRICT))]
    breaks += stale_tables(planned, results)
    if readme.is_file():
        of_profile = f"of profile {profile} "
        breaks += [
            line for line in check_report(readme, results, lambda name: _whole_plan(matrix, name)) if of_profile in line
        ]
    counts = walked(evidence)
    if as_json:
        print(json.dumps({"profile": profile, "walked": counts, "breaks": breaks}, indent=1))
    else:
        for line in breaks:
            print(f"break: {line}")
        print(
            f"verify {profile}: {', '.join(f'{count} {what}' for what, count in counts.items())}; "
            f"{len(STRICT)} checks: {len(breaks) or 'no'} break{'' if len(breaks) == 1 else 's'}."
        )
    if breaks:
        raise typer.Exit(1)


def compare(
    before: Annotated[Path, typer.Argument(help="A folder like results/lite.", metavar="BEFORE")],
    after: Annotated[Path, typer.Argument(help="The same folder of another run.", metavar="AFTER")],
) -> None:
    """List what changed between two results folders beyond chance; other machines, images or keys are an error."""
    from harness.checks.comparison import as_text
    from harness.checks.comparison import compare as compare_folders

    print(as_text(before, after, compare_folders(before, after)))


def report(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    readme: Readme = README,
) -> None:
    """Check the records, write the tables and figures, and fill in the README's tables of this profile."""
    from harness.checks import findings as outcome
    from harness.checks.catalogue import check_results
    from harness.plan.settings import profile_names
    from harness.reporting.report import write_report

    planned = plan_for(matrix, profile, experiment, paths_of(results, artifacts))
    # A failing row is shown as failed; what else is wrong, and what to do about it, is said here.
    print(outcome.as_text(planned, check_results(planned, results, artifacts)) + "\n", file=sys.stderr)
    made = write_report(planned, results, readme, profile_names(matrix))
    print(made.text + "\n")
    for said, paths in {"Written": made.written, "Unchanged": made.unchanged}.items():
        if paths:
            print(f"{said}: {', '.join(map(str, paths))}")


def report_check(matrix: Matrix = MATRIX, results: Results = RESULTS, readme: Readme = README) -> None:
    """Fail where a table in the README is not what the records say."""
    from harness.reporting.report import check_report

    stale = check_report(readme, results, lambda profile: _whole_plan(matrix, profile))
    for line in stale:
        print(line, file=sys.stderr)
    if stale:
        raise typer.Exit(1)
    print(f"{readme}: every table follows from the records.")


def _whole_plan(matrix: Path, profile: str) -> Any:
    from harness.plan.planning import make_plan
    from harness.plan.settings import load_settings

    settings = load_settings(matrix, profile)
    return make_plan(settings, profile, "cifar100", [experiment.name for experiment in settings.experiment])


def _close(summary: Any, wanted: int, out_of_time: bool) -> None:
    for cell, reason in summary.failed.items():
        print(f"failed: {cell}: {reason}", file=sys.stderr)
    print(f"{len(summary.made)} of {wanted} models made now, {len(summary.failed)} failed.")
    if not summary.complete:
        why = "The budget is used up" if out_of_time else "Stopped before the end"
        print(f"{why}; the same command goes on from here.")
        # Running out of a budget is what was asked for.
        raise typer.Exit(0 if out_of_time else STOPPED)
    if summary.failed:
        raise typer.Exit(1)
