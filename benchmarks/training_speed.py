"""training.json: the harness's training loop against usual ones, and nine students trained concurrently or one by one.

All contestants train the same network at the same resolution on the same device, and take turns, so that what disturbs
the machine disturbs all of them; figures are ratios of medians over the rounds.
"""

import copy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch_pruning as tp
from torch import nn

from benchmarks import ROOT, Figures
from benchmarks.baseline_loops import LoopProcess
from benchmarks.workload import (
    AUGMENTATIONS,
    native_device,
    nine_students,
    recipe,
    resnet50,
    some_images,
    stream,
    train_all,
)
from harness.compression.distillation import Phase, cross_entropy
from harness.datasets import Images
from harness.model_files.weights import save_weights
from harness.training.batches import Stream
from harness.training.device import Device
from harness.training.loop import CHECKPOINT_EVERY_S, Learner

# how long one call of a run with a budget lasts: BUDGET=9m
SLICE_S = 540.0
# the reference study's batch, and the usual one for CIFAR
REFERENCE_BATCH, USUAL_BATCH = 64, 128
CIFAR_SIZE = 32
MATRIX = 2048


@dataclass(frozen=True)
class Size:
    """What is trained: large enough to be real, small enough for some minutes."""

    width: float
    image: int
    batch: int
    images: int
    student_images: int
    rounds: int
    student_rounds: int


# Network and resolution of the profiles lite and full, with full's batch. An epoch has many steps, since at its start a
# data loader has batches ready that nobody has waited for, and at its end it leaves the cores to the steps.
CPU_SIZE = Size(width=0.125, image=24, batch=512, images=4_096, student_images=1_024, rounds=5, student_rounds=3)
GPU_SIZE = Size(width=1.0, image=32, batch=512, images=10_240, student_images=2_048, rounds=7, student_rounds=5)


def measure() -> Figures:
    """Every figure; prints each as it comes."""
    device = native_device()
    size = GPU_SIZE if device.torch.type == "cuda" else CPU_SIZE
    images, facts = some_images(size.images), device.facts()
    figures: Figures = {
        "device": facts["device"],
        "device_type": facts["device_type"],
        "precision": facts["precision"],
        "threads": facts["threads"],
        "torch": facts["torch"],
        "width": size.width,
        "image_size": size.image,
        "batch": size.batch,
        "rounds": size.rounds,
    }
    figures |= _steps(size, images, device)
    figures |= _students(size, images.first(size.student_images), device)
    for name, value in figures.items():
        print(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")
    return figures


def take_turns(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each contestant's figures, one per round; a round before the first is not counted."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            figure = run()
            if number:
                found[name].append(figure)
    return found


def ratio(found: dict[str, list[float]], slow: str, fast: str, name: str) -> Figures:
    """How many times as long one takes, by medians; and the least and the most of a round."""
    by_round = [one / other for one, other in zip(found[slow], found[fast], strict=True)]
    return {
        name: statistics.median(found[slow]) / statistics.median(found[fast]),
        f"{name}_least": min(by_round),
        f"{name}_most": max(by_round),
    }


# --- One network -----------------------------------------------------------------------------------------------------


def _steps(size: Size, images: Images, device: Device) -> Figures:
    model = resnet50(size.width)

    def engine(*augment: str, batch: int = size.batch, image: int = size.image) -> Callable[[], float]:
        return _engine(copy.deepcopy(model), stream(images.to(device.torch), recipe(batch, image), augment), device)

    with ExitStack() as stack:

        def other(transform: str, batch: int, image: int = size.image) -> Callable[[], float]:
            return stack.enter_context(LoopProcess(transform, batch, size.width, image, size.images)).seconds_per_image

        contestants = {
            "reference": other("study", REFERENCE_BATCH),
            "engine_study": engine("study"),
            "engine_study_same": engine("study", batch=REFERENCE_BATCH),
            "usual": other("usual", USUAL_BATCH),
            "engine": engine(*AUGMENTATIONS),
            "engine_same": engine(*AUGMENTATIONS, batch=USUAL_BATCH),
            "matmul": lambda: _matmul_rate(device),
        }
        if size.image != CIFAR_SIZE:
            contestants |= {
                "reference_larger": other("study", REFERENCE_BATCH, CIFAR_SIZE),
                "engine_larger": engine("study", image=CIFAR_SIZE),
            }
        found = take_turns(contestants, size.rounds)
    macs, _ = tp.utils.count_ops_and_params(model, torch.zeros(1, 3, size.image, size.image))
    images_per_second = 1 / statistics.median(found["engine"])
    rate = statistics.median(found["matmul"])
    figures: Figures = {
        **ratio(found, "reference", "engine_study", "step_speedup_vs_reference_style"),
        **ratio(found, "usual", "engine", "step_speedup_vs_usual_cifar_loop"),
        # with the batches of the others, at which the engine is not at its best
        **ratio(found, "reference", "engine_study_same", f"speedup_vs_reference_style_at_batch_{REFERENCE_BATCH}"),
        **ratio(found, "usual", "engine_same", f"speedup_vs_usual_cifar_loop_at_batch_{USUAL_BATCH}"),
        "images_per_second": images_per_second,
        "images_per_second_reference_style": 1 / statistics.median(found["reference"]),
        "images_per_second_usual_cifar_loop": 1 / statistics.median(found["usual"]),
        "matmul_flops_per_second": rate,
        # forward, and twice that backward; two operations per multiply-add
        "matmul_share": 6 * macs * images_per_second / rate,
    }
    if "engine_larger" in found:
        figures |= ratio(found, "reference_larger", "engine_larger", f"speedup_vs_reference_style_at_{CIFAR_SIZE}_px")
    return figures


def _engine(model: nn.Module, batches: Stream, device: Device) -> Callable[[], float]:
    """An epoch of the real training loop, seconds per image."""
    device.place(model)

    def run() -> float:
        learner = Learner("one", model, batches.recipe, [Phase("labels", 1, cross_entropy)], Path("unused"))
        with _stopwatch(device) as seconds:
            train_all([learner], batches, device, alone=True)
        return seconds[0] / (batches.steps * batches.batch_size)

    return run


def _matmul_rate(device: Device) -> float:
    """Operations per second of one large matrix product in the precision that trains."""
    kind = torch.bfloat16 if device.bf16 else torch.float32
    one, other = (torch.ones(MATRIX, MATRIX, dtype=kind, device=device.torch) for _ in range(2))
    times = 50 if device.torch.type == "cuda" else 5
    torch.mm(one, other)
    with _stopwatch(device) as seconds:
        for _ in range(times):
            torch.mm(one, other)
    return times * 2 * MATRIX**3 / seconds[0]


# --- Nine students ---------------------------------------------------------------------------------------------------


def _students(size: Size, images: Images, device: Device) -> Figures:
    teacher, students = nine_students(size.width, size.image, size.batch)
    device.place(teacher.eval())
    for student in students:
        device.place(student.model)
    batches = stream(images.to(device.torch), recipe(size.batch, size.image))
    with tempfile.TemporaryDirectory(prefix="harness-training-") as name:
        folder = Path(name)

        def learners() -> list[Learner]:
            return [student.learner(folder) for student in students]

        def run(groups: list[list[Learner]], alone: bool) -> float:
            with _stopwatch(device) as seconds:
                for group in groups:
                    train_all(group, batches, device, teacher, alone=alone)
            return seconds[0]

        found = take_turns(
            {
                "together": lambda: run([learners()], alone=False),
                # each has the whole device to itself, and the teacher's answers are computed for it anew
                "alone": lambda: run([[one] for one in learners()], alone=True),
            },
            size.student_rounds,
        )
        # Methods with a feature stage train for two epochs, the others are there in the first alone.
        step = statistics.median(found["together"]) / (2 * batches.steps)
        concurrent = learners()
        train_all(concurrent, batches, device, teacher, keep_going=lambda: False)
        with _stopwatch(device) as saving:
            for learner in concurrent:
                learner.save()
        for learner in concurrent:
            save_weights(folder / f"{learner.name}.safetensors", learner.model, {})
        save_weights(folder / "teacher.safetensors", teacher, {})
        sizes = (size.width, size.image, size.batch, size.student_images)
        command = [sys.executable, "-m", "benchmarks.resume_cost", str(folder), *map(str, sizes)]
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True)
        # less the step, which has to be made anyway, and the checkpoints that end it
        resuming = time.perf_counter() - started - step - saving[0]
    stop = saving[0] + resuming
    return {
        **ratio(found, "together", "alone", "nine_students_together_vs_alone"),
        "checkpoint_s": saving[0],
        "stop_and_resume_s": stop,
        # of nine minutes: the checkpoints in between, the last ones, and the next start up to its first step
        "resume_overhead_pct": 100 * (saving[0] / CHECKPOINT_EVERY_S + stop / SLICE_S),
    }


@contextmanager
def _stopwatch(device: Device) -> Iterator[list[float]]:
    """Seconds of the block, in a list that is filled when it ends."""
    seconds: list[float] = []
    device.synchronize()
    started = time.perf_counter()
    yield seconds
    device.synchronize()
    seconds.append(time.perf_counter() - started)
