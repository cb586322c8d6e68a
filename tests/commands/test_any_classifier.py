from pathlib import Path
from typing import Any

import pytest

from harness.commands.any_classifier import Given, as_classifier
from harness.errors import HarnessError
from harness.model_files.onnx_file import OnnxFacts, Tensor

HALVES = (0.5, 0.5, 0.5)
USUAL = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
Shape = tuple[int | str, ...]


def file(shape: Shape, dtype: str = "float32", answers: tuple[Shape, ...] = (("n", 100),), more: int = 0) -> OnnxFacts:
    inputs = [Tensor("pixels", dtype, shape), *(Tensor(f"more{number}", dtype, shape) for number in range(more))]
    outputs = tuple(Tensor(f"out{number}", "float32", one) for number, one in enumerate(answers))
    return OnnxFacts(Path("a.onnx"), "0" * 64, {}, 1, 1, 17, tuple(inputs), outputs)


@pytest.mark.parametrize(
    ("shape", "size", "batch", "channels_last"),
    [
        (("n", 3, 32, 32), 32, None, False),
        (("n", 3, 224, 224), 224, None, False),
        (("", 3, "h", "w"), 24, None, False),
        ((1, 3, 32, 32), 32, 1, False),
        ((8, 64, 64, 3), 64, 8, True),
        (("n", 3, 3, 3), 3, None, False),
        (("n", 3, 16, "w"), 16, None, False),
    ],
)
def test_the_input_says_size_batch_and_layout(shape: Shape, size: int, batch: int | None, channels_last: bool) -> None:
    found = as_classifier(file(shape), 100, 24, USUAL, (None, None)).input
    assert (found.size, found.batch, found.channels_last) == (size, batch, channels_last)
    assert (found.name, found.dtype) == ("pixels", "float32")


def test_half_precision_images_are_fed_as_such() -> None:
    assert as_classifier(file(("n", 3, 8, 8), "float16"), 100, 24, USUAL, (None, None)).input.dtype == "float16"


@pytest.mark.parametrize(
    ("given", "mean", "std", "assumed"),
    [
        ((None, None), *USUAL, True),
        ((HALVES, None), HALVES, USUAL[1], True),
        ((HALVES, HALVES), HALVES, HALVES, False),
    ],
)
def test_normalisation_is_the_one_given_or_the_data_set_s(given: Given, mean: Any, std: Any, assumed: bool) -> None:
    found = as_classifier(file(("n", 3, 8, 8)), 100, 24, USUAL, given)
    assert (found.input.mean, found.input.std) == (mean, std)
    assert any("normalised with" in text for text in found.assumptions) == assumed


def test_what_is_assumed_is_said() -> None:
    said = as_classifier(file(("n", "h", "w", 3)), 100, 24, USUAL, (None, None)).assumptions
    assert said[0].startswith("images of 24 pixels")
    assert any("channels last" in text for text in said)
    assert any("red, green, blue" in text for text in said)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (file(("n", 3, 8, 8), more=1), "has 2 inputs"),
        (file(("n", 3, 8)), "no batch of images with 3 channels"),
        (file(("n", 1, 8, 8)), "no batch of images with 3 channels"),
        (file(("n", "c", 8, 8)), "no batch of images with 3 channels"),
        (file(("n", 3, 8, 9)), "takes images of 8 x 9 pixels"),
        (file(("n", 3, 8, 8), "uint8"), "how it wants its images normalised is not known"),
        (file(("n", 3, 8, 8), answers=(("n", 100), ("n", 4))), "has 2 outputs.*`harness latency` measures it"),
        (file(("n", 3, 8, 8), answers=(("n", 1000),)), "tells 1000 classes apart, and the data set has 100"),
    ],
)
def test_what_is_no_classifier_of_the_data_set_is_refused(facts: OnnxFacts, said: str) -> None:
    with pytest.raises(HarnessError, match=rf"^a\.onnx: .*{said}"):
        as_classifier(facts, 100, 24, USUAL, (None, None))
