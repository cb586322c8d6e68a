from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.datasets import Images
from harness.training.batches import Stream
from tests.training_kit import recipe

GREY = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def numbered(count: int) -> Images:
    """Images whose label is their number."""
    return Images(torch.zeros(count, 3, 8, 8, dtype=torch.uint8), torch.arange(count), *GREY)


def stream_of(
    images: Images,
    *augmentations: str,
    stage: str = "student",
    seed: int = 0,
    **changes: Any,
) -> Stream:
    return Stream(images, recipe(**changes), augmentations, stage, seed)


@pytest.mark.parametrize("augmentations", [("crop", "flip", "cutout"), ("study",)])
def test_a_batch_is_the_same_whatever_step_one_starts_from(images: Images, augmentations: tuple[str, ...]) -> None:
    stream = stream_of(images.first(40), *augmentations, seed=1, batch_size=8, image_sizes=[16])
    whole = list(stream.batches(2))
    assert len(whole) == stream.steps == 5
    for first in range(6):
        rest = list(stream.batches(2, first))
        assert len(rest) == 5 - first
        for (pixels, labels), (others, other_labels) in zip(rest, whole[first:], strict=True):
            assert torch.equal(pixels, others) and torch.equal(labels, other_labels)


def test_stages_seeds_and_epochs_have_batches_of_their_own(images: Images) -> None:
    firsts = [
        next(stream_of(images, "crop", stage=stage, seed=seed).batches(epoch))[0]
        for stage in ("teacher", "sparse", "student")
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len(torch.stack(firsts).unique(dim=0)) == 12


def test_a_students_batches_are_not_its_teachers_at_the_same_seed_and_batch_size(images: Images) -> None:
    """Otherwise a student would see the very crops and flips that its teacher was trained on, in the same order."""
    taught, own = (list(stream_of(images, "crop", "flip", stage=stage).batches(0)) for stage in ("teacher", "student"))
    assert not any(torch.equal(one[1], other[1]) for one, other in zip(taught, own, strict=True))


def test_all_students_of_a_seed_see_the_same_batches(images: Images) -> None:
    """Whatever their learning rate: what decides the batches is the stage, the seed, and the sizes."""
    one, other = (stream_of(images, "crop", "flip", lr=lr, epochs=epochs) for lr, epochs in ((0.1, 1), (0.9, 5)))
    for epoch in (0, 3):
        for (pixels, labels), (others, other_labels) in zip(one.batches(epoch), other.batches(epoch), strict=True):
            assert torch.equal(pixels, others) and torch.equal(labels, other_labels)


def test_the_same_image_is_augmented_anew_in_each_epoch(images: Images) -> None:
    stream = stream_of(images.first(1), "crop", batch_size=1, image_sizes=[32])
    seen = torch.cat([pixels for epoch in range(5) for pixels, _ in stream.batches(epoch)])
    assert len(seen.unique(dim=0)) > 1


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 3), st.integers(0, 2**31))
def test_every_image_is_in_at_most_one_batch_of_an_epoch(count: int, batch_size: int, epoch: int, seed: int) -> None:
    stream = stream_of(numbered(count), seed=seed, batch_size=batch_size)
    batches = [labels.tolist() for _, labels in stream.batches(epoch)]
    seen = [label for labels in batches for label in labels]
    assert len(set(seen)) == len(seen) == (count if count < batch_size else count // batch_size * batch_size)
    assert len(batches) == stream.steps


def test_every_epoch_has_an_order_of_its_own() -> None:
    stream = stream_of(numbered(20), batch_size=20)
    orders = {tuple(labels.tolist()) for epoch in range(3) for _, labels in stream.batches(epoch)}
    assert len(orders) == 3


def test_batches_are_normalised_floats_of_the_size_asked_for(images: Images) -> None:
    pixels, labels = next(stream_of(images, "crop", "flip", batch_size=100, image_sizes=[24]).batches(0))
    assert pixels.shape == (100, 3, 24, 24) and pixels.dtype == torch.float32 and labels.shape == (100,)
    assert pixels.min() < -0.5 and pixels.max() > 0.5


def test_batches_are_normalised_by_the_data_sets_own_statistics(images: Images) -> None:
    plain = replace(images, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    shifted = replace(images, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    (one, _), (other, _) = (next(stream_of(given, "crop").batches(0)) for given in (plain, shifted))
    torch.testing.assert_close(other, (one - 0.5) / 0.25)


# --- The schedule of sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", ["crop", "study"])
def test_a_batch_has_the_size_of_its_epoch_and_the_schedule_restarts_with_every_stage(
    images: Images, augmentation: str
) -> None:
    stream = stream_of(images.first(16), augmentation, epochs=4, image_sizes=[8, 16, 24])
    sizes = [next(stream.batches(epoch))[0].shape[-1] for epoch in range(12)]
    assert sizes == [8, 16, 24, 24] * 3 == [stream.image_size(epoch) for epoch in range(12)]


def test_without_a_schedule_the_size_is_constant(images: Images) -> None:
    stream = stream_of(images, epochs=3, image_sizes=[12])
    assert {stream.image_size(epoch) for epoch in range(9)} == {12}


def test_the_size_decides_nothing_else_about_a_batch(images: Images) -> None:
    small, large = (next(stream_of(images, "crop", "flip", image_sizes=[size]).batches(0)) for size in (16, 32))
    assert torch.equal(small[1], large[1])
    shrunk = torch.nn.functional.interpolate(large[0], size=16, mode="bilinear", align_corners=False)
    torch.testing.assert_close(shrunk, small[0], rtol=1e-4, atol=1e-4)
