"""The one-model verbs: the reference study's three scripts, with their options."""

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import MATRIX, Matrix, Profile
from harness.cli.stopping import STOPPED, until_interrupted
from harness.errors import HarnessError

DataDir = Annotated[
    Path | None, typer.Option(help="The folder that holds the data set, like cifar-100-python. [default: DATA_DIR]")
]


# Those of `train` that are about a student.
STUDENTS = ("prune_amount", "prune_method", "kd_method", "protocol")


def train(
    context: typer.Context,
    orig_model: Annotated[
        Path | None,
        typer.Option(help="Teacher: our .safetensors or a .pt state dict. Without it the teacher is trained."),
    ] = None,
    prune_amount: Annotated[float, typer.Option(help="Share of channels to remove.")] = 0.3,
    prune_method: Annotated[str, typer.Option(help="L1, BN, GN or another criterion.")] = "GN",
    kd_method: Annotated[str, typer.Option(help="0 or base, 1 or fmse, 3 or gram, or another method.")] = "1",
    seed: Annotated[int, typer.Option(help="Seed of data order, pruning and new weights.")] = 0,
    outp_dir: Annotated[Path, typer.Option(help="Where the model is saved.")] = Path("pmodels"),
    epochs: Annotated[int | None, typer.Option(help="Epochs per stage, in place of the profile's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="In place of the profile's.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Of the images. [default: what the teacher says it is for, or the profile's]")
    ] = None,
    data_dir: DataDir = None,
    profile: Profile = "full",
    protocol: Annotated[str, typer.Option(help="study or controlled.")] = "study",
    matrix: Matrix = MATRIX,
) -> None:
    """Train one compressed model, as the reference study's train.py does."""
    from harness.cli.training_display import Display
    from harness.commands.train_one import OneModel, train_one
    from harness.plan.planning import kd_name

    request = OneModel(
        orig_model,
        prune_amount,
        prune_method if ":" in prune_method else prune_method.lower(),
        kd_name(kd_method),
        seed,
        protocol,
        epochs,
        batch_size,
        image_size,
    )
    given = [f"--{name.replace('_', '-')}" for name in STUDENTS if _is_given(context, name)]
    with Display() as display:
        if orig_model is None and given:
            display.say(
                f"Without --orig-model it is the teacher that is trained: {', '.join(given)} can have no effect."
            )
        made = train_one(request, matrix, profile, outp_dir, data_dir, display, until_interrupted(), display.expect)
    if made is None:
        print("Stopped before the end; the same command resumes from here.")
        raise typer.Exit(STOPPED)
    print(f"saved: {made}")


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether an option was given, rather than left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def export(
    torch_file: Annotated[Path, typer.Option(help="Our .safetensors or a .pt state dict.")],
    out_file: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    data_dir: DataDir = None,
    profile: Profile = "full",
    matrix: Matrix = MATRIX,
) -> None:
    """Export one model to ONNX and compare it with torch on the profile's test images."""
    from harness.commands.train_one import export_one

    made = export_one(torch_file, out_file, matrix, profile, data_dir)
    done, unsure = made.done, "" if made.trained_on_it else "; the model does not say what it was trained on"
    print(
        f"{out_file}: {done.params / 1e6:.2f} M parameters, top-1 as torch's on "
        f"{done.parity.top1_agreement_pct:.1f} % of {made.images} test images of {made.compared_on}, "
        f"logits within {done.parity.max_abs_diff:.1g} ({made.runtime}){unsure}"
    )


def test(
    onnx_file: Annotated[Path, typer.Option(help="Any ONNX file that classifies images of the data set.")],
    data_dir: DataDir = None,
    mean: Annotated[
        str | None, typer.Option(help="Of red, green, blue, if the file does not say. [default: the data set's]")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of the same. [default: the data set's]")] = None,
    profile: Profile = "full",
    matrix: Matrix = MATRIX,
) -> None:
    """Print parameters, latency and accuracy of one ONNX file, measured as `bench` does."""
    from harness.commands.measure_one import measure_one

    normalisation = (_three("--mean", mean), _three("--std", std))
    measured = measure_one(onnx_file, matrix, profile, data_dir, normalisation)
    for assumption in measured.assumptions:
        print(f"Assumed: {assumption}", file=sys.stderr)
    print(f"Parameters: {measured.params / 1e6:.2f} M")
    print(
        f"Latency: {measured.latency.text('.3f')} ms "
        f"({measured.runtime}, {measured.threads} thread{'' if measured.threads == 1 else 's'}, {measured.isa})"
    )
    unsure = "" if measured.trained_on_it else "; the file does not say what it was trained on"
    print(f"Accuracy: {measured.accuracy_pct:.2f} % (test images of {measured.measured_on}{unsure})")


def _three(option: str, text: str | None) -> tuple[float, float, float] | None:
    """Three numbers, like 0.5,0.5,0.5; HarnessError on anything else, and on deviations that are not above 0."""
    if text is None:
        return None
    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError:
        raise HarnessError(f"{option} {text}: write three numbers, like 0.5,0.5,0.5") from None
    three = first, second, third
    if not all(map(math.isfinite, three)) or (option == "--std" and min(three) <= 0):
        raise HarnessError(f"{option} {text}: not numbers that images can be normalised with")
    return three
