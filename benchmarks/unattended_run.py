"""results.json: the first steps of the profiles that want a GPU, on this machine's CPU, at full width and full size.

It shows that network, training steps, pruning, export and the reference study's engine work at the size that the lite
profile only has in small, and what they cost here. Networks are untrained (random weights and BatchNorm scales):
nothing here says anything about accuracy.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from benchmarks import ROOT, Figures
from benchmarks.workload import phases, stream, untrained
from harness.bench.environments import bench_python
from harness.compression.calibration import calibrate
from harness.compression.distillation import Phase, cross_entropy
from harness.compression.pruning import prune
from harness.datasets import normalise
from harness.datasets.stand_in import draw
from harness.errors import HarnessError
from harness.model_files.onnx_export import export
from harness.plan.loading import load_settings
from harness.plan.planning import Cell, Plan, make_plan
from harness.plan.settings import Recipe
from harness.reporting.published import published_rows
from harness.store.records import Epoch
from harness.training.device import Device, choose_device
from harness.training.loop import Learner, train

ENGINE = "onnxruntime-1.16.0"
BATCH = 64
# The first step is not counted: it compiles kernels.
STEPS = 3
AMOUNTS = (0.3, 0.4)
LATENCY_ROUNDS = 50
# Run in the engine's own environment, which has no torch.
LATENCY = """
import json, statistics, sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.add_session_config_entry("session.set_denormal_as_zero", "1")
started = time.perf_counter()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
loaded = time.perf_counter() - started
image = numpy.random.default_rng(0).standard_normal((1, 3, int(sys.argv[2]), int(sys.argv[2])), dtype=numpy.float32)
times = []
for _ in range(int(sys.argv[3])):
    started = time.perf_counter()
    session.run(None, {"input": image})
    times.append(time.perf_counter() - started)
print(json.dumps([onnxruntime.__version__, loaded, statistics.median(times[5:]) * 1000]))
"""


@dataclass
class Clock:
    """A watcher that notes when each step ends, and when there have been enough of them."""

    ends: list[float] = field(default_factory=list)

    def step(self, epoch: int, epochs: int, step: int, steps: int, learners: int, images_per_s: float) -> None:
        """A step was taken."""
        self.ends.append(time.monotonic())

    def epoch(self, learner: str, number: int, of: int, epoch: Epoch) -> None:
        """An epoch is over, which is of no interest here."""

    def keep_going(self) -> bool:
        """Whether another step is wanted."""
        return len(self.ends) < STEPS

    @property
    def step_s(self) -> float:
        """Seconds per step, the first one left out."""
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def measure() -> Figures:
    """Every figure; prints each as it comes."""
    figures: Figures = {}

    def note(found: Iterable[tuple[str, float | str]]) -> None:
        for name, value in found:
            figures[name] = value
            print(f"{name}: {value if isinstance(value, str) else f'{value:.3g}'}", flush=True)

    started = time.monotonic()
    full, reference = (
        make_plan(load_settings(ROOT / "matrix.toml", profile), profile) for profile in ("full", "reference")
    )
    device = choose_device(full.settings.precision)
    note([("device", str(device.facts()["device"])), ("precision", str(device.facts()["precision"]))])
    note([("full_teacher_step_s", _teacher_step(full, device))])
    note([("reference_teacher_step_s", _teacher_step(reference, device))])
    teacher = device.place(_network(full).eval())
    cells = {cell.id: cell for cell in full.cells}
    for amount in AMOUNTS:
        for kd in ("base", "fmse", "gram"):
            cell = cells[f"p{amount:g}-bn-{kd}-s0"]
            student = _pruned(full, cell)
            note(_size(cell, student))
            if cell.id == "p0.3-bn-gram-s0":
                note([("full_student_step_s", _student_step(full, cell, student, teacher, device))])
            if cell.id == "p0.3-bn-base-s0":
                note(_exported(full, student))
    note([("batch_size", BATCH), ("seconds", time.monotonic() - started)])
    return figures


def _network(plan: Plan, seed: int = 0) -> nn.Module:
    """An untrained teacher, its BatchNorm scales as different as training leaves them."""
    return untrained(plan.teacher.teacher.network, seed, least_scale=0.2)


def _teacher_step(plan: Plan, device: Device) -> float:
    recipe = plan.teacher.teacher.recipe
    assert recipe is not None, "the profiles train their teachers"
    return _step(plan, _network(plan), recipe, [Phase("teacher", recipe.epochs, cross_entropy)], device)


def _student_step(plan: Plan, cell: Cell, student: nn.Module, teacher: nn.Module, device: Device) -> float:
    """A distillation step of one student, the teacher's pass included."""
    return _step(plan, student, cell.student.recipe, phases(cell.student, student), device, teacher)


def _step(
    plan: Plan, model: nn.Module, recipe: Recipe, todo: list[Phase], device: Device, teacher: nn.Module | None = None
) -> float:
    clock = Clock()
    smaller = recipe.model_copy(update={"batch_size": BATCH})
    batches = stream(draw(BATCH * (STEPS + 1), seed=0), smaller, plan.settings.data.augment)
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        device.place(model)
        learner = Learner("network", model, smaller, todo, Path(folder) / "checkpoint.pt")
        train([learner], batches, device, clock, lambda _: None, teacher, clock.keep_going, alone=teacher is None)
    if learner.failure:
        raise HarnessError(f"not measured: {learner.failure.message}")
    return clock.step_s


def _pruned(plan: Plan, cell: Cell) -> nn.Module:
    size = plan.settings.data.image_size
    model = prune(_network(plan, seed=1), torch.zeros(1, 3, size, size), cell.student.start).model
    images = draw(BATCH, seed=2)
    calibrate(model, normalise(images.pixels, images.mean, images.std), BATCH)
    return model


def _size(cell: Cell, student: nn.Module) -> list[tuple[str, float]]:
    """A student's parameters in millions, BatchNorm folded in as the study counts them, and what it published."""
    norms = sum(m.weight.numel() for m in student.modules() if isinstance(m, nn.BatchNorm2d))
    params = sum(value.numel() for value in student.parameters()) - norms
    name = f"params_m_{cell.prune_amount:g}_{cell.prune_method}_{cell.kd_method}"
    return [(name, params / 1e6), (f"published_{name}", published_rows()[cell.title].params_m)]


def _exported(plan: Plan, student: nn.Module) -> list[tuple[str, float | str]]:
    """A full-width pruned network as ONNX, loaded and run by the reference study's engine: one thread, batch 1."""
    images, size = draw(256, seed=3), plan.settings.data.image_size
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        path, started = Path(folder) / "model.onnx", time.monotonic()
        done = export(student, path, images, size, plan.settings.export.opset, {"cell": "untrained"})
        seconds = time.monotonic() - started
        python = bench_python(ENGINE)
        command = [str(python), "-c", LATENCY, str(path), str(size), str(LATENCY_ROUNDS)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    runtime, loaded_s, latency_ms = json.loads(said)
    return [
        ("export_s", seconds),
        ("export_parity_max_abs_diff", done.parity.max_abs_diff),
        ("export_mib", done.onnx_bytes / 2**20),
        ("export_params_m", done.params / 1e6),
        ("runtime", f"onnxruntime {runtime}"),
        ("load_s", loaded_s),
        ("latency_ms", latency_ms),
    ]
