"""Commands: parse, call, print. What a command needs is imported inside it, so that --help stays instant."""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from harness.cli import (
    matrix_verbs as matrix,
)
from harness.cli import (
    model_verbs as single,
)
from harness.cli import (
    results_verb as unattended,
)
from harness.cli import (
    transfer_verbs as carrying,
)
from harness.cli.stopping import STOPPED
from harness.errors import HarnessError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Compressed networks from matrix.toml: train, export, measure, report.",
)


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


def benchmarks(
    subject: Annotated[list[str] | None, typer.Argument(help="One or more subjects; none named: all.")] = None,
) -> None:
    """Measure the harness itself, into results/benchmarks: main, measurement (most of an hour), training,
    training_profile, results, containers (takes an engine)."""
    from benchmarks import run

    for path in run(subject or []):
        print(f"Written: {path}")


# Each goes by its function's name, in the order in which --help lists them: the matrix as it comes to be, one model.
VERBS: Sequence[Callable[..., None]] = (
    matrix.plan,
    matrix.status,
    matrix.data,
    matrix.images,
    matrix.train_matrix,
    matrix.bench,
    matrix.check,
    matrix.verify,
    matrix.compare,
    matrix.report,
    matrix.report_check,
    unattended.results,
    carrying.merge,
    carrying.pack,
    carrying.unpack,
    single.train,
    single.export,
    single.test,
    benchmarks,
)
for verb in VERBS:
    app.command()(verb)
