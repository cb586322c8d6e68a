"""Options that several commands share, and their defaults."""

import gc
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import HarnessError

Matrix = Annotated[Path, typer.Option(help="The matrix file.")]
Profile = Annotated[str, typer.Option(help="quick, lite, overnight, full, long or reference.")]
Experiment = Annotated[list[str] | None, typer.Option(help="Only this experiment; may be repeated.")]
Results = Annotated[Path, typer.Option(help="Where records and tables are written.")]
Artifacts = Annotated[Path, typer.Option(help="Where weights, ONNX files and checkpoints are written.")]
Documents = Annotated[
    list[Path] | None,
    typer.Option(
        "--document",
        help="A file with marked tables; may be repeated. [default: README.md and docs/*.md, if RESULTS is this "
        "checkout's]",
    ),
]
Budget = Annotated[str, typer.Option(help="Stop cleanly before this much time is up: 90s, 9m, 1h30m.")]
Runner = Annotated[str, typer.Option(envvar="RUNNER", help="auto, docker, local: in the image, on this machine.")]
Executor = Annotated[
    str,
    typer.Option(envvar="EXECUTOR", help="local, or ray: the cluster of RAY_ADDRESS, or one of this machine alone."),
]
Memory = Annotated[str, typer.Option(help="Of the container, like 4g; without it what is usual for the command.")]
Redo = Annotated[
    list[str] | None,
    typer.Option(help="Make this model again although it is done, by its id, or all; may be repeated."),
]
Code = Annotated[
    str,
    typer.Option(help="Finished models whose code has changed since: refuse, redo, or keep them as they are."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

MATRIX, RESULTS, ARTIFACTS = Path("matrix.toml"), Path("results"), Path("artifacts")


def documents_of(given: list[Path] | None, results: Path) -> list[Path]:
    """The files named, or else this checkout's documents where these are this checkout's results.

    Figures made elsewhere reach a document only where it is named.
    """
    from harness.reporting.documents import own_documents

    return given or (own_documents(Path()) if results.resolve() == RESULTS.resolve() else [])


def require_one_host(executor: str) -> None:
    """Raise HarnessError where a command that measures is to run on a cluster."""
    if executor != "local":
        raise HarnessError(
            f"EXECUTOR={executor}: latency is measured on one host, one model after the other, never on a cluster; "
            f"leave it out here and give it to train-matrix"
        )


def many_objects() -> None:
    """Look for no garbage in a process that ends soon: the cells and records of a large matrix are none."""
    gc.disable()
