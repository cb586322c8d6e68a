"""Augmentation of whole batches on their own device, in which every image has its own random numbers.

The random numbers are always drawn on the CPU and copied without synchronisation, so the batches are the same on every
device and the host never waits for a GPU.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.datasets import Three, per_channel, resize
from harness.training.colour import jitter


def augment(pixels: Tensor, names: Sequence[str], size: int, generator: torch.Generator, mean: Three) -> Tensor:
    """Apply the named augmentations in order to uint8 images [N, 3, H, W]; the result is [N, 3, size, size].

    It is uint8 if nothing had to be interpolated, and else float on the 0..1 scale. `mean` is the data set's.
    """
    if "study" in names:
        return study(pixels, size, generator)
    for name in names:
        pixels = cutout(pixels, generator, mean) if name == "cutout" else AUGMENTATIONS[name](pixels, generator)
    return resize(pixels, size)


def crop(pixels: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """A random window of the image padded with 4 black pixels, as is usual for CIFAR since He et al., 2015."""
    count, _, height, width = pixels.shape
    offsets = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator).to(pixels.device, non_blocking=True)
    rows = offsets[0] + torch.arange(height, device=pixels.device)
    columns = offsets[1] + torch.arange(width, device=pixels.device)
    padded = F.pad(pixels, (padding,) * 4)
    image = torch.arange(count, device=pixels.device).view(-1, 1, 1)
    # The channel axis comes last in this indexing; permuting it back leaves the memory in channels_last order.
    return padded.permute(0, 2, 3, 1)[image, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


def flip(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored left to right with probability 1/2."""
    chosen = (torch.rand(len(pixels), generator=generator) < 0.5).to(pixels.device, non_blocking=True).view(-1, 1, 1, 1)
    return torch.where(chosen, pixels.flip(3), pixels)


def cutout(pixels: Tensor, generator: torch.Generator, mean: Three, side: int = 8) -> Tensor:
    """Fill a square of `side` pixels around a random centre with the data set's mean; it may reach over the edge.

    DeVries and Taylor, 2017, set the square to zero after normalisation: before it, that is the mean.
    """
    count, _, height, width = pixels.shape
    centres = torch.rand(2, count, 1, generator=generator).to(pixels.device, non_blocking=True)
    inside = []
    for centre, length in zip(centres, (height, width), strict=True):
        start = (centre * length).floor() - side // 2
        position = torch.arange(length, device=pixels.device)
        inside.append((position >= start) & (position < start + side))
    hole = inside[0].unsqueeze(2) & inside[1].unsqueeze(1)
    filling = (per_channel(mean, pixels.device) * 255).round().to(pixels.dtype)
    return torch.where(hole.unsqueeze(1), filling, pixels)


def study(pixels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """The reference study's: resize to 256, both flips, rotate by up to 45 degrees, jitter colours by 0.5, crop to 224.

    `size` takes the place of 224, and 256 scales with it.
    """
    scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    pixels = resize(scaled, round(size * 256 / 224))
    swapped = torch.rand(2, len(pixels), generator=generator) < 0.5
    degrees = (torch.rand(len(pixels), generator=generator) * 2 - 1) * 45
    pixels = _turn(pixels, swapped, degrees)
    return _centre(jitter(pixels, generator), size)


def _centre(pixels: Tensor, size: int) -> Tensor:
    first = round((pixels.shape[-1] - size) / 2)
    return pixels[..., first : first + size, first : first + size]


def _turn(pixels: Tensor, swapped: Tensor, degrees: Tensor) -> Tensor:
    """Mirror images horizontally and vertically where `swapped` [2, N] says so, then rotate them about their centre.

    Takes the nearest pixel; what comes from outside the image is black.
    """
    angle = degrees * math.pi / 180
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # The inverse, which says where a pixel comes from: rotated back, then mirrored.
    x, y = 1 - 2 * swapped.float()
    matrix = torch.stack([torch.stack([x * cos, x * -sin, zero], 1), torch.stack([y * sin, y * cos, zero], 1)], 1)
    grid = F.affine_grid(matrix.to(pixels.device, non_blocking=True), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="nearest", padding_mode="zeros", align_corners=False)


AUGMENTATIONS = {"crop": crop, "flip": flip}
