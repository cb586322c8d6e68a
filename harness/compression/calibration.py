"""Calibration: BatchNorm's running statistics are estimated anew, since pruning has changed what every layer sees."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from harness.plan.settings import Calibration


def calibrate(
    model: nn.Module, images: Tensor, batch_size: int, prepare: Callable[[Tensor], Tensor] = lambda images: images
) -> None:
    """Set BatchNorm's running statistics to those of `images` [N, 3, S, S], every image with the same weight.

    `prepare` makes of a batch of them what the model expects, so that not all are held in floating point at once. The
    model ends in evaluation mode.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    model.train()
    seen = 0
    with torch.no_grad():
        for batch in even(images, batch_size):
            seen += len(batch)
            for norm in norms:
                norm.momentum = len(batch) / seen
            model(prepare(batch))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def even(images: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Batches of nearly the same size, none above `batch_size`: a last batch of one image has no variance."""
    count = -(-len(images) // batch_size)
    yield from torch.tensor_split(images, count)


def sample(pixels: Tensor, calibration: Calibration) -> Tensor:
    """The images that statistics are estimated over."""
    return pixels[: calibration.images]
