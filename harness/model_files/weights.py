"""How weights are stored: a state dict in a safetensors file whose metadata says what network it is of.

The shapes of the tensors say how far a network has been pruned (harness.architectures.rebuild), so there is no pickle
to trust, and neither Torch-Pruning nor anything else is needed to load one.
"""

import json
import math
import re
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from harness.architectures import Architecture, Shapes, architecture_of, build, network_of, rebuild
from harness.errors import HarnessError
from harness.files import atomic_path
from harness.plan import registry
from harness.plan.settings import ModelSettings
from harness.plan.specs import Choice, Network, plain

# What trainers put before the names of parameters, and the entries that they keep the state dict in.
PREFIXES = ("module.", "_orig_mod.", "model.")
STEMS = ("cifar", "imagenet")
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
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
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
        if metadata:
            shapes = _shapes_in(path)
            model, state = rebuild(_network(metadata["network"], shapes), shapes), load_file(path)
        else:
            state = _unwrapped(load_file(path)) if path.suffix == ".safetensors" else _read_state_dict(path)
            model = _recognise({name: tuple(value.shape) for name, value in state.items()})
        model.load_state_dict(state)
    except HarnessError as error:
        raise HarnessError(f"{path}: {error}") from error
    except (KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise HarnessError(f"{path}: cannot be loaded ({_in_short(error)})") from error
    return model, metadata


def _network(document: Mapping[str, Any], shapes: Shapes) -> Network:
    """The network that a file's metadata names; HarnessError where there is none, or where the shapes are not of it."""
    network = Network(**{**document, "architecture": Choice(**document["architecture"])})
    architecture = network.architecture
    try:
        ModelSettings(architecture=architecture.name, width=network.width, stem=network.stem)  # type: ignore[arg-type]
        registry.resolve("architecture", architecture.name, dict(architecture.parameters))
    except ValidationError as error:
        wrong = error.errors()[0]
        raise HarnessError(f"its metadata names an impossible network ({wrong['loc'][:1]}: {wrong['msg']})") from error
    except ValueError as error:
        raise HarnessError(f"its metadata names an impossible network ({error})") from error
    classes = shapes[f"{architecture_of(network).classifier}.weight"][:1]
    if classes != (network.classes,):
        raise HarnessError(f"its metadata names {network.classes} classes, and its classifier has {list(classes)}")
    return network


def _shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes that a file's header names, so that a file whose sizes are wrong is refused before it is read."""
    with safetensors.safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _recognise(shapes: Shapes) -> nn.Module:
    """The network, of any architecture in the package, that a foreign state dict with these shapes fits."""
    for name, stem in product(registry.names("architecture"), STEMS):
        choice = Choice(name, registry.resolve("architecture", name, {}))
        classifier = f"{registry.load('architecture', name, Architecture).classifier}.weight"
        if not shapes.get(classifier):
            continue
        network = Network(choice, shapes[classifier][0], 1.0, stem)
        with torch.device("meta"):
            full = {key: tuple(value.shape) for key, value in build(network).state_dict().items()}
        if _kernels(full) == _kernels(shapes):
            # the least width that holds every layer; that of the network itself where it is not pruned
            widest = max(shapes[key][0] / full[key][0] for key in full if len(full[key]) == 4)
            channels = registry.find("architecture", name).constants["CHANNELS"]
            return rebuild(replace(network, width=math.ceil(widest * channels) / channels), shapes)
    known = ", ".join(registry.find("architecture", name).title for name in registry.names("architecture"))
    raise HarnessError(f"not a state dict of a known network with torchvision's layer names; known: {known}")


def _kernels(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """What pruning leaves alone: the names of layers, how many dimensions each has, and the sizes of kernels."""
    return {name: (len(shape), *shape[2:]) for name, shape in shapes.items()}


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, pickle's among them
        raise HarnessError(
            f"cannot be loaded as plain tensors ({_in_short(error)}); "
            f"save the model's state_dict() and give that: whole pickled models run code when loaded"
        ) from error
    return _unwrapped(state)


def _in_short(error: Exception) -> str:
    """The first line of an error, without the colours that torch writes into it."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip() or type(error).__name__
    return textwrap.shorten(text.splitlines()[0], 200, placeholder=" ...")


def _unwrapped(state: Any) -> dict[str, Tensor]:
    """The state dict itself, out of what trainers wrap around it."""
    # twice, since wrappers are nested in either order
    for entry in ENTRIES * 2:
        if isinstance(state, dict) and isinstance(state.get(entry), dict):
            state = state[entry]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise HarnessError("holds no state dict; save the model's state_dict() and give that")
    for prefix in PREFIXES * 2:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
