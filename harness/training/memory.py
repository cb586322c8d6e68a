"""How many networks fit side by side: from the memory that is free and what one of them is measured to take.

It decides no number: a student's result is the same whatever trains beside it.
"""

from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn

from harness.architectures import build
from harness.host import cgroups
from harness.plan.specs import Network
from harness.training.device import Device

# Of what is free; the rest is for gradients in flight, the convolutions' workspaces and what the allocator loses.
SHARE = 0.7
# Batches of images that a network is tried on; what it keeps grows in proportion to them.
TRIALS = (2, 4)


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


def side_by_side(network: Network, image_size: int, batch_size: int, device: Device, share: float = 1.0) -> int:
    """How many networks, none wider than `network`, fit into this share of the memory that the device has free."""
    # On a GPU one thread steps one after the other.
    at_once = 1 if device.torch.type == "cuda" else torch.get_num_threads()
    return fitting(measure(network, image_size, batch_size, device), int(share * free_bytes(device)), at_once)


def measure(network: Network, image_size: int, batch_size: int, device: Device) -> Footprint:
    """What a network takes: tried with two tiny batches, in the device's own precision, and scaled to `batch_size`."""
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
    """Memory that is free for us: the GPU's, or the machine's within the limits of our control groups."""
    if device.torch.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device.torch)
        # what PyTorch holds and does not use
        return free + torch.cuda.memory_reserved(device.torch) - torch.cuda.memory_allocated(device.torch)
    available: int = psutil.virtual_memory().available
    limited = cgroups.free_memory()
    return available if limited is None else min(available, limited)
