import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.bench.accuracy_suite import BATCH, agreeing, answer
from harness.bench.engines import Infer, load_engine, open_model
from harness.bench.job import ModelFile, ModelInput
from harness.bench.model_input import model_input
from harness.bench.testset import load_testset
from harness.errors import HarnessError
from harness.predictions import save_classes
from tests.bench_kit import Workshop


def opened(model: ModelFile) -> tuple[Infer, ModelInput]:
    """The model as the suite runs it, and what it takes."""
    return open_model(load_engine("onnxruntime-current"), model, 1), model_input(model)


def right(workshop: Workshop, count: int, wrong: int = 0) -> int:
    """For how many images the model gives the label."""
    testset = load_testset(workshop.testset(count, wrong=wrong))
    infer, wanted = opened(workshop.model("student"))
    return int((answer(infer, testset, wanted) == testset.labels).sum())


# below, at and above a batch, with a rest
@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, 2 * BATCH + 7])
def test_every_image_counts_once(workshop: Workshop, count: int) -> None:
    assert right(workshop, count) == count
    assert right(workshop, count, wrong=count // 3) == count - count // 3


def test_images_are_resized_to_the_model(workshop: Workshop) -> None:
    infer, wanted = opened(workshop.model("student", size=13))
    testset = load_testset(workshop.testset(20, size=8))
    np.testing.assert_array_equal(answer(infer, testset, wanted), testset.labels)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error_rather_than_a_miss(workshop: Workshop, weight: float) -> None:
    infer, wanted = opened(workshop.model("student", weight=weight))
    with pytest.raises(HarnessError, match=r"logits are not finite \(first in images 0 to 19\)"):
        answer(infer, load_testset(workshop.testset(20)), wanted)


def test_labels_beyond_the_model_s_classes_are_an_error(workshop: Workshop) -> None:
    infer, wanted = opened(workshop.model("student"))
    testset = load_testset(workshop.testset(20))
    with pytest.raises(HarnessError, match=r"output is \(20, 3\) for 20 images with labels to 3"):
        answer(infer, replace(testset, labels=np.full(20, 3)), wanted)


def test_answers_that_agree_with_torch_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "answers.npy"
    sha256 = save_classes(path, np.array([3, 1, 4, 1, 5]))
    assert agreeing(np.array([3, 1, 4, 9, 9]), path, sha256) == 3
    assert agreeing(np.array([3, 1, 4, 9, 9]), path) == 3, "a train record from before they were hashed"
    assert agreeing(np.array([3]), None) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no such file"), (b"", "no array of class numbers"), (b"cut short", "no array of class numbers")],
)
def test_answers_of_torch_that_cannot_be_read_are_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "answers.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HarnessError, match=rf"answers\.npy: {reason}"):
        agreeing(np.array([1, 2]), path)


def test_answers_of_torch_to_another_test_set_are_refused(tmp_path: Path) -> None:
    save_classes(tmp_path / "answers.npy", np.zeros(3, np.uint8))
    with pytest.raises(HarnessError, match=r"answers\.npy: \(3,\) answers for 2 images"):
        agreeing(np.array([1, 2]), tmp_path / "answers.npy")


def test_answers_that_are_not_those_on_the_train_record_are_refused(tmp_path: Path) -> None:
    sha256 = save_classes(tmp_path / "answers.npy", np.array([1, 2]))
    save_classes(tmp_path / "answers.npy", np.array([2, 1]))
    with pytest.raises(
        HarnessError, match=rf"answers\.npy: sha256 is .*, the train record says {sha256[:12]}.*delete it"
    ):
        agreeing(np.array([1, 2]), tmp_path / "answers.npy", sha256)
