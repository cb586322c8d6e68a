"""Which device trains, and in which memory layout: on record, but not part of any key."""

import ctypes
import os
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import channels_last, memory_format, nn


@dataclass(frozen=True)
class Device:
    """Where tensors live and in which precision the forward pass runs."""

    torch: torch.device
    bf16: bool
    # The faster one for thin networks too, pruned or not: docs/training-profile.md.
    layout: memory_format = channels_last

    def autocast(self) -> AbstractContextManager[None]:
        """A context for forward passes."""
        return torch.amp.autocast_mode.autocast(self.torch.type, torch.bfloat16, enabled=self.bf16)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model here, in the layout that its batches have."""
        # torch's type stubs do not know the argument
        return model.to(self.torch, memory_format=self.layout)  # type: ignore[call-overload]

    def synchronize(self) -> None:
        """Wait until the device is idle, so that a clock tells the truth."""
        if self.torch.type == "cuda":
            torch.cuda.synchronize(self.torch)

    def facts(self) -> dict[str, Any]:
        """What a record says about the device and the libraries."""
        cuda = self.torch.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.torch) if cuda else cpu_name(),
            "device_type": self.torch.type,
            "threads": torch.get_num_threads(),
            "precision": "bf16" if self.bf16 else "fp32",
            "python": platform.python_version(),
            # Docker image id, or null on the bare machine.
            "image": os.environ.get("HARNESS_IMAGE"),
            **{name: version(name) for name in ("torch", "torchvision", "torch-pruning", "onnx", "onnxruntime")},
        }


def choose_device(precision: str, cuda: bool | None = None) -> Device:
    """The GPU where there is one, else the CPU, for this precision: "bf16" or "fp32"."""
    use_cuda = torch.cuda.is_available() if cuda is None else cuda
    device = torch.device("cuda" if use_cuda else "cpu")
    if use_cuda:
        torch.backends.cudnn.benchmark = True
        # "fp32" on record is fp32: cuDNN would round convolutions to TF32, and evaluation has to match the ONNX file.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    else:
        # oneDNN compiles a kernel per shape and direction and keeps 1,024 of them. Every pruned network has hundreds of
        # its own; with 18 of them side by side all were compiled anew in every step.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32768")
        _keep_freed_memory()
    return Device(device, bf16=precision == "bf16")


def emulates_bf16(device: Device) -> bool:
    """Whether bf16 is asked of a device that has no instructions for it: the same models, but slowly."""
    if device.torch.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = bool(torch.cpu._is_avx512_bf16_supported())
    return device.bf16 and not native


def gpu_count() -> int:
    """How many GPUs this host lets us use; asking starts none of them."""
    return torch.cuda.device_count()


def cpu_name() -> str:
    """The processor's name as the kernel has it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed: every training step takes the same blocks, and page faults cost time."""
    if os.name != "posix" or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_max = -1, -4
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_max, 0)
