"""`latency`: which of several ONNX files is faster. It needs neither matrix.toml nor torch."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.options import Json
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.commands.latency_document import LatencyDocument

# A file is slower than allowed; a file could not be run; the machine was too noisy to say.
SLOWER, FAILED, UNCLEAR = 1, 2, 3


def latency(
    files: Annotated[list[Path], typer.Argument(help="ONNX files; the others are compared with the first.")],
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="onnxruntime (of this environment), onnxruntime-1.16.0, onnxruntime-current; may be repeated. "
            "[default: onnxruntime-1.16.0 where `make setup` has made it, else onnxruntime]"
        ),
    ] = None,
    threads: Annotated[
        list[str] | None, typer.Option(help="A number, or all; may be repeated. [default: 1]", metavar="N|all")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The CPU whose instruction set the engine is shown. [default: this machine's]")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="The first dimension where it is open. [default: 1]", min=1)] = None,
    dim: Annotated[
        list[str] | None, typer.Option(help="A number for another open dimension.", metavar="NAME=N")
    ] = None,
    range_: Annotated[
        list[str] | None,
        typer.Option("--range", help="The numbers that are drawn for an input.", metavar="INPUT=LOW:HIGH"),
    ] = None,
    precision: Annotated[
        float, typer.Option(help="Stop when half the interval of every ratio is at most this (%).")
    ] = 1.0,
    minutes: Annotated[float, typer.Option(help="Stop after this time at the latest.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Of inputs and of the order of processes.", min=0)] = 0,
    max_ratio: Annotated[
        float | None,
        typer.Option(help="A gate for CI: exit with 1 where a file takes more times as long as the first."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="What --json printed before: --max-ratio is then for the change. [its default: 1.05]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure which of several ONNX files is faster, by how much, and how sure that is.

    Exit code: 0 measured, 1 slower than --max-ratio allows, 2 a file cannot be measured, 3 too noisy to say.
    """
    from harness.commands.latency_files import Request, measure_files
    from harness.commands.latency_inputs import Wanted
    from harness.commands.latency_words import as_text

    for name, value in {"--precision": precision, "--minutes": minutes, "--max-ratio": max_ratio}.items():
        if value is not None and not 0 < value < float("inf"):
            raise HarnessError(f"{name} {value:g}: must be above 0")
    document = measure_files(
        Request(
            files=files,
            engines=engine or (),
            threads=[_threads(text) for text in threads or ["1"]],
            target=target,
            inputs=Wanted(batch, _dims(dim or []), _ranges(range_ or [])),
            precision_pct=precision,
            minutes=minutes,
            seed=seed,
            max_ratio=max_ratio,
            baseline=baseline,
        )
    )
    print(document.model_dump_json(indent=1) if as_json else as_text(document))
    raise typer.Exit(exit_code(document))


def exit_code(document: "LatencyDocument") -> int:
    """What a script needs to know of a document."""
    if any(timing.failure for file in document.files for timing in file.timings):
        return FAILED
    verdicts = document.gate.verdicts.values() if document.gate else ()
    return SLOWER if "beyond" in verdicts else UNCLEAR if "unclear" in verdicts else 0


def _threads(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
        raise HarnessError(f"--threads {text}: a number of threads, or all")
    return int(text)


def _dims(given: list[str]) -> dict[str, int]:
    """name=number, number=number."""
    found = {}
    for text in given:
        name, equals, number = text.rpartition("=")
        if not equals or not name or not re.fullmatch(r"[1-9][0-9]{0,9}", number):
            raise HarnessError(f"--dim {text}: write NAME=NUMBER, like --dim sequence=128")
        found[name] = int(number)
    return found


def _ranges(given: list[str]) -> dict[str, tuple[float, float]]:
    found = {}
    for text in given:
        match = re.fullmatch(r"(.+)=([^:=]+):([^:=]+)", text)
        try:
            found[match[1]] = (float(match[2]), float(match[3]))  # type: ignore[index]
        except (TypeError, ValueError):
            raise HarnessError(f"--range {text}: write INPUT=LOW:HIGH, like --range input_ids=0:30000") from None
    return found
