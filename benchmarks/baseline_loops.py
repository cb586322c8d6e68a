"""Training loops as others write them, for comparison: one network on labels, in fp32 and NCHW, with a data loader.

Neither reads the loss in a step, so that what they lose on a GPU is not due to logging. Each runs in a process of its
own under PyTorch's defaults: what the harness tells glibc, oneDNN and cuDNN does not apply to them.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Self

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from benchmarks.workload import resnet50, some_images
from harness.datasets import Images

Transform = Callable[[Image.Image], torch.Tensor]


def study_transform(size: int, images: Images) -> Transform:
    """The reference study's, image by image with PIL; `size` stands for its 224 and the rest scales with it."""
    return T.Compose(
        [
            T.Resize(round(size * 256 / 224)),
            T.RandomHorizontalFlip(),
            T.RandomVerticalFlip(),
            T.RandomRotation(45),
            T.ColorJitter(0.5, 0.5, 0.5, 0.5),
            T.CenterCrop(size),
            T.ToTensor(),
            T.Normalize(images.mean, images.std),
        ]
    )


def usual_transform(size: int, images: Images) -> Transform:
    """Crop and flip, as in most CIFAR repositories."""
    return T.Compose(
        [
            T.RandomCrop(size, padding=4),
            T.RandomHorizontalFlip(),
            T.ToTensor(),
            T.Normalize(images.mean, images.std),
        ]
    )


class PilImages(Dataset[tuple[torch.Tensor, int]]):
    """Decodes and augments one image at a time, as torchvision's CIFAR data sets do."""

    def __init__(self, images: Images, transform: Transform) -> None:
        self.pixels = images.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = images.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


@dataclass
class Loop:
    """A network, its data loader (whose worker processes stay alive between epochs) and its optimiser."""

    model: nn.Module
    images: Images
    transform: Transform
    batch_size: int
    workers: int
    device: torch.device
    loader: "DataLoader[Any]" = field(init=False)
    optimizer: torch.optim.SGD = field(init=False)

    def __post_init__(self) -> None:
        self.model.to(self.device).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
        self.loader = DataLoader(
            PilImages(self.images, self.transform),
            self.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=self.workers,
            persistent_workers=True,
            pin_memory=self.device.type == "cuda",
        )

    def seconds_per_image(self) -> float:
        """One epoch, timed from when its first batch is there: starting the loader does not count."""
        batches = iter(self.loader)
        first = next(batches)
        started, seen = time.perf_counter(), 0
        for images, labels in itertools.chain([first], batches):
            images = images.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            loss = F.cross_entropy(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            seen += len(labels)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return (time.perf_counter() - started) / seen


TRANSFORMS = {"study": study_transform, "usual": usual_transform}


class LoopProcess:
    """A loop in a process of its own, which sleeps until it is asked for an epoch."""

    def __init__(self, transform: str, batch_size: int, width: float, image_size: int, images: int) -> None:
        context = get_context("spawn")
        self.here, there = context.Pipe()
        given = (there, transform, batch_size, width, image_size, images)
        self.process = context.Process(target=_serve, args=given)

    def __enter__(self) -> Self:
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.here.send(False)
        self.process.join()

    def seconds_per_image(self) -> float:
        """One epoch; see Loop."""
        self.here.send(True)
        return float(self.here.recv())


def _serve(there: Connection, transform: str, batch_size: int, width: float, image_size: int, count: int) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    workers, images = max(1, torch.get_num_threads()), some_images(count)
    loop = Loop(resnet50(width), images, TRANSFORMS[transform](image_size, images), batch_size, workers, device)
    while there.recv():
        there.send(loop.seconds_per_image())
