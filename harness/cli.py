"""Commands: parse, call, print. What a command needs is imported inside it, so that --help stays instant."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import HarnessError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Compressed networks from matrix.toml: train, export, measure, report.",
)

Matrix = Annotated[Path, typer.Option(help="The matrix file.")]
Profile = Annotated[str, typer.Option(help="quick, lite, full or reference.")]
Experiment = Annotated[list[str] | None, typer.Option(help="Only this experiment; may be repeated.")]
Results = Annotated[Path, typer.Option(help="Where records and tables are written.")]
Artifacts = Annotated[Path, typer.Option(help="Where weights, ONNX files and checkpoints are written.")]
Readme = Annotated[Path, typer.Option(help="The file whose marked tables are filled in.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

MATRIX, RESULTS, ARTIFACTS, README = Path("matrix.toml"), Path("results"), Path("artifacts"), Path("README.md")
STOPPED = 130


def main() -> None:
    """Run the command line; a HarnessError is one line on stderr and exit code 2."""
    # Whoever reads a log file wants the lines as they come.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        app()
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(STOPPED)


def _paths(results: Path, artifacts: Path) -> Any:
    from harness.paths import Paths, data_root

    return Paths(results, artifacts, data_root())


def _plan(matrix: Path, profile: str, experiment: list[str] | None, paths: Any, data: Any = None) -> Any:
    from harness.matrix import make_plan
    from harness.settings import load_settings

    settings = load_settings(matrix, profile)
    return make_plan(settings, profile, data or paths.data_at_hand(profile), experiment)


@app.command()
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


@app.command()
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
    from harness.overview import as_document, as_text
    from harness.status import states

    paths = _paths(results, artifacts)
    planned = _plan(matrix, profile, experiment, paths)
    found = states(paths, planned)
    if as_json:
        print(json.dumps(as_document(planned, found), indent=1))
    else:
        print(as_text(planned, found, only_counts))


@app.command()
def data(profile: Profile = "full") -> None:
    """Fetch CIFAR-100 into DATA_DIR or ./data, or say that it is there."""
    from harness.paths import data_root
    from harness.training.data import provide

    root = data_root()
    if provide(root, allow_stand_in=profile == "quick") == "stand-in":
        print("CIFAR-100 can neither be found nor downloaded; the quick profile uses drawn stand-in images.")
    else:
        print(f"CIFAR-100 is in {root}, checksums match.")


@app.command("train-matrix")
def train_matrix(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    budget: Annotated[str, typer.Option(help="Stop cleanly before this much time is up: 90s, 9m, 1h30m.")] = "",
) -> None:
    """Train, prune, distil and export every cell that is not there yet."""
    from harness.budget import Budget
    from harness.status import states

    paths = _paths(results, artifacts)
    time_box = Budget(budget)
    # Bad settings are reported before anything is downloaded, and a finished matrix without loading torch.
    planned = _plan(matrix, profile, experiment, paths)
    complete = all(state.training == "done" for state in states(paths, planned))
    if complete and paths.testset(profile, planned.data).is_file():
        print(f"Nothing to train: all {len(planned.cells)} models of profile {profile} are there.")
        return
    from harness.progress import Display
    from harness.training.data import provide
    from harness.training.device import choose_device
    from harness.training.make import make_cells

    name = provide(paths.data, allow_stand_in=profile == "quick")
    planned = _plan(matrix, profile, experiment, paths, name)
    device = choose_device(planned.settings.precision)
    facts = device.facts()
    uninterrupted = _until_interrupted()
    with Display() as display:
        display.say(
            f"Profile {profile}: {len(planned.cells)} models on {facts['device']} "
            f"({facts['threads']} threads, {facts['precision']})"
        )
        if name == "stand-in":
            display.say("CIFAR-100 can neither be found nor downloaded: training on drawn stand-in images.")
        summary = make_cells(planned, paths, device, display, lambda: uninterrupted() and time_box.lasts())
    _close(summary, len(planned.cells), out_of_time=uninterrupted())


@app.command()
def bench(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
) -> None:
    """Measure latency and accuracy of every exported model, in the environment with the pinned runtime."""
    from harness.launching.local import matrix_job, run_bench, untrained

    paths = _paths(results, artifacts)
    planned = _plan(matrix, profile, experiment, paths)
    job = matrix_job(planned, paths)
    for cell in untrained(planned, paths):
        print(f"left out, no ONNX file here: {cell.title}", file=sys.stderr)
    raise typer.Exit(run_bench(job))


@app.command()
def check(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    as_json: Json = False,
) -> None:
    """Go through the records and ONNX files with a list of named checks; exit code 1 on errors."""
    from harness.checking import outcome
    from harness.checking.checks import check_results, errors

    planned = _plan(matrix, profile, experiment, _paths(results, artifacts))
    findings = check_results(planned, results, artifacts)
    if as_json:
        print(json.dumps(outcome.as_document(planned, findings), indent=1))
    else:
        print(outcome.as_text(planned, findings))
    if any(errors(findings)):
        raise typer.Exit(1)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A folder like results/lite.", metavar="BEFORE")],
    after: Annotated[Path, typer.Argument(help="The same folder of another run.", metavar="AFTER")],
) -> None:
    """List what changed between two results folders beyond chance; other machines, images or keys are an error."""
    from harness.checking.compare import as_text
    from harness.checking.compare import compare as compare_folders

    print(as_text(before, after, compare_folders(before, after)))


@app.command()
def report(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    readme: Readme = README,
) -> None:
    """Check the records, write the tables and figures, and fill in the README's tables of this profile."""
    from harness.checking import outcome
    from harness.checking.checks import check_results
    from harness.reporting.report import write_report
    from harness.settings import profile_names

    paths = _paths(results, artifacts)
    planned = _plan(matrix, profile, experiment, paths)
    # A failing row is shown as failed; what else is wrong, and what to do about it, is said here.
    print(outcome.as_text(planned, check_results(planned, results, artifacts)) + "\n", file=sys.stderr)
    written = write_report(planned, results, readme, profile_names(matrix))
    print(written.text)
    print("\nWritten: " + ", ".join(str(path) for path in written.paths))


@app.command("report-check")
def report_check(
    matrix: Matrix = MATRIX, results: Results = RESULTS, artifacts: Artifacts = ARTIFACTS, readme: Readme = README
) -> None:
    """Fail where a table in the README is not what the records say."""
    from harness.reporting.report import check_report

    paths = _paths(results, artifacts)
    stale = check_report(readme, results, lambda profile: _whole_plan(matrix, profile, paths))
    for line in stale:
        print(line, file=sys.stderr)
    if stale:
        raise typer.Exit(1)
    print(f"{readme}: every table follows from the records.")


def _whole_plan(matrix: Path, profile: str, paths: Any) -> Any:
    from harness.matrix import make_plan
    from harness.settings import load_settings

    settings = load_settings(matrix, profile)
    return make_plan(settings, profile, "cifar100", [experiment.name for experiment in settings.experiment])


@app.command()
def train(
    orig_model: Annotated[
        Path | None,
        typer.Option(help="Teacher: our .safetensors or a .pt state dict. Without it the teacher is trained."),
    ] = None,
    prune_amount: Annotated[float, typer.Option(help="Share of channels to remove.")] = 0.3,
    prune_method: Annotated[str, typer.Option(help="L1, BN or GN.")] = "GN",
    kd_method: Annotated[str, typer.Option(help="0 or base, 1 or fmse, 3 or gram.")] = "1",
    seed: Annotated[int, typer.Option(help="Seed of data order, pruning and new weights.")] = 0,
    outp_dir: Annotated[Path, typer.Option(help="Where the model is saved.")] = Path("pmodels"),
    epochs: Annotated[int | None, typer.Option(help="Epochs per stage, in place of the profile's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="In place of the profile's.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of cifar-100-python.")] = None,
    profile: Profile = "full",
    protocol: Annotated[str, typer.Option(help="study or controlled.")] = "study",
    matrix: Matrix = MATRIX,
) -> None:
    """Train one compressed model, as the reference study's train.py does."""
    from harness.matrix import kd_name
    from harness.progress import Display
    from harness.training.single import Request, train_one

    request = Request(
        orig_model, prune_amount, prune_method.lower(), kd_name(kd_method), seed, protocol, epochs, batch_size
    )
    with Display() as display:
        made = train_one(request, matrix, profile, outp_dir, data_dir, display, _until_interrupted())
    if made is None:
        print("Stopped before the end; the same command goes on from here.")
        raise typer.Exit(STOPPED)
    print(f"saved: {made}")


@app.command("export")
def export_model(
    torch_file: Annotated[Path, typer.Option(help="Our .safetensors or a .pt state dict.")],
    out_file: Annotated[Path, typer.Option(help="The ONNX file to write.")],
) -> None:
    """Export one model to ONNX and hold it against torch."""
    from harness.training.single import export_one

    done = export_one(torch_file, out_file)
    print(
        f"{out_file}: {done.params / 1e6:.2f} M parameters, top-1 as torch's on {done.parity_top1_agreement_pct:.1f} % "
        f"of the images, logits within {done.parity_max_abs_diff:.1g}"
    )


@app.command("test")
def test_model(
    onnx_file: Annotated[Path, typer.Option(help="An ONNX file that `export` or `train-matrix` wrote.")],
    profile: Profile = "full",
    matrix: Matrix = MATRIX,
) -> None:
    """Print parameters, latency and accuracy of one ONNX file, measured as `bench` does."""
    from harness.launching.single import measure_one

    measured = measure_one(onnx_file, matrix, profile)
    print(f"Parameters: {measured.params / 1e6:.2f} M")
    print(f"Latency: {measured.latency.value:.3f} ms [{measured.latency.low:.3f}, {measured.latency.high:.3f}]")
    print(f"Accuracy: {measured.accuracy_pct:.2f} %")


@app.command()
def benchmarks() -> None:
    """Time the harness itself in a fresh clone, into results/benchmarks/main.json."""
    from harness.benchmarks import run_all

    run_all()


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


def _until_interrupted() -> Callable[[], bool]:
    """A function that is True until Ctrl-C or a polite kill; the second one ends the process at once."""
    stopped = False

    def stop(number: int, frame: Any) -> None:
        nonlocal stopped
        if stopped:
            raise KeyboardInterrupt
        stopped = True
        print("\nStopping after this step, work is kept. Again to stop at once.", file=sys.stderr)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return lambda: not stopped
