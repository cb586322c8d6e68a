"""ResNet50 in torchvision's shape and with its names, for any channel counts, and how its weights are stored.

A pruned network is a ResNet50 with other widths, so widths as JSON plus a state dict in a safetensors file are all
there is to store: no pickle, and no Torch-Pruning to load it. Architecture: He et al., "Deep Residual Learning for
Image Recognition", 2015, as torchvision builds it (stride in the 3x3 convolution).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from harness.architectures._batchnorm import BatchNorm2d
from harness.errors import HarnessError
from harness.files import atomic_path

BLOCKS = (3, 4, 6, 3)
PLANES = (64, 128, 256, 512)
EXPANSION = 4
CLASSES = 100
Widths = dict[str, int]


class Outputs(NamedTuple):
    """Logits [N, classes] and the features that were asked for, each [N, C, H, W], by tap."""

    logits: Tensor
    features: dict[str, Tensor]


# Where features can be read. In torchvision's bottleneck the residual sum and both ReLUs work in place, so a hook on
# the last bn3 or on the stem's bn1 (as the reference study has) reads what they leave behind. Here a name says it:
#   stem          after the stem's BatchNorm and ReLU
#   layerN.conv1  first convolution of the stage's second block, before its BatchNorm
#   layerN.bn3    last block's BatchNorm, before the residual sum
#   layerN.sum    last block, after the residual sum and ReLU
TAPS = ("stem", *(f"layer{stage}.{at}" for stage in (1, 2, 3, 4) for at in ("conv1", "bn3", "sum")))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with BatchNorm around a residual sum."""

    def __init__(self, channels: int, widths: Widths, name: str, stride: int, project: bool) -> None:
        super().__init__()
        first, second, third = (widths[f"{name}.conv{i}"] for i in (1, 2, 3))
        self.conv1 = nn.Conv2d(channels, first, 1, bias=False)
        self.bn1 = BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, stride, padding=1, bias=False)
        self.bn2 = BatchNorm2d(second)
        self.conv3 = nn.Conv2d(second, third, 1, bias=False)
        self.bn3 = BatchNorm2d(third)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, third, 1, stride, bias=False), BatchNorm2d(third)) if project else None
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.parts(x)[2]

    def parts(self, x: Tensor, keep_last: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of conv1, of bn3 before the residual sum, and of the block.

        Without `keep_last` the sum takes the place of what bn3 gave: less memory to write.
        """
        first = self.conv1(x)
        y = self.relu(self.bn1(first))
        y = self.relu(self.bn2(self.conv2(y)))
        last = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return first, last, self.relu(last + shortcut if keep_last else last.add_(shortcut))


class ResNet50(nn.Module):
    """ResNet50 with the given widths: the output channels of every convolution, by its name."""

    def __init__(self, widths: Widths, stem: str) -> None:
        super().__init__()
        self.stem = stem
        channels = widths["conv1"]
        small = stem == "cifar"
        self.conv1 = nn.Conv2d(3, channels, 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        for stage, blocks in enumerate(BLOCKS, start=1):
            layer = []
            for block in range(blocks):
                name = f"layer{stage}.{block}"
                layer.append(Bottleneck(channels, widths, name, 2 if stage > 1 and block == 0 else 1, block == 0))
                channels = widths[f"{name}.conv3"]
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.tapped(x, frozenset()).logits

    def tapped(self, x: Tensor, taps: frozenset[str]) -> Outputs:
        """Logits of images [N, 3, S, S], and the features at `taps`; without taps nothing is kept."""
        features: dict[str, Tensor] = {}
        x = self.relu(self.bn1(self.conv1(x)))
        if "stem" in taps:
            features["stem"] = x
        x = self.maxpool(x)
        for stage, blocks in enumerate(BLOCKS, start=1):
            for block in range(blocks):
                read = block == blocks - 1 and f"layer{stage}.bn3" in taps
                first, last, x = getattr(self, f"layer{stage}")[block].parts(x, keep_last=read)
                seen = {}
                if block == 1:
                    seen[f"layer{stage}.conv1"] = first
                if block == blocks - 1:
                    seen |= {f"layer{stage}.bn3": last, f"layer{stage}.sum": x}
                features |= {tap: value for tap, value in seen.items() if tap in taps}
        return Outputs(self.fc(torch.flatten(self.avgpool(x), 1)), features)


def full_widths(width: float) -> Widths:
    """The unpruned channel counts, torchvision's times `width`."""
    widths = {"conv1": int(64 * width)}
    for stage, (blocks, planes) in enumerate(zip(BLOCKS, PLANES, strict=True), start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            inner, outer = int(planes * width), int(planes * width) * EXPANSION
            widths |= {f"{name}.conv1": inner, f"{name}.conv2": inner, f"{name}.conv3": outer}
            if block == 0:
                widths[f"{name}.downsample.0"] = outer
    return widths


def widths_of(model: nn.Module) -> Widths:
    """The output channels of every convolution, by name."""
    return {name: module.out_channels for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def parameter_count(model: nn.Module) -> int:
    """Trainable numbers, BatchNorm's scale and shift included."""
    return sum(parameter.numel() for parameter in model.parameters())


def save_weights(path: Path, model: ResNet50, metadata: Mapping[str, Any]) -> None:
    """Write weights and shape as safetensors, atomically; `metadata` values are stored as JSON."""
    header = {"widths": widths_of(model), "stem": model.stem, **metadata}
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(_repeatable(save(tensors, {name: json.dumps(value) for name, value in header.items()})))


def _repeatable(content: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library's order is random, and equal models share a hash."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    # the format aligns the tensors that follow to 8 bytes
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def load_weights(path: Path) -> tuple[ResNet50, dict[str, Any]]:
    """A model from safetensors or from a `.pt` state dict with torchvision's names; and the metadata, if ours.

    Raises HarnessError where the file is missing, corrupt, or of another architecture.
    """
    if not path.is_file():
        raise HarnessError(f"{path}: no such checkpoint; train one, or give another path")
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    else:
        state, metadata = _read_state_dict(path), {}
    try:
        widths = metadata.get("widths") or {
            name.removesuffix(".weight"): value.shape[0] for name, value in state.items() if value.dim() == 4
        }
        stem = metadata.get("stem") or ("cifar" if state["conv1.weight"].shape[-1] == 3 else "imagenet")
        model = ResNet50(widths, stem)
        model.load_state_dict(state)
    except (KeyError, RuntimeError, AttributeError, IndexError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise HarnessError(
            f"{path}: not a ResNet50 for {CLASSES} classes with torchvision's layer names ({first})"
        ) from error
    return model, metadata


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
        # a file from elsewhere has metadata too, in no format that is promised
        ours = "widths" in header
        return load_file(path), {name: json.loads(value) for name, value in header.items()} if ours else {}
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise HarnessError(f"{path}: not a readable safetensors file ({error}); it may be cut short") from error


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, pickle's among them
        reason = str(error).strip() or type(error).__name__
        raise HarnessError(
            f"{path}: cannot be loaded as plain tensors ({reason.splitlines()[0]}); "
            f"save the model's state_dict() and give that: whole pickled models run code when loaded"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise HarnessError(f"{path}: holds no state dict; save the model's state_dict() and give that")
    return state
