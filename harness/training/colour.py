"""Colour jitter of whole batches, every image with factors and an order of its own.

The four adjustments are torchvision's for float images, with a factor per image ([N, 1, 1, 1]) where torchvision takes
one number for all. Images are float [N, 3, H, W] on the 0..1 scale and stay there.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

# ITU-R 601-2 luma, as torchvision rounds it
LUMA = (0.2989, 0.587, 0.114)


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """0 is black, 1 leaves the image as it is."""
    return (images * factors).clamp_(0, 1)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """0 is the image's mean grey, 1 leaves it as it is."""
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), factors)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """0 is grey, 1 leaves the image as it is."""
    return _blend(images, _grey(images), factors)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """Colours go round the wheel by so many turns; 0 leaves them as they are."""
    red, green, blue = images.split(1, dim=1)
    value, least = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = value - least
    # A grey pixel has no hue, and none is needed. Without comparisons and masks: 0 where a channel is the largest, else
    # 1, is a sign, and what is chosen by it an interpolation, exact at both ends.
    not_red, not_green = (value - red).sign_(), (value - green).sign_()
    elsewhere = torch.lerp((blue - red).add_(chroma, alpha=2), (red - green).add_(chroma, alpha=4), not_green)
    sixths = torch.lerp(green - blue, elsewhere, not_red).div_(chroma.clamp_min(torch.finfo(chroma.dtype).tiny))
    # each channel's place on the wheel, in turns, and positive, so that frac takes whole ones off
    places = sixths.div_(6).add_(turns + 2) + _wheel(images.device)
    return torch.addcmul(least, chroma, places.frac_().sub_(0.5).abs_().mul_(6).sub_(1).clamp_(0, 1))


@cache
def _wheel(device: torch.device) -> Tensor:
    """How far red, green and blue are from where a hue of 0 has them, in turns; sent to the device once."""
    return torch.tensor((0, 2 / 3, 1 / 3), device=device).view(1, 3, 1, 1)


ADJUSTMENTS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (brightness, contrast, saturation, hue)


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue, each by up to 0.5, in a random order for every image."""
    factors = torch.rand(len(images), 4, generator=generator)
    # a factor in 0.5..1.5; hue turns by -0.5..0.5
    factors = torch.cat([factors[:, :3] + 0.5, factors[:, 3:] - 0.5], 1)
    orders = torch.rand(len(images), 4, generator=generator).argsort(1)
    return adjust(images, factors, orders)


def adjust(images: Tensor, factors: Tensor, orders: Tensor) -> Tensor:
    """Each image's four adjustments by its `factors` [N, 4], in the order that its row of `orders` [N, 4] names.

    Both lie on the CPU: which images are next for which adjustment is worked out there, so that no device waits for it.
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
