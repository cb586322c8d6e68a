"""Which way of taking steps is the fastest on this GPU: started kernel by kernel, replayed as CUDA graphs, compiled.

At full width and the batch size of profile `full`, on drawn images, at each of its sizes: the teacher's step, and that
of nine students with their teacher's pass. It decides how long recipes may be.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from benchmarks import Figures
from benchmarks.workload import nine_students, recipe, resnet50, stream
from harness.compression.distillation import Phase, cross_entropy
from harness.datasets.stand_in import draw
from harness.errors import HarnessError
from harness.training.device import Device, choose_device
from harness.training.loop import Learner, desk_for, teach
from harness.training.replay import WARM_UP

SIZES, BATCH, WIDTH = (16, 24, 32), 512, 1.0
# Rounds that are timed, after those in which kernels are chosen, compiled or recorded.
ROUNDS = 10


def measure() -> Figures:
    """Images per second by size, network and way, and what it took to get going. HarnessError without a GPU."""
    if not torch.cuda.is_available():
        raise HarnessError("there is no CUDA GPU here, and this subject compares ways of taking steps on one")
    return steps(replace(choose_device("bf16"), graphs=False), SIZES, BATCH, WIDTH, ROUNDS, compiled=True)


def steps(
    device: Device,
    sizes: Sequence[int],
    batch: int,
    width: float,
    rounds: int,
    graphs: bool = True,
    compiled: bool = False,
) -> Figures:
    """The figures of a device: kernel by kernel, and with graphs and compiled where that is asked for."""
    ways = {"kernel by kernel": device, **({"graphs": replace(device, graphs=True)} if graphs else {})}
    found: Figures = {"device": str(device.facts()["device"]), "batch": batch, "width": width}
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        for size in sizes:

            def teacher(path: Path = Path(folder) / "teacher.pt", size: int = size) -> Learner:
                how = recipe(batch, size)
                return Learner("teacher", device.place(resnet50(width)), how, [Phase("labels", 1, cross_entropy)], path)

            for way, chosen in ways.items():
                found |= _named(f"{size} px, teacher, {way}", _speed([teacher()], None, chosen, batch, size, rounds))
            if compiled:
                one = teacher()
                one.model.tapped = torch.compile(one.model.tapped)  # type: ignore[assignment, arg-type]
                found |= _named(f"{size} px, teacher, compiled", _speed([one], None, device, batch, size, rounds))
            taught, contestants = nine_students(width, size, batch)
            taught = device.place(taught).eval()
            for way, chosen in ways.items():
                for contestant in contestants:
                    device.place(contestant.model)
                students = [contestant.learner(Path(folder)) for contestant in contestants]
                figures = _speed(students, taught, chosen, batch, size, rounds)
                found |= _named(f"{size} px, nine students, {way}", figures)
    return found


def _named(what: str, figures: Figures) -> Figures:
    return {f"{what}: {name}": value for name, value in figures.items()}


def _speed(
    learners: Sequence[Learner], teacher: nn.Module | None, device: Device, batch: int, size: int, rounds: int
) -> Figures:
    """Images a second that all of these learners learn from together, and the seconds before the first timed round."""
    batches = stream(draw(batch, seed=1).to(device.torch), recipe(batch, size))
    desk = desk_for(learners, device)
    if device.torch.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def learn() -> None:
        images, labels = next(batches.batches(0))
        outputs = teach(teacher, images, learners, device)
        if desk:
            images, labels, outputs = desk.put(images, labels, outputs)
        for one in learners:
            one.learn(images, labels, outputs, device, steps=10**9)

    ready_s = _seconds(learn, WARM_UP + 1, device)
    taken_s = _seconds(learn, rounds, device)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.torch.type == "cuda" else None
    return {"images_per_s": batch * rounds / taken_s, "ready_s": ready_s, "peak_gib": peak}


def _seconds(job: Callable[[], None], times: int, device: Device) -> float:
    started = time.perf_counter()
    for _ in range(times):
        job()
    device.synchronize()
    return time.perf_counter() - started
