"""Networks, one file each: what an architecture has to bring, and how any network is built, pruned or not.

An architecture's file defines ARCHITECTURE, an `Architecture`, and these constants (harness.plan.registry): TITLE, its
name in tables; CHANNELS, the channels of its narrowest layer at width 1; PARAMETERS, settings of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.architectures._convolution import mend
from harness.errors import HarnessError
from harness.plan import registry
from harness.plan.specs import Network

# Parameter or buffer, by its name in the state dict, -> its shape.
Shapes = Mapping[str, tuple[int, ...]]
Widths = dict[str, int]


class Outputs(NamedTuple):
    """Logits [N, classes], and the features that were asked for, each [N, C, H, W], by tap."""

    logits: Tensor
    features: dict[str, Tensor]


@dataclass(frozen=True)
class FeatureStage:
    """A stage of a network as distillation reads it.

    The taps name features: `first`, the first convolution of the second block, before its BatchNorm; `norm`, the last
    BatchNorm before the residual sum; `sum`, the stage's output. The layers are the convolutions that decide how many
    channels these have: `first_conv` those of `first`, `last_conv` those of `norm` and `sum`.
    """

    first: str
    norm: str
    sum: str
    first_conv: str
    last_conv: str


class Architecture(ABC):
    """What an architecture's file brings. Subclass it, and name an instance ARCHITECTURE."""

    # The module that answers; pruning leaves its outputs alone.
    classifier: str = "fc"
    # Where features can be read for distillation; an architecture without any trains with methods that read none.
    stem_tap: str | None = None
    stem_conv: str | None = None
    stages: tuple[FeatureStage, ...] = ()

    @abstractmethod
    def build(self, network: Network) -> nn.Module:
        """The unpruned network, freshly initialised: images [N, 3, S, S] -> logits [N, classes].

        A module that has a method `tapped(images, taps) -> Outputs` hands out its features itself. From any other they
        are read by hooks, and a tap is the name of a submodule.
        """

    def initialise(self, model: nn.Module) -> None:
        """Give a network of whatever widths new random weights."""
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()


def architecture_of(network: Network) -> Architecture:
    """The plug-in that a network is built by."""
    found: Architecture = registry.load("architecture", network.architecture.name, Architecture)
    return found


def build(network: Network) -> nn.Module:
    """The unpruned network with new weights; what it is, is kept in its attribute `network`."""
    model = mend(architecture_of(network).build(network))
    model.network = network  # type: ignore[assignment]
    return model


def network_of(model: nn.Module) -> Network:
    """What a network is an unpruned or pruned version of."""
    network = model.network
    assert isinstance(network, Network)
    return network


def rebuild(network: Network, shapes: Shapes) -> nn.Module:
    """A network whose parameters and buffers have these shapes: the unpruned one with smaller layers, values undefined.

    Works for every architecture, since pruning only ever makes layers smaller. HarnessError where the shapes are not
    those of such a network; nothing larger than the unpruned network is ever allocated.
    """
    with torch.random.fork_rng(devices=[]):
        model = build(network)
    full = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if odd := full.keys() ^ shapes.keys():
        raise HarnessError(f"not a {network.architecture.name} with its layer names (differs in {min(odd)})")
    for name, shape in shapes.items():
        if not _pruned_from(full[name], shape):
            raise HarnessError(f"{name} is {list(shape)}, and {list(full[name])} in the unpruned network")
    for name, module in model.named_modules():
        own = {part: shapes[f"{name}.{part}" if name else part] for part, _ in _tensors(module)}
        if own:
            _shrink(name, module, own)
    return model


def _pruned_from(full: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether pruning can have given a tensor this shape: some channels, no more than before, and the same kernel."""
    same_form = len(shape) == len(full) and shape[2:] == full[2:]
    return same_form and all(0 < channels <= most for channels, most in zip(shape, full, strict=True))


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The module's own parameters and persistent buffers."""
    return [(name, value) for name, value in module.state_dict(keep_vars=True).items() if "." not in name]


def _shrink(name: str, module: nn.Module, shapes: Shapes) -> None:
    same = all(tuple(value.shape) == shapes[part] for part, value in _tensors(module))
    if same:
        return
    if isinstance(module, nn.Conv2d):
        # in a depthwise convolution the groups follow the channels, each with as many outputs as before
        depthwise = module.groups > 1 and module.groups == module.in_channels
        outputs_per_group = module.out_channels // module.groups
        module.out_channels = shapes["weight"][0]
        module.groups = module.out_channels // outputs_per_group if depthwise else module.groups
        module.in_channels = shapes["weight"][1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = shapes["weight"]
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.num_features = shapes["weight"][0]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(shapes["weight"])
    else:
        raise HarnessError(f"{name}: a pruned {type(module).__name__} cannot be rebuilt")
    for part, value in _tensors(module):
        if isinstance(value, nn.Parameter):
            setattr(module, part, nn.Parameter(value.new_empty(shapes[part])))
        else:
            module.register_buffer(part, value.new_empty(shapes[part]))


def fresh(model: nn.Module, seed: int) -> nn.Module:
    """A network of the same shape with new random weights."""
    made = copy_of(model)
    torch.manual_seed(seed)
    architecture_of(network_of(model)).initialise(made)
    return made


def copy_of(model: nn.Module) -> nn.Module:
    """A plain network of the same shape and weights: nothing that a pruner attached stays behind."""
    state = model.state_dict()
    made = rebuild(network_of(model), {name: tuple(value.shape) for name, value in state.items()})
    made.load_state_dict(state)
    return made


def tapped(model: nn.Module, images: Tensor, taps: frozenset[str] = frozenset()) -> Outputs:
    """Logits of images [N, 3, S, S], and the features at `taps`; without taps nothing is kept.

    HarnessError on a tap that does not exist, and where a network without `tapped` overwrites in place what a hook has
    read: its features would not be what their name says.
    """
    own = getattr(model, "tapped", None)
    if callable(own):
        found: Outputs = own(images, taps)
        _refuse_unknown(taps - found.features.keys())
        return found
    features: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    _refuse_unknown(taps - modules.keys())
    versions: dict[str, int] = {}

    def read(tap: str) -> None:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            features[tap], versions[tap] = output, output._version

        handles.append(modules[tap].register_forward_hook(hook))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for tap in taps:
            read(tap)
        logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    for tap, value in features.items():
        if value._version != versions[tap]:
            raise HarnessError(f"{tap} is overwritten in place by the layers that follow; give the network a `tapped`")
    return Outputs(logits, features)


def _refuse_unknown(taps: AbstractSet[str]) -> None:
    if taps:
        raise HarnessError(f"the network has nothing called {', '.join(sorted(taps))} to read features from")


def widths_of(model: nn.Module) -> Widths:
    """The output channels of every convolution, by name."""
    return {name: module.out_channels for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def parameter_count(model: nn.Module) -> int:
    """Trainable numbers, BatchNorm's scale and shift included."""
    return sum(parameter.numel() for parameter in model.parameters())
