import math
from dataclasses import replace

import numpy as np
import pytest

from harness.benchmarking.accuracy_suite import BATCH, count_correct
from harness.benchmarking.images import load_testset
from harness.benchmarking.session import open_model
from harness.errors import HarnessError

from .conftest import Workshop


# below, at and above a batch, with a rest
@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, 2 * BATCH + 7])
def test_every_image_counts_once(workshop: Workshop, count: int) -> None:
    opened = open_model(workshop.model("student"), 1)
    assert count_correct(opened, load_testset(workshop.testset(count))) == count
    wrong = count // 3
    assert count_correct(opened, load_testset(workshop.testset(count, wrong=wrong))) == count - wrong


def test_images_are_resized_to_the_model(workshop: Workshop) -> None:
    opened = open_model(workshop.model("student", size=13), 1)
    assert count_correct(opened, load_testset(workshop.testset(20, size=8))) == 20


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error_and_no_miss(workshop: Workshop, weight: float) -> None:
    opened = open_model(workshop.model("student", weight=weight), 1)
    with pytest.raises(HarnessError, match=r"logits are not finite \(first in images 0 to 19\)"):
        count_correct(opened, load_testset(workshop.testset(20)))


def test_labels_that_the_model_does_not_know_are_an_error(workshop: Workshop) -> None:
    opened = open_model(workshop.model("student"), 1)
    testset = load_testset(workshop.testset(20))
    with pytest.raises(HarnessError, match=r"output is \(20, 3\) for 20 images with labels to 3"):
        count_correct(opened, replace(testset, labels=np.full(20, 3)))
