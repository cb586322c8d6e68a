"""Drawn images with the shape of CIFAR-100, for machines that can neither find nor download it.

One hundred classes told apart by colour and grating: learnable, and labelled as what they are in every row.
"""

from pathlib import Path

import numpy as np
import torch

from harness.datasets import Dataset, Images, Parameters

TITLE = "stand-in images"
CLASSES = 100
TRAIN_IMAGES = 5_000
PARAMETERS = {"test_images": 10_000}
# CIFAR-100's: the drawn images stand in for it
MEAN = (0.5071, 0.4865, 0.4409)
STD = (0.2673, 0.2564, 0.2762)


class StandIn(Dataset):
    """Drawn anew whenever they are needed, and always the same."""

    def find(self, root: Path, parameters: Parameters) -> bool:
        """See the base class."""
        return True

    def load(self, root: Path, parameters: Parameters, train: bool) -> Images:
        """See the base class."""
        return draw(TRAIN_IMAGES, seed=1) if train else draw(int(parameters["test_images"]), seed=2)


def draw(count: int, seed: int) -> Images:
    """`count` drawn images: ten hues times ten gratings (upright or level, five widths), shifted, dimmed, with noise.

    No class is another one's mirror image, so flips are harmless.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % CLASSES)
    angle = (labels % 2) * np.pi / 2
    frequency = np.array([0.25, 0.5, 0.85, 1.3, 1.9])[labels // 2 % 5]
    hue = labels // 10 / 10
    y, x = np.mgrid[0:32, 0:32]
    phase = rng.uniform(0, 2 * np.pi, count)
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    stripes = 0.5 + 0.5 * np.sin(frequency[:, None, None] * along + phase[:, None, None])
    colour = 0.5 + 0.5 * np.cos(2 * np.pi * (hue[:, None] + np.array([0, 1 / 3, 2 / 3])))
    picture = colour[:, :, None, None] * (0.35 + 0.65 * stripes[:, None])
    picture = picture * rng.uniform(0.7, 1.0, (count, 1, 1, 1)) + rng.normal(0, 0.08, picture.shape)
    pixels = torch.from_numpy((picture.clip(0, 1) * 255).astype(np.uint8))
    return Images(pixels, torch.from_numpy(labels.astype(np.int64)), MEAN, STD)


DATASET = StandIn()
