from pathlib import Path

import pytest
import torch

from harness.datasets import Images, load, stand_in
from harness.datasets.stand_in import CLASSES, PARAMETERS, TRAIN_IMAGES, draw


def test_its_classes_are_balanced(images: Images) -> None:
    assert images.pixels.shape == (300, 3, 32, 32) and images.pixels.dtype == torch.uint8
    assert images.labels.bincount().tolist() == [3] * CLASSES


def test_it_is_the_same_every_time_and_another_one_for_another_seed() -> None:
    once, again, other = (draw(100, seed) for seed in (1, 1, 2))
    assert torch.equal(once.pixels, again.pixels) and torch.equal(once.labels, again.labels)
    assert not torch.equal(once.labels, other.labels)
    assert not torch.equal(once.pixels[once.labels.argsort()], other.pixels[other.labels.argsort()])


def test_training_and_test_images_have_their_numbers_and_differ(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert (TRAIN_IMAGES, PARAMETERS) == (5_000, {"test_images": 10_000})
    monkeypatch.setattr(stand_in, "TRAIN_IMAGES", 50)
    train, test = (load("stand_in", {"test_images": 100}, tmp_path, train=train) for train in (True, False))
    assert (len(train.labels), len(test.labels)) == (50, 100)
    assert not torch.equal(train.pixels, test.pixels[:50])


def test_it_can_be_learned(images: Images) -> None:
    """A nearest neighbour in the spectrum of its colours is right far more often than one time in a hundred."""

    def features(seen: Images) -> torch.Tensor:
        spectrum = torch.fft.rfft2(seen.pixels.float()).abs()
        spectrum[:, :, 0, 0] *= 4
        return spectrum.flatten(1) / spectrum.flatten(1).norm(dim=1, keepdim=True)

    known = draw(1000, seed=8)
    nearest = (features(images) @ features(known).T).argmax(1)
    assert (known.labels[nearest] == images.labels).float().mean() > 0.3
