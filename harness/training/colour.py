"""Colour jitter of whole batches, every image with factors and an order of its own.

The four adjustments are torchvision's for float images, with a factor per image ([N, 1, 1, 1]) where torchvision takes
one number for all. Images are float [N, 3, H, W] on the 0..1 scale and stay there.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# ITU-R 601-2 luma, as torchvision rounds it
LUMA = (0.2989, 0.587, 0.114)


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """0 is black, 1 leaves the image as it is."""
    return (images * factors).clamp(0, 1)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """0 is the image's mean grey, 1 leaves it as it is."""
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), factors)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """0 is grey, 1 leaves the image as it is."""
    return _blend(images, _grey(images), factors)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """Colours go round the wheel by so many turns; 0 leaves them as they are."""
    red, green, blue = images.unbind(1)
    value, least = images.amax(1), images.amin(1)
    chroma = value - least
    # a grey pixel has no hue, and none is needed
    divisor = torch.where(chroma == 0, 1.0, chroma)
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths = sixths + 6 * turns.view(-1, 1, 1)
    channels = []
    for offset in (5, 3, 1):
        place = (sixths + offset).remainder(6)
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(channels, 1)


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
                images[index] = adjustment(images[index], strength)
    return images


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def _blend(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    return (images * factors + others * (1 - factors)).clamp(0, 1)
