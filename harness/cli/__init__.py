"""Commands: parse, call, print. What a command needs is imported inside it, so that --help stays instant."""

import io
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from harness.cli import latency_verb, matrix_verbs, model_verbs, record_verbs, results_verb, transfer_verbs
from harness.cli.stopping import STOPPED
from harness.errors import HarnessError, readable
from harness.files import worded

# What the package is installed without, unless its extra `train` is asked for.
EXTRA = (
    "docker",
    "matplotlib",
    "PIL",
    "psutil",
    "safetensors",
    "scipy",
    "tensorboardX",
    "torch",
    "torch_pruning",
    "torchvision",
)


def application(about: str, completion: bool = False) -> typer.Typer:
    """A command line without verbs yet; errors are left to `run`."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=about,
    )

    @app.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", help="Print version and revision.", is_eager=True, callback=_print_version)
        ] = False,
    ) -> None:
        """What stands before a verb."""

    return app


def _print_version(asked: bool) -> None:
    if asked:
        from harness import __version__
        from harness.store.revision import revision

        print(f"{PROGRAM} {__version__} ({revision()})")
        raise typer.Exit


# What shells complete, too, however it was started: bin/harness, `python -m harness`, or the command of a wheel.
PROGRAM = "harness"
app = application("Compressed networks from matrix.toml: train, export, measure, report.", completion=True)


def main() -> None:
    """Run the command line."""
    run(app)


def run(app: typer.Typer) -> None:
    """Run a command line; a HarnessError, or what the machine refuses, is one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        # Python has none where the caller has closed it
        if isinstance(stream, io.TextIOWrapper):
            # Whoever reads a log file wants the lines as they come, and a terminal that lacks a letter the others.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        app(prog_name=PROGRAM)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        print(
            f"error: this needs {error.name}; install compression-harness[train], or run: make setup", file=sys.stderr
        )
        sys.exit(2)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {readable(worded(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(STOPPED)


# Each is named after its function, in the order in which --help lists them: first the matrix, then single models.
VERBS: Sequence[Callable[..., None]] = (
    matrix_verbs.plan,
    matrix_verbs.status,
    matrix_verbs.data,
    matrix_verbs.images,
    matrix_verbs.train_matrix,
    matrix_verbs.bench,
    record_verbs.check,
    record_verbs.verify,
    record_verbs.compare,
    record_verbs.report,
    record_verbs.report_check,
    results_verb.results,
    transfer_verbs.merge,
    transfer_verbs.pack,
    transfer_verbs.unpack,
    model_verbs.train,
    model_verbs.export,
    model_verbs.test,
    latency_verb.latency,
)
for verb in VERBS:
    app.command()(verb)
