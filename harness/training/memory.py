"""How many networks fit side by side: from the memory that is free and what one of them is measured to take.

It decides no number: a student's result is the same in any company.
"""

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor

from harness.architectures.resnet import ResNet50, Widths
from harness.training.device import Device

# Of what is free; the rest is for gradients in flight, the convolutions' workspaces and what the allocator loses.
SHARE = 0.7
# Batches of images that a network is tried on; what it keeps grows in proportion to them.
TRIALS = (2, 4)
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Footprint:
    """Bytes that one network in training takes: `standing` all the time, `working` while it takes its step."""

    standing: int
    working: int


def fitting(footprint: Footprint, free: int, at_once: int) -> int:
    """How many networks fit into `free` bytes where so many of them step `at_once`, beside a teacher; at least one."""
    # The teacher keeps no activations for a backward pass, so a whole working set covers it and the next batch.
    left = SHARE * free - (at_once + 1) * footprint.working
    return max(1, int(left // footprint.standing))


def side_by_side(widths: Widths, stem: str, image_size: int, batch_size: int, device: Device) -> int:
    """How many networks, none wider than `widths`, fit on the device as it is now."""
    # On a GPU one thread steps one after the other.
    at_once = 1 if device.torch.type == "cuda" else torch.get_num_threads()
    return fitting(measure(widths, stem, image_size, batch_size, device), free_bytes(device), at_once)


def measure(widths: Widths, stem: str, image_size: int, batch_size: int, device: Device) -> Footprint:
    """What a network takes: tried with two tiny batches, in the device's own precision, and scaled to `batch_size`."""
    with torch.random.fork_rng(devices=[]):
        model = ResNet50(widths, stem)
    device.place(model)
    few, more = (_kept_for_backward(model, count, image_size, device) for count in TRIALS)
    per_image = (more - few) / (TRIALS[1] - TRIALS[0])
    fixed = few - TRIALS[0] * per_image
    weights = sum(value.nbytes for value in model.state_dict().values())
    # weights, gradients and momentum
    return Footprint(3 * weights, int(per_image * batch_size + fixed))


def _kept_for_backward(model: ResNet50, images: int, size: int, device: Device) -> int:
    """Bytes that autograd keeps between forward and backward, each block of memory counted once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = torch.zeros(images, 3, size, size, device=device.torch).contiguous(memory_format=device.layout)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), device.autocast():
        # held until the count is done: freed memory would be handed out, and counted, twice
        logits = model(batch)
    total = sum(kept.values())
    del logits
    return total


def free_bytes(device: Device) -> int:
    """Memory that is free for us: the GPU's, or the machine's within the limit of our control group."""
    if device.torch.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device.torch)
        # what PyTorch holds and does not use
        return free + torch.cuda.memory_reserved(device.torch) - torch.cuda.memory_allocated(device.torch)
    return min(psutil.virtual_memory().available, _cgroup_bytes(CGROUP))


def _cgroup_bytes(root: Path) -> int:
    """What the control group (v2, or v1) still allows; without a limit, as much as can be."""
    for limit, used, freeable in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            most, now = (root / limit).read_text().strip(), int((root / used).read_text())
            facts = dict(line.split() for line in (root / freeable).read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most != "max":
            # pages of files that were read are given up when somebody needs them
            return max(0, int(most) - now + int(facts.get("inactive_file", 0)))
    return 2**63 - 1
