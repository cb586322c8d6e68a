"""ResNet50, the reference study's network."""

from harness.architectures._resnet import Bottleneck, ResNetArchitecture

TITLE = "ResNet50"
CHANNELS = 64

ARCHITECTURE = ResNetArchitecture(Bottleneck, (3, 4, 6, 3))
