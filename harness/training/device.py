"""The device that trains, and its memory layout: both are on record, but part of no key."""

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

from harness.host import cgroups


@dataclass(frozen=True)
class Device:
    """Where tensors are, and in which precision forward passes run."""

    torch: torch.device
    bf16: bool
    # channels_last is faster for thin networks too, pruned or not: docs/training-profile.md.
    layout: memory_format = channels_last
    # whether steps are recorded as CUDA graphs and replayed
    graphs: bool = False

    def autocast(self) -> AbstractContextManager[None]:
        """A context for forward passes."""
        return torch.amp.autocast_mode.autocast(self.torch.type, torch.bfloat16, enabled=self.bf16)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in the memory layout of its batches."""
        # torch's type stubs do not know the argument
        return model.to(self.torch, memory_format=self.layout)  # type: ignore[call-overload]

    def synchronize(self) -> None:
        """Wait until the device is idle, so that the time taken so far can be read."""
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
            # The id of the Docker image; null outside containers.
            "image": os.environ.get("HARNESS_IMAGE"),
            **({"cuda_graphs": self.graphs} if cuda else {}),
            **{name: version(name) for name in ("torch", "torchvision", "torch-pruning", "onnx", "onnxruntime")},
        }


def choose_device(precision: str, cuda: bool | None = None) -> Device:
    """The GPU where there is one, else the CPU, for this precision: "bf16" or "fp32".

    A GPU replays recorded steps, unless the environment says CUDA_GRAPHS=0.
    """
    use_cuda = torch.cuda.is_available() if cuda is None else cuda
    device = torch.device("cuda" if use_cuda else "cpu")
    if use_cuda:
        torch.backends.cudnn.benchmark = True
        # Where "fp32" is on record it has to be fp32: cuDNN would round convolutions to TF32, and the accuracy measured
        # here has to match that of the ONNX file.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    else:
        # oneDNN compiles a kernel for every shape and direction, and caches 1,024 of them. Every pruned network has
        # hundreds of shapes of its own: with 18 networks side by side, all kernels were compiled again in every step.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32768")
        _keep_freed_memory()
        # PyTorch counts the cores that this process may run on, but not how much of them a quota leaves it.
        if quota := cgroups.limits()["cpu_quota"]:
            torch.set_num_threads(min(torch.get_num_threads(), max(1, round(quota))))
    return Device(device, precision == "bf16", graphs=use_cuda and os.environ.get("CUDA_GRAPHS") != "0")


def emulates_bf16(device: Device) -> bool:
    """Whether the device has to compute bf16 without instructions for it: slowly, but to the same models."""
    if device.torch.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = bool(torch.cpu._is_avx512_bf16_supported())
    return device.bf16 and not native


def gpu_count() -> int:
    """The number of GPUs that this process may use; counting them initialises none."""
    return torch.cuda.device_count()


def cpu_name() -> str:
    """The processor's name as the kernel reports it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory: every training step needs the same blocks again, and page faults cost time."""
    if os.name != "posix" or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_max = -1, -4
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_max, 0)
