"""results.json: the first steps of the profiles that want a GPU, on this machine's CPU, at full width and full size.

It shows that network, steps, pruning, export and the pinned runtime work at the size that the lite profile only has in
small, and what they cost here. Networks are untrained (random weights and BatchNorm scales): nothing here says anything
about accuracy.
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

from harness.architectures.resnet import ResNet50, full_widths
from harness.commands.bench_job import bench_python
from harness.compression.distillation import Phase, cross_entropy, phases
from harness.compression.pruning import prune, recalibrate
from harness.export.onnx_export import export
from harness.plan.planning import Cell, Plan, make_plan
from harness.plan.settings import load_settings
from harness.reporting.published import published_rows
from harness.store.records import Epoch
from harness.training.augment import normalise
from harness.training.data import Stream, draw_stand_in
from harness.training.device import Device, choose_device
from harness.training.loop import Learner, train

ROOT = Path(__file__).parents[1]
BATCH = 64
# The first step is not counted: it compiles kernels.
STEPS = 3
AMOUNTS = (0.3, 0.4)
LATENCY_ROUNDS = 50
# Run in the environment of the pinned runtime, which has neither torch nor this package's training room.
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
    """Notes when each step ends, and says stop after enough of them."""

    ends: list[float] = field(default_factory=list)

    def step(self, epoch: int, epochs: int, step: int, steps: int, learners: int, images_per_s: float) -> None:
        """A step was taken."""
        self.ends.append(time.monotonic())

    def epoch(self, learner: str, number: int, of: int, epoch: Epoch) -> None:
        """An epoch is over; nobody waits for that here."""

    def lasts(self) -> bool:
        """Whether another step is wanted."""
        return len(self.ends) < STEPS

    @property
    def step_s(self) -> float:
        """Seconds per step, the first one left out."""
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def measure() -> dict[str, float | str]:
    """Every figure; prints each as it comes."""
    figures: dict[str, float | str] = {}

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
    teacher = _network(full, seed=0)
    note([("full_teacher_step_s", _teacher_step(full, device))])
    note([("reference_teacher_step_s", _teacher_step(reference, device))])
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


def _network(plan: Plan, seed: int) -> ResNet50:
    """An untrained teacher, its BatchNorm scales as different as training leaves them."""
    torch.manual_seed(seed)
    model = ResNet50(full_widths(plan.settings.model.width), plan.settings.model.stem)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1.0)
    return model


def _stream(plan: Plan) -> Stream:
    data = plan.settings.data
    return Stream(draw_stand_in(BATCH * (STEPS + 1), seed=0), BATCH, data.image_size, tuple(data.augment), seed=0)


def _teacher_step(plan: Plan, device: Device) -> float:
    recipe = plan.teacher.settings["recipe"]
    return _step(plan, _network(plan, 0), recipe, [Phase("teacher", recipe["epochs"], cross_entropy)], device)


def _student_step(plan: Plan, cell: Cell, student: ResNet50, teacher: ResNet50, device: Device) -> float:
    """A distillation step of one student, the teacher's pass included."""
    recipe = cell.settings["recipe"]
    device.place(teacher.eval())
    return _step(plan, student, recipe, phases(cell.settings["kd"], recipe["epochs"]), device, teacher)


def _step(
    plan: Plan,
    model: ResNet50,
    recipe: dict[str, float],
    todo: list[Phase],
    device: Device,
    teacher: ResNet50 | None = None,
) -> float:
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        device.place(model)
        learner = Learner("network", model, {**recipe, "batch_size": BATCH}, todo, Path(folder) / "checkpoint.pt")
        train([learner], _stream(plan), device, clock, lambda _: None, teacher, clock.lasts, alone=teacher is None)
    if learner.failure:
        raise RuntimeError(learner.failure.message)
    return clock.step_s


def _pruned(plan: Plan, cell: Cell) -> ResNet50:
    asked = cell.settings["start"]
    size = plan.settings.data.image_size
    example = torch.zeros(1, 3, size, size)
    done = prune(asked["method"], _network(plan, 1), example, asked["keep_for"], asked["amount"], asked["round_to"])
    recalibrate(done.model, [normalise(draw_stand_in(BATCH, seed=2).pixels)])
    return done.model


def _size(cell: Cell, student: ResNet50) -> list[tuple[str, float]]:
    """A student's parameters in millions, BatchNorm folded in as the study counts them, and what it published."""
    norms = sum(m.weight.numel() for m in student.modules() if isinstance(m, nn.BatchNorm2d))
    params = sum(value.numel() for value in student.parameters()) - norms
    name = f"params_m_{cell.prune_amount:g}_{cell.prune_method}_{cell.kd_method}"
    return [(name, params / 1e6), (f"published_{name}", published_rows()[cell.title].params_m)]


def _exported(plan: Plan, student: ResNet50) -> list[tuple[str, float | str]]:
    """A full-width pruned network as ONNX, loaded and run by the pinned runtime: one thread, batch 1."""
    images, size = draw_stand_in(256, seed=3), plan.settings.data.image_size
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        path, started = Path(folder) / "model.onnx", time.monotonic()
        done = export(student, path, images, size, {"cell": "untrained"})
        seconds = time.monotonic() - started
        python = bench_python("1.16.0")
        command = [str(python), "-c", LATENCY, str(path), str(size), str(LATENCY_ROUNDS)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    runtime, loaded_s, latency_ms = json.loads(said)
    return [
        ("export_s", seconds),
        ("export_parity_max_abs_diff", done.parity_max_abs_diff),
        ("export_mib", done.onnx_bytes / 2**20),
        ("export_params_m", done.params / 1e6),
        ("runtime", f"onnxruntime {runtime}"),
        ("load_s", loaded_s),
        ("latency_ms", latency_ms),
    ]
