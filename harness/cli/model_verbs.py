"""The one-model verbs: the reference study's three scripts, with their options."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import MATRIX, Matrix, Profile
from harness.cli.stopping import STOPPED, until_interrupted


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
    from harness.cli.training_display import Display
    from harness.commands.train_one import Request, train_one
    from harness.plan.planning import kd_name

    request = Request(
        orig_model, prune_amount, prune_method.lower(), kd_name(kd_method), seed, protocol, epochs, batch_size
    )
    with Display() as display:
        made = train_one(request, matrix, profile, outp_dir, data_dir, display, until_interrupted())
    if made is None:
        print("Stopped before the end; the same command goes on from here.")
        raise typer.Exit(STOPPED)
    print(f"saved: {made}")


def export(
    torch_file: Annotated[Path, typer.Option(help="Our .safetensors or a .pt state dict.")],
    out_file: Annotated[Path, typer.Option(help="The ONNX file to write.")],
) -> None:
    """Export one model to ONNX and hold it against torch."""
    from harness.commands.train_one import export_one

    done = export_one(torch_file, out_file)
    print(
        f"{out_file}: {done.params / 1e6:.2f} M parameters, top-1 as torch's on {done.parity_top1_agreement_pct:.1f} % "
        f"of the images, logits within {done.parity_max_abs_diff:.1g}"
    )


def test(
    onnx_file: Annotated[Path, typer.Option(help="An ONNX file that `export` or `train-matrix` wrote.")],
    profile: Profile = "full",
    matrix: Matrix = MATRIX,
) -> None:
    """Print parameters, latency and accuracy of one ONNX file, measured as `bench` does."""
    from harness.commands.measure_one import measure_one

    measured = measure_one(onnx_file, matrix, profile)
    print(f"Parameters: {measured.params / 1e6:.2f} M")
    print(f"Latency: {measured.latency.value:.3f} ms [{measured.latency.low:.3f}, {measured.latency.high:.3f}]")
    print(f"Accuracy: {measured.accuracy_pct:.2f} %")
