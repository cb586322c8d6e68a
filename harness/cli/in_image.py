"""`python -m harness.cli.in_image`: what the CPU image can be told to do."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import application, run
from harness.cli.latency_verb import latency

app = application("The latency bench, in its image.")
app.command()(latency)


@app.command()
def job(file: Annotated[Path, typer.Argument(help="What to measure, written by `harness bench`.")]) -> None:
    """Measure the models of a job: what `make bench RUNNER=docker` runs in here."""
    from harness.bench.__main__ import main

    raise typer.Exit(main([str(file)]))


if __name__ == "__main__":
    run(app)
