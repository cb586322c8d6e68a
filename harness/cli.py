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
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

MATRIX, RESULTS, ARTIFACTS = Path("matrix.toml"), Path("results"), Path("artifacts")
STOPPED = 130


def main() -> None:
    """Run the command line; a HarnessError is one line on stderr and exit code 2."""
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
def data() -> None:
    """Fetch CIFAR-100 into DATA_DIR or ./data, or say that it is there."""
    from harness.paths import data_root
    from harness.training.data import provide

    root = data_root()
    provide(root, allow_stand_in=False)
    print(f"CIFAR-100 is in {root}, checksums match.")


@app.command("train-matrix")
def train_matrix(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
) -> None:
    """Train, prune, distil and export every cell that is not there yet."""
    from harness.settings import load_settings
    from harness.status import states

    paths = _paths(results, artifacts)
    # Bad settings are reported before anything is downloaded, and a finished matrix without loading torch.
    load_settings(matrix, profile)
    planned = _plan(matrix, profile, experiment, paths)
    if all(state.training == "done" for state in states(paths, planned)):
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
    keep_going = _until_interrupted()
    with Display() as display:
        display.say(
            f"Profile {profile}: {len(planned.cells)} models on {facts['device']} "
            f"({facts['threads']} threads, {facts['precision']})"
        )
        if name == "stand-in":
            display.say("CIFAR-100 can neither be found nor downloaded: training on drawn stand-in images.")
        summary = make_cells(planned, paths, device, display, keep_going)
    _close(summary, len(planned.cells))


def _close(summary: Any, wanted: int) -> None:
    for cell, reason in summary.failed.items():
        print(f"failed: {cell}: {reason}", file=sys.stderr)
    print(f"{len(summary.made)} of {wanted} models made now, {len(summary.failed)} failed.")
    if not summary.complete:
        print("Stopped before the end; the same command goes on from here.")
        raise typer.Exit(STOPPED)
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
