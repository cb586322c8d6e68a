"""Options that several commands share, and their defaults."""

from pathlib import Path
from typing import Annotated

import typer

Matrix = Annotated[Path, typer.Option(help="The matrix file.")]
Profile = Annotated[str, typer.Option(help="quick, lite, overnight, full, long or reference.")]
Experiment = Annotated[list[str] | None, typer.Option(help="Only this experiment; may be repeated.")]
Results = Annotated[Path, typer.Option(help="Where records and tables are written.")]
Artifacts = Annotated[Path, typer.Option(help="Where weights, ONNX files and checkpoints are written.")]
Readme = Annotated[Path, typer.Option(help="The file whose marked tables are filled in.")]
ReadmeToFill = Annotated[
    Path | None,
    typer.Option(help="The file whose marked tables are filled in. [default: README.md if RESULTS is this checkout's]"),
]
Budget = Annotated[str, typer.Option(help="Stop cleanly before this much time is up: 90s, 9m, 1h30m.")]
Runner = Annotated[str, typer.Option(envvar="RUNNER", help="auto, docker, local: in the image, on this machine.")]
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

MATRIX, RESULTS, ARTIFACTS, README = Path("matrix.toml"), Path("results"), Path("artifacts"), Path("README.md")


def readme_to_fill(given: Path | None, results: Path) -> Path | None:
    """The file named, or else this checkout's README where these are this checkout's results.

    Figures made elsewhere reach it only where it is named.
    """
    own = results.resolve() == RESULTS.resolve() and README.is_file()
    return given or (README if own else None)
