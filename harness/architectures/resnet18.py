"""ResNet18: half as deep, of basic blocks."""

from harness.architectures._resnet import BasicBlock, ResNetArchitecture

TITLE = "ResNet18"
CHANNELS = 64

ARCHITECTURE = ResNetArchitecture(BasicBlock, (2, 2, 2, 2))
