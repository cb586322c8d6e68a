"""Training batches that are a function of (stage, seed, epoch, step) and of nothing else: all who ask see the same."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.datasets import Images, normalise
from harness.plan.settings import Recipe
from harness.training.augment import augment


@dataclass(frozen=True)
class Stream:
    """The batches of one stage of work.

    A batch is float32 [B, 3, S, S], augmented and normalised, with labels int64 [B]; the last, smaller batch of an
    epoch is left out. `stage` salts the random numbers: without it a student would see the very batches, augmentation
    included, that its teacher was trained on.
    """

    images: Images
    recipe: Recipe
    augmentations: tuple[str, ...]
    stage: str
    seed: int

    @property
    def batch_size(self) -> int:
        """Images in a batch, at most."""
        return self.recipe.batch_size

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return max(1, len(self.images.labels) // self.batch_size)

    def image_size(self, epoch: int) -> int:
        """Height and width in this epoch."""
        return self.recipe.image_size(epoch)

    def batches(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch from step `first` on."""
        images = self.images
        order = torch.randperm(len(images.labels), generator=self._generator(epoch, -1))
        order = order.to(images.labels.device, non_blocking=True)
        size = self.image_size(epoch)
        for step in range(first, self.steps):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            generator = self._generator(epoch, step)
            pixels = augment(images.pixels.index_select(0, chosen), self.augmentations, size, generator, images.mean)
            yield normalise(pixels, images.mean, images.std), images.labels.index_select(0, chosen)

    def _generator(self, epoch: int, step: int) -> torch.Generator:
        """Random numbers drawn on the CPU whatever the device, so that a GPU sees the batches a CPU would."""
        text = f"{self.stage}/{self.seed}/{epoch}/{step}".encode()
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:7], "big"))
