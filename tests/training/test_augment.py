from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from harness.datasets import Images, normalise, resize
from harness.training import augment as module
from harness.training.augment import augment, crop, cutout, flip, study

MEAN = (0.5071, 0.4865, 0.4409)
Batched = Callable[[Tensor, torch.Generator], Tensor]


@pytest.fixture(scope="module")
def pixels(images: Images) -> Tensor:
    return images.pixels[:24]


def random(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- One image at a time, by torchvision, with the same random numbers -----------------------------------------------


def cropped_one_by_one(pixels: Tensor, generator: torch.Generator) -> Tensor:
    offsets = torch.randint(0, 9, (2, len(pixels), 1), generator=generator)[..., 0].tolist()
    size = list(pixels.shape[-2:])
    return torch.stack([V.crop(V.pad(p, [4]), top, left, *size) for p, top, left in zip(pixels, *offsets, strict=True)])


def flipped_one_by_one(pixels: Tensor, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(len(pixels), generator=generator) < 0.5
    return torch.stack([V.horizontal_flip(p) if c else p for p, c in zip(pixels, chosen, strict=True)])


def cut_one_by_one(pixels: Tensor, generator: torch.Generator) -> Tensor:
    height, width = pixels.shape[-2:]
    centres = torch.rand(2, len(pixels), 1, generator=generator)[..., 0]
    found = []
    for image, y, x in zip(pixels, *centres, strict=True):
        top, left = int(y * height) - 4, int(x * width) - 4
        bottom, right = min(top + 8, height), min(left + 8, width)
        top, left = max(top, 0), max(left, 0)
        found.append(V.erase(image, top, left, bottom - top, right - left, filling().to(image.dtype)))
    return torch.stack(found)


def filling() -> Tensor:
    """The mean, as a colour."""
    return (torch.tensor(MEAN).view(3, 1, 1) * 255).round()


def cut(pixels: Tensor, generator: torch.Generator) -> Tensor:
    return cutout(pixels, generator, MEAN)


@pytest.mark.parametrize(
    ("batched", "single"),
    [
        (crop, cropped_one_by_one),
        (flip, flipped_one_by_one),
        (cut, cut_one_by_one),
    ],
)
def test_a_batch_is_augmented_as_its_images_would_be_one_by_one(
    batched: Batched, single: Batched, pixels: Tensor
) -> None:
    for seed in range(5):
        augmented = batched(pixels, random(seed))
        assert torch.equal(augmented, single(pixels, random(seed)))
        assert augmented.dtype == torch.uint8


def test_augmentations_are_applied_in_the_order_in_which_they_are_named(pixels: Tensor) -> None:
    generator = random()
    expected = cut_one_by_one(flipped_one_by_one(cropped_one_by_one(pixels, generator), generator), generator)
    assert torch.equal(augment(pixels, ["crop", "flip", "cutout"], 32, random(), MEAN), expected)


def test_images_of_a_batch_are_augmented_differently(pixels: Tensor) -> None:
    same = pixels[:1].expand(24, -1, -1, -1)
    for augmentation in (crop, flip, cut):
        assert len(augmentation(same, random()).unique(dim=0)) > 1


def test_cutouts_hole_is_the_square_or_what_of_it_is_inside_the_image() -> None:
    holes = (cut(torch.ones(500, 3, 32, 32, dtype=torch.uint8), random()) != 1).sum((2, 3))
    assert torch.equal(holes.amin(1), holes.amax(1))
    assert holes.max() == 64 and holes.min() >= 16


def test_cutout_fills_with_the_mean_which_is_nothing_after_normalisation() -> None:
    """DeVries and Taylor (2017) normalise first and fill with zero."""
    white = torch.full((50, 3, 32, 32), 255, dtype=torch.uint8)
    normalised = normalise(cut(white, random()), MEAN, (0.25, 0.25, 0.25))
    hole = (cut(white, random()) != 255).all(1, keepdim=True).expand(-1, 3, -1, -1)
    assert hole.any() and normalised[hole].abs().max() < 0.01
    assert normalised[~hole].min() > 1.9


def test_without_augmentation_images_are_left_alone(pixels: Tensor) -> None:
    assert augment(pixels, [], 32, random(), MEAN) is pixels


# --- The study's augmentation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 28, 32, 56])
def test_the_studys_augmentation_has_the_size_asked_for(size: int, pixels: Tensor) -> None:
    augmented = augment(pixels[:4], ["study"], size, random(), MEAN)
    assert augmented.shape == (4, 3, size, size)
    assert augmented.dtype == torch.float32
    assert augmented.min() >= 0 and augmented.max() <= 1


def test_the_studys_augmentation_depends_on_the_random_numbers_alone(pixels: Tensor) -> None:
    once, again, other = (study(pixels[:4], 28, random(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("down", [False, True])
def test_flips_and_rotation_are_torchvisions(pixels: Tensor, across: bool, down: bool) -> None:
    upright = resize(pixels[:8], 64)
    degrees = torch.tensor([-45.0, -30.0, -10.0, -1.0, 0.0, 5.0, 20.0, 45.0])
    rotated = module._turn(upright, torch.tensor([[across] * 8, [down] * 8]), degrees)
    upright = V.horizontal_flip(upright) if across else upright
    upright = V.vertical_flip(upright) if down else upright
    expected = torch.stack([V.rotate(image, angle) for image, angle in zip(upright, degrees.tolist(), strict=True)])
    # nearest neighbours may differ where a source lies between two pixels
    agree = (rotated - expected).abs().amax(1) < 1e-6
    assert agree[:, 8:-8, 8:-8].float().mean() > 0.99
    assert torch.equal(rotated[4], upright[4])
    assert (rotated[0, :, 0, 0] == 0).all()
