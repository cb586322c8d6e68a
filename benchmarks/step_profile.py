"""training_profile.json and the tables of docs/training-profile.md: where a training step's time goes, and what helps.

The step is the harness's own (Learner.learn). "Where": shares of the time by kind of operation, from torch.profiler.
"What helps": the same step with one thing changed; all variants take turns, and figures are ratios of medians.
"""

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks import Figures
from benchmarks.training_speed import take_turns
from benchmarks.workload import native_device, nine_students, recipe, resnet50, some_images, stream
from harness.architectures._batchnorm import BatchNorm2d
from harness.compression.distillation import Phase, cross_entropy
from harness.files import write_text
from harness.reporting.markers import fill, read_document
from harness.store.revision import revision
from harness.training.batches import Stream
from harness.training.device import Device
from harness.training.loop import Learner

DOCUMENT = Path("docs/training-profile.md")
IMAGE = 32
CPU_WIDTHS, GPU_WIDTHS = (0.125, 0.25), (0.25, 1.0)
CPU_BATCH, GPU_BATCH = 128, 512
ROUNDS, STEPS = 7, 2
TOUCHED_BYTES = 2 * 2**30
# divided by the step of that same network
PRUNED = "a pruned network on one core"
# an operation belongs to the first kind whose word is in its name
KINDS = {
    "convolution, backward": ("convolution_backward", "dgrad", "wgrad"),
    "convolution": ("conv", "xmma", "cutlass", "gemm"),
    "BatchNorm, backward": ("batch_norm_backward", "bn_bw", "batchnorm_bwd"),
    "BatchNorm": ("batch_norm", "bn_fw", "batchnorm"),
    "ReLU": ("clamp_min", "threshold", "relu"),
    "residual sums, gradients added up": ("aten::add", "add_"),
    "conversions and copies": ("copy", "_to"),
    "optimiser and clipping": ("sgd", "foreach", "norm", "mul_", "multi_tensor"),
}


def measure() -> Figures:
    """Every figure, and both tables of the document.

    `where: <width>: <kind>` is in percent, `variant: <width>: <what>` a multiple of the harness's own step.
    """
    device = native_device()
    cuda = device.torch.type == "cuda"
    widths, batch = (GPU_WIDTHS, GPU_BATCH) if cuda else (CPU_WIDTHS, CPU_BATCH)
    batches = stream(some_images(batch).to(device.torch), recipe(batch, IMAGE))
    images, labels = next(batches.batches(0))
    facts = device.facts()
    figures: Figures = {name: facts[name] for name in ("device", "precision", "threads", "torch")}
    figures |= {"batch": batch, "image_size": IMAGE}
    for width in widths:
        for kind, share in where(width, images, labels, device).items():
            figures[f"where: {width:g}: {kind}"] = share
        for name, by in variants(width, batches, device).items():
            figures[f"variant: {width:g}: {name}"] = by
    both = {"where": where_table, "variants": variants_table}
    filled, _ = fill(read_document(DOCUMENT), str(DOCUMENT), lambda marker: both[marker.experiment](figures, widths))
    write_text(DOCUMENT, filled)
    return figures


def where(width: float, images: Tensor, labels: Tensor, device: Device) -> dict[str, float]:
    """Percent of a step's time by kind of operation."""
    step = stepping(width, images, labels, device)
    for _ in range(STEPS):
        step()
    cuda = device.torch.type == "cuda"
    if not cuda:
        # What the profiler notes lies between the blocks of memory that every step takes, which are then too small for
        # the next one: it gets new pages, whose faults would count as BatchNorm's or the convolution's. Pages that the
        # process has had before cost nothing.
        touched = torch.ones(TOUCHED_BYTES, dtype=torch.uint8)
        del touched
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as seen:
        for _ in range(STEPS):
            step()
    shares = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for event in seen.key_averages():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        name = event.key.lower()
        kind = next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "the rest")
        shares[kind] += spent
    total = sum(shares.values())
    return {kind: 100 * spent / total for kind, spent in shares.items()}


def variants(width: float, batches: Stream, device: Device) -> dict[str, float]:
    """How many times as long a step takes with one thing changed; and what making its batch takes."""
    images, labels = next(batches.batches(0))

    def timed(step: Callable[[], object]) -> Callable[[], float]:
        def run() -> float:
            device.synchronize()
            started = time.perf_counter()
            for _ in range(STEPS):
                step()
            device.synchronize()
            return (time.perf_counter() - started) / STEPS

        return run

    def with_(device: Device = device, **change: Any) -> Callable[[], None]:
        return stepping(width, images, labels, device, **change)

    plain = replace(device, layout=torch.contiguous_format)

    steps: dict[str, Callable[[], object]] = {
        "as it is": with_(),
        "plain layout instead of channels_last": with_(plain),
        "BatchNorm of few channels not folded": with_(model=_unfolded(resnet50(width))),
        "fp32" if device.bf16 else "bf16": with_(replace(device, bf16=not device.bf16)),
        "SGD, one parameter after the other": with_(optimizer={"fused": False, "foreach": False}),
        "SGD, foreach": with_(optimizer={"fused": False, "foreach": True}),
        "no clipping": with_(clip_norm=0.0),
        "no step, only its batch": lambda: next(batches.batches(0)),
    }
    found = take_turns({name: timed(step) for name, step in steps.items()}, ROUNDS)
    own = statistics.median(found.pop("as it is"))
    by = {name: statistics.median(taken) / own for name, taken in found.items()}
    # as concurrent students train
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    student = nine_students(width, IMAGE, batches.batch_size)[1][0].model
    pruned = {
        "as it is": with_(model=copy.deepcopy(student)),
        "plain layout": with_(plain, model=copy.deepcopy(student)),
        "BatchNorm not folded": with_(model=_unfolded(copy.deepcopy(student))),
    }
    found = take_turns({name: timed(step) for name, step in pruned.items()}, ROUNDS)
    torch.set_num_threads(threads)
    own = statistics.median(found.pop("as it is"))
    return by | {f"{PRUNED}, {name}": statistics.median(taken) / own for name, taken in found.items()}


def stepping(
    width: float,
    images: Tensor,
    labels: Tensor,
    device: Device,
    optimizer: dict[str, Any] | None = None,
    model: nn.Module | None = None,
    **changes: Any,
) -> Callable[[], None]:
    """A function that takes one step of a learner on labels; `changes` are to the recipe."""
    model = model or resnet50(width)
    device.place(model)
    phase = Phase("labels", 10_000, cross_entropy)
    how = recipe(len(labels), images.shape[-1], **changes)
    learner = Learner("one", model, how, [phase], Path("unused"))
    if optimizer is not None:
        settings = how.model_dump(include={"lr", "momentum", "nesterov", "weight_decay"})
        learner.optimizer = torch.optim.SGD(model.parameters(), **settings, **optimizer)
    return lambda: learner.learn(images, labels, None, device, 10_000)


def _unfolded(model: nn.Module) -> nn.Module:
    """The same network with nothing but PyTorch's own kernels."""
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            module.fold = lambda x: 1  # type: ignore[method-assign]
    return model


def where_table(figures: Figures, widths: tuple[float, ...]) -> str:
    """Shares by kind of operation as Markdown, and what they were measured on."""
    about = (
        f"{figures['device']}, {figures['threads']} threads, {figures['precision']}, torch {figures['torch']}, "
        f"batch {figures['batch']}, {figures['image_size']} px, harness {revision()}."
    )
    return f"{_table(figures, 'where', 'Share of a step (%)', widths)}\n\n{about}"


def variants_table(figures: Figures, widths: tuple[float, ...]) -> str:
    """Steps with one thing changed as Markdown."""
    return _table(figures, "variant", "A step's time divided by that of the harness's own", widths)


def _table(figures: Figures, prefix: str, title: str, widths: tuple[float, ...]) -> str:
    names = dict.fromkeys(name.split(": ", 2)[2] for name in figures if name.startswith(f"{prefix}: "))
    rows = [[name, *(f"{figures[f'{prefix}: {width:g}: {name}']:.2f}" for width in widths)] for name in names]
    headers = [title, *(f"width {width:g}" for width in widths)]
    align = ["left", *["right"] * len(widths)]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=align)
