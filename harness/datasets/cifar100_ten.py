"""The first ten classes of CIFAR-100, apple to bottle: real images, and few enough to train on in minutes."""

from pathlib import Path

from harness.datasets import Images, Parameters
from harness.datasets.cifar100 import MEAN, STD, Cifar100

TITLE = "ten classes of CIFAR-100"
CLASSES = 10
TRAIN_IMAGES = 5_000
MARKER = "cifar-100-python"


class TenClasses(Cifar100):
    """The 5,000 training and 1,000 test images, from the files of all hundred classes."""

    def load(self, root: Path, parameters: Parameters, train: bool) -> Images:
        """See the base class."""
        whole = super().load(root, parameters, train)
        chosen = whole.labels < CLASSES
        return Images(whole.pixels[chosen], whole.labels[chosen], MEAN, STD)


DATASET = TenClasses()
