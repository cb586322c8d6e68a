"""How weights are stored: a state dict in a safetensors file whose metadata says what network it is of.

The shapes of the tensors say how far a network has been pruned (harness.architectures.rebuild), so there is no pickle
to trust, and neither Torch-Pruning nor anything else is needed to load one.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from harness.architectures import build, network_of, rebuild
from harness.errors import HarnessError
from harness.files import atomic_path
from harness.plan import registry
from harness.plan.specs import Choice, Network, plain

# What trainers put before the names of parameters, and the entries that they keep the state dict in.
PREFIXES = ("module.", "_orig_mod.", "model.")
ENTRIES = ("state_dict", "model_state_dict", "model", "net")


def save_weights(path: Path, model: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write weights and what network they are of as safetensors, atomically; `metadata` values are stored as JSON."""
    header = {"network": plain(network_of(model)), **metadata}
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


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file; empty where the file is not ours. HarnessError where it is unreadable."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
        # a file from elsewhere has metadata too, in no format that is promised
        return {name: json.loads(value) for name, value in header.items()} if "network" in header else {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise HarnessError(f"{path}: not a readable safetensors file ({error}); it may be cut short") from error


def load_weights(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A model from safetensors or from a `.pt` state dict with our names; and the metadata, if ours.

    A file that does not say what network it is of may be of any architecture in the package. Raises HarnessError where
    the file is missing, corrupt, or of no architecture that is known.
    """
    if not path.is_file():
        raise HarnessError(f"{path}: no such checkpoint; train one, or give another path")
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    try:
        network = _network(metadata["network"]) if metadata else None
        if network is not None:
            model = rebuild(network, _shapes_in(path))
        state = _unwrapped(load_file(path)) if path.suffix == ".safetensors" else _read_state_dict(path)
        if network is None:
            model = _recognise(state)
        model.load_state_dict(state)
    except HarnessError as error:
        raise HarnessError(f"{path}: {error}") from error
    except (KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise HarnessError(f"{path}: cannot be loaded ({str(error).strip().splitlines()[0]})") from error
    return model, metadata


def _network(document: Mapping[str, Any]) -> Network:
    return Network(**{**document, "architecture": Choice(**document["architecture"])})


def _shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes that a file's header names: nothing is allocated for a file that takes its sizes from nowhere."""
    with safetensors.safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _recognise(state: Mapping[str, Tensor]) -> nn.Module:
    """The network, of any architecture in the package, that a foreign state dict fits."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    for name in registry.names("architecture"):
        classifier = f"{registry.load('architecture', name).classifier}.weight"
        if classifier not in shapes:
            continue
        kernel = next(iter(shapes.values()))[-1]
        network = Network(Choice(name), shapes[classifier][0], 1.0, "cifar" if kernel == 3 else "imagenet")
        full = {key: tuple(value.shape) for key, value in build(network).state_dict().items()}
        if full.keys() == shapes.keys():
            # the least width that holds every layer; exactly that of the network where it is not pruned
            width = max(shapes[key][0] / full[key][0] for key in full if len(full[key]) == 4)
            return rebuild(replace(network, width=width), shapes)
    known = ", ".join(registry.find("architecture", name).title for name in registry.names("architecture"))
    raise HarnessError(f"not a state dict of a known network with torchvision's layer names; known: {known}")


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, pickle's among them
        reason = str(error).strip() or type(error).__name__
        raise HarnessError(
            f"cannot be loaded as plain tensors ({reason.splitlines()[0]}); "
            f"save the model's state_dict() and give that: whole pickled models run code when loaded"
        ) from error
    return _unwrapped(state)


def _unwrapped(state: Any) -> dict[str, Tensor]:
    """The state dict itself, out of what trainers wrap around it."""
    for entry in ENTRIES:
        if isinstance(state, dict) and isinstance(state.get(entry), dict):
            state = state[entry]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise HarnessError("holds no state dict; save the model's state_dict() and give that")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
