"""ResNets in torchvision's shape and with its names, at any width: He et al., "Deep Residual Learning", 2015."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.architectures import Architecture, FeatureStage, Outputs
from harness.architectures._batchnorm import BatchNorm2d
from harness.plan.specs import Network

PLANES = (64, 128, 256, 512)


class Block(nn.Module, ABC):
    """Convolutions with BatchNorm around a residual sum."""

    # channels of the output, as a multiple of the block's planes; the block's last convolution
    expansion: ClassVar[int]
    last: ClassVar[str]

    relu: nn.ReLU
    downsample: nn.Sequential | None

    def close(self, channels: int, outer: int, stride: int) -> None:
        """Add what comes after the branch: the ReLU, and a projection of the shortcut where shapes differ."""
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != outer:
            self.downsample = nn.Sequential(nn.Conv2d(channels, outer, 1, stride, bias=False), BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        return self.parts(x)[2]

    def parts(self, x: Tensor, keep_last: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of conv1, of the last BatchNorm before the residual sum, and of the block.

        Without `keep_last` the sum overwrites what the last BatchNorm gave: less memory to write.
        """
        first, last = self.branch(x)
        shortcut = x if self.downsample is None else self.downsample(x)
        return first, last, self.relu(last + shortcut if keep_last else last.add_(shortcut))

    @abstractmethod
    def branch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of conv1 and of the last BatchNorm."""


class BasicBlock(Block):
    """Two 3x3 convolutions."""

    expansion = 1
    last = "conv2"

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(planes)
        self.close(channels, planes, stride)

    def branch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.conv1(x)
        return first, self.bn2(self.conv2(self.relu(self.bn1(first))))


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions, the stride in the middle one."""

    expansion = 4
    last = "conv3"

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        outer = planes * self.expansion
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outer, 1, bias=False)
        self.bn3 = BatchNorm2d(outer)
        self.close(channels, outer, stride)

    def branch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.conv1(x)
        y = self.relu(self.bn1(first))
        y = self.relu(self.bn2(self.conv2(y)))
        return first, self.bn3(self.conv3(y))


class ResNet(nn.Module):
    """A ResNet of four stages. `stem`: "cifar" is 3x3 with stride 1, "imagenet" 7x7 with stride 2 and a max-pool."""

    def __init__(self, block: type[Block], depths: Sequence[int], network: Network) -> None:
        super().__init__()
        self.depths = tuple(depths)
        channels = int(PLANES[0] * network.width)
        small = network.stem == "cifar"
        self.conv1 = nn.Conv2d(3, channels, 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        for stage, (depth, planes) in enumerate(zip(depths, PLANES, strict=True), start=1):
            layer = []
            for number in range(depth):
                stride = 2 if stage > 1 and number == 0 else 1
                layer.append(block(channels, int(planes * network.width), stride))
                channels = int(planes * network.width) * block.expansion
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, network.classes)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.tapped(x, frozenset()).logits

    def tapped(self, x: Tensor, taps: frozenset[str]) -> Outputs:
        """See harness.architectures.tapped."""
        features: dict[str, Tensor] = {}
        x = self.relu(self.bn1(self.conv1(x)))
        if "stem" in taps:
            features["stem"] = x
        x = self.maxpool(x)
        for stage, depth in enumerate(self.depths, start=1):
            for number, block in enumerate(getattr(self, f"layer{stage}")):
                read = number == depth - 1 and f"layer{stage}.norm" in taps
                first, last, x = block.parts(x, keep_last=read)
                seen = {f"layer{stage}.conv1": first} if number == 1 else {}
                if number == depth - 1:
                    seen |= {f"layer{stage}.norm": last, f"layer{stage}.sum": x}
                features |= {tap: value for tap, value in seen.items() if tap in taps}
        return Outputs(self.fc(torch.flatten(self.avgpool(x), 1)), features)


def initialise_convolutions(model: nn.Module) -> None:
    """He's initialisation of every convolution, as torchvision has it."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResNetArchitecture(Architecture):
    """A member of the family: a kind of block, and how many of them each stage has.

    In torchvision's blocks the residual sum and both ReLUs work in place, so a hook on the last BatchNorm (as the
    reference study has it) reads what they leave behind. Here the taps of a stage are told apart by name.
    """

    stem_tap, stem_conv = "stem", "conv1"

    def __init__(self, block: type[Block], depths: Sequence[int]) -> None:
        self.block, self.depths = block, tuple(depths)
        self.stages = tuple(
            FeatureStage(
                first=f"layer{stage}.conv1",
                norm=f"layer{stage}.norm",
                sum=f"layer{stage}.sum",
                first_conv=f"layer{stage}.1.conv1",
                last_conv=f"layer{stage}.{depth - 1}.{block.last}",
            )
            for stage, depth in enumerate(self.depths, start=1)
        )

    def build(self, network: Network) -> nn.Module:
        """See the base class."""
        return ResNet(self.block, self.depths, network)

    def initialise(self, model: nn.Module) -> None:
        """See the base class."""
        super().initialise(model)
        initialise_convolutions(model)
