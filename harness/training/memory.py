"""How many networks can train side by side, given the free memory and what one of them is measured to need.

This affects speed alone: on a CPU a student's result is the same whatever trains beside it.
"""

from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn

from harness.architectures import build
from harness.host import cgroups
from harness.plan.specs import Network
from harness.training.device import Device

# The part of the free memory that is planned for. The rest is for temporary gradients, the workspaces of convolutions,
# and fragmentation.
SHARE = 0.7
# Batch sizes that a network is tried with; the memory that a step takes grows linearly with the batch size.
TRIALS = (2, 4)


@dataclass(frozen=True)
class Footprint:
    """The bytes that a network in training needs: `standing` all the time, `working` only during a step."""

    standing: int
    working: int


def fitting(footprint: Footprint, free: int, at_once: int) -> int:
    """How many networks fit into `free` bytes beside a teacher if `at_once` of them take a step; at least one."""
    # The teacher keeps no activations for a backward pass, so one working set covers it and the next batch.
    left = SHARE * free - (at_once + 1) * footprint.working
    return max(1, int(left // footprint.standing))


def side_by_side(network: Network, image_size: int, batch_size: int, device: Device, share: float = 1.0) -> int:
    """How many networks no wider than `network` fit into this share of the device's free memory."""
    # On a GPU a single thread takes the steps one after the other.
    at_once = 1 if device.torch.type == "cuda" else torch.get_num_threads()
    return fitting(measure(network, image_size, batch_size, device), int(share * free_bytes(device)), at_once)


def measure(network: Network, image_size: int, batch_size: int, device: Device) -> Footprint:
    """The memory that a network needs, measured with two tiny batches and extrapolated to `batch_size`."""
    with torch.random.fork_rng(devices=[]):
        model = build(network)
    device.place(model)
    few, more = (_kept_for_backward(model, count, image_size, device) for count in TRIALS)
    per_image = (more - few) / (TRIALS[1] - TRIALS[0])
    fixed = few - TRIALS[0] * per_image
    weights = sum(value.nbytes for value in model.state_dict().values())
    # weights, gradients and momentum
    return Footprint(3 * weights, int(per_image * batch_size + fixed))


def _kept_for_backward(model: nn.Module, images: int, size: int, device: Device) -> int:
    """The bytes that autograd keeps from the forward for the backward pass; each block of memory counts once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = torch.zeros(images, 3, size, size, device=device.torch).contiguous(memory_format=device.layout)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), device.autocast():
        # Kept until everything is counted: freed memory could be allocated again and counted twice.
        logits = model(batch)
    total = sum(kept.values())
    del logits
    return total


def free_bytes(device: Device) -> int:
    """The free memory in bytes: the GPU's, or what this process may still take of the machine's."""
    if device.torch.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device.torch)
        # PyTorch has reserved more than it uses; the difference is free for us too.
        return free + torch.cuda.memory_reserved(device.torch) - torch.cuda.memory_allocated(device.torch)
    available: int = psutil.virtual_memory().available
    limited = cgroups.free_memory()
    return available if limited is None else min(available, limited)
