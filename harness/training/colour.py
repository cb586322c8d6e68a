"""Colour jitter for whole batches, in which every image has its own factors and its own order of adjustments.

The four adjustments are those of torchvision for float images, but take a factor per image ([N, 1, 1, 1]) where
torchvision takes one for all. Images are float [N, 3, H, W] on the 0..1 scale, before and after.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

# The luma coefficients of ITU-R 601-2, as torchvision rounds them.
LUMA = (0.2989, 0.587, 0.114)


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """A factor of 0 gives black, 1 the image itself."""
    return (images * factors).clamp_(0, 1)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """A factor of 0 gives the image's mean grey, 1 the image itself."""
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), factors)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """A factor of 0 gives the image in grey, 1 the image itself."""
    return _blend(images, _grey(images), factors)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the colours by so many turns of the colour wheel; 0 gives the image itself."""
    red, green, blue = images.split(1, dim=1)
    value, least = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = value - least
    # A grey pixel has no hue and needs none. Instead of masks: the sign is 0 where a channel is the largest and else 1,
    # and interpolating by it chooses exactly.
    not_red, not_green = (value - red).sign_(), (value - green).sign_()
    elsewhere = torch.lerp((blue - red).add_(chroma, alpha=2), (red - green).add_(chroma, alpha=4), not_green)
    sixths = torch.lerp(green - blue, elsewhere, not_red).div_(chroma.clamp_min(torch.finfo(chroma.dtype).tiny))
    # Each channel's place on the wheel in turns: positive, so that frac removes whole turns.
    places = sixths.div_(6).add_(turns + 2) + _wheel(images.device)
    return torch.addcmul(least, chroma, places.frac_().sub_(0.5).abs_().mul_(6).sub_(1).clamp_(0, 1))


@cache
def _wheel(device: torch.device) -> Tensor:
    """The offsets of red, green and blue on the wheel, in turns; sent to the device once."""
    return torch.tensor((0, 2 / 3, 1 / 3), device=device).view(1, 3, 1, 1)


ADJUSTMENTS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (brightness, contrast, saturation, hue)


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue, each by up to 0.5, in a random order for every image."""
    factors = torch.rand(len(images), 4, generator=generator)
    # Factors are in 0.5..1.5; the hue turns by -0.5..0.5.
    factors = torch.cat([factors[:, :3] + 0.5, factors[:, 3:] - 0.5], 1)
    orders = torch.rand(len(images), 4, generator=generator).argsort(1)
    return adjust(images, factors, orders)


def adjust(images: Tensor, factors: Tensor, orders: Tensor) -> Tensor:
    """Adjust each image four times, by its row of `factors` [N, 4] in the order of its row of `orders` [N, 4].

    Both are on the CPU, where it is worked out which images get which adjustment next, so that the host never has to
    wait for a GPU.
    """
    images = images.clone()
    for place in range(4):
        for which, adjustment in enumerate(ADJUSTMENTS):
            whose = (orders[:, place] == which).nonzero().squeeze(1)
            if len(whose):
                strength = factors[whose, which].view(-1, 1, 1, 1).to(images.device, non_blocking=True)
                index = whose.to(images.device, non_blocking=True)
                images.index_copy_(0, index, adjustment(images.index_select(0, index), strength))
    return images


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).unsqueeze(1)


def _blend(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    return torch.lerp(others, images, factors).clamp_(0, 1)
