"""How an ONNX file that the harness did not write takes images: what its graph says, and what has to be assumed."""

from dataclasses import dataclass

from harness.bench.job import ModelInput
from harness.errors import HarnessError
from harness.model_files.onnx_file import OnnxFacts, Tensor

Three = tuple[float, float, float]
# mean and standard deviation per channel, where somebody has said what they are
Given = tuple[Three | None, Three | None]
# A network that takes raw bytes normalises them itself, or not at all: there is no telling.
NORMALISED = ("float16", "float32", "float64")
CHANNELS = 3


@dataclass(frozen=True)
class Assumed:
    """How images are prepared for a file, and what of that the file does not say, in words."""

    input: ModelInput
    assumptions: tuple[str, ...]


def as_classifier(
    facts: OnnxFacts,
    classes: int,
    size: int,
    normalisation: tuple[Three, Three],
    given: Given,
) -> Assumed:
    """Take a file for a classifier of images of a data set; HarnessError where its inputs and outputs are no such.

    The data set has `classes` (0: any number) and a `normalisation`, its mean and standard deviation per channel; those
    that are `given` go before it. Images are resized to what the model takes, or to `size` where it takes any.
    """
    image = _one_image(facts)
    _require_classes(facts, classes)
    channels_last = image.shape[1] != CHANNELS
    height, width = image.shape[1:3] if channels_last else image.shape[2:4]
    if isinstance(height, int) and isinstance(width, int) and height != width:
        raise HarnessError(f"{facts.path}: takes images of {height} x {width} pixels, and the data set's are square")
    fixed = next((side for side in (height, width) if isinstance(side, int)), None)
    batch = image.shape[0] if isinstance(image.shape[0], int) else None
    mean, std = (mine or usual for mine, usual in zip(given, normalisation, strict=True))
    assumptions = []
    if fixed is None:
        assumptions.append(f"images of {size} pixels: the file takes any")
    if given[0] is None or given[1] is None:
        assumptions.append(f"normalised with the data set's mean {list(mean)} and standard deviation {list(std)}")
    assumptions.append("channels in the order red, green, blue, classes in the data set's order")
    if channels_last:
        assumptions.append(f"channels last, as the input's shape {list(image.shape)} says")
    return Assumed(
        ModelInput(
            size=fixed or size,
            mean=mean,
            std=std,
            name=image.name,
            dtype=image.dtype,
            channels_last=channels_last,
            batch=batch,
        ),
        tuple(assumptions),
    )


def _one_image(facts: OnnxFacts) -> Tensor:
    if len(facts.inputs) != 1:
        raise HarnessError(f"{facts.path}: has {len(facts.inputs)} inputs, and an image classifier has one")
    (image,) = facts.inputs
    if len(image.shape) != 4 or CHANNELS not in (image.shape[1], image.shape[3]):
        raise HarnessError(f"{facts.path}: its input is {image}, which is no batch of images with {CHANNELS} channels")
    if image.dtype not in NORMALISED:
        raise HarnessError(f"{facts.path}: its input is {image}: how it wants its images normalised is not known")
    return image


def _require_classes(facts: OnnxFacts, classes: int) -> None:
    if len(facts.outputs) != 1:
        raise HarnessError(
            f"{facts.path}: has {len(facts.outputs)} outputs, and accuracy needs the one of a classifier; "
            "`harness latency` measures it all the same"
        )
    (answer,) = facts.outputs
    found = answer.shape[-1] if answer.shape else None
    if classes and isinstance(found, int) and found != classes:
        raise HarnessError(f"{facts.path}: tells {found} classes apart, and the data set has {classes}")
