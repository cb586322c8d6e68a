"""What only a GPU can show. `make test` runs these tests where there is one; elsewhere they are skipped by name.

On their own: `.venvs/main/bin/python -m pytest tests/training/test_cuda.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.architectures import Outputs, architecture_of, build
from harness.compression.calibration import calibrate
from harness.compression.distillation import Phase, Setup, cross_entropy, method_of
from harness.compression.pruning import regulariser
from harness.datasets import Images, normalise
from harness.plan import registry
from harness.plan.specs import JointObjective, Sparse
from harness.store.records import TrainRecord, load, record_path
from harness.training import loop
from harness.training.augment import crop, cutout, flip, study
from harness.training.batches import Stream
from harness.training.device import Device, choose_device, emulates_bf16, gpu_count
from harness.training.dispatch import make_on
from harness.training.loop import Learner, train
from harness.training.memory import free_bytes, measure, side_by_side
from harness.training.pipeline import make_cells
from harness.training.workers import Workers
from tests.drop_in import METHOD, make
from tests.training.test_loop import STUDY, Ended
from tests.training_kit import CPU, Told, below, network, recipe, same_weights, thin, tiny_plan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU: this shows what only a GPU can")

FP32 = Device(torch.device("cuda"), bf16=False)
LABELS = [Phase("labels", 1, cross_entropy)]


@pytest.fixture
def device() -> Iterator[Device]:
    """As training chooses it, with PyTorch's own settings put back afterwards."""
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = torch.backends.cudnn.benchmark, *(backend.allow_tf32 for backend in backends)
    yield choose_device("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32")
    torch.backends.cudnn.benchmark = before[0]
    for backend, value in zip(backends, before[1:], strict=True):
        backend.allow_tf32 = value


@pytest.fixture
def on_gpu(images: Images) -> Stream:
    """Three batches of 16 images of 16 pixels, on the GPU."""
    here = images.first(48).to(torch.device("cuda"))
    return Stream(here, recipe(image_sizes=[16]), ("crop", "flip"), "student", seed=0)


def learner(folder: Path, name: str, device: Device, phases: list[Phase], seed: int = 0) -> Learner:
    model = network(seed)
    device.place(model)
    return Learner(name, model, recipe(), phases, folder / f"{name}.pt")


def teacher_on(device: Device) -> nn.Module:
    model = network(99).requires_grad_(False)
    device.place(model)
    return model


def joint(method: str) -> list[Phase]:
    parameters = registry.resolve("method", method, {})
    used = {"base": registry.resolve("method", "base", {})}
    objective = JointObjective(1, 4.0, 0.1, 1.0, "norm")
    return method_of(method).phases(Setup(architecture_of(thin()), objective, 1, parameters, used))


def test_the_gpu_is_chosen_and_computes_fp32_as_fp32(device: Device) -> None:
    assert device.torch.type == "cuda" and not emulates_bf16(device)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert device.facts()["device"] == torch.cuda.get_device_name()


def cut(pixels: Tensor, generator: torch.Generator) -> Tensor:
    return cutout(pixels, generator, (0.5, 0.4, 0.3))


@pytest.mark.parametrize("augmentation", [crop, flip, cut])
def test_a_gpu_sees_the_batches_that_a_cpu_would(
    augmentation: Callable[[Tensor, torch.Generator], Tensor], images: Images
) -> None:
    here, there = (
        augmentation(images.pixels[:64].to(where), torch.Generator().manual_seed(1)) for where in ("cpu", "cuda")
    )
    assert torch.equal(here, there.cpu())


def test_the_studys_augmentation_is_that_of_the_cpu(images: Images) -> None:
    here, there = (
        study(images.pixels[:64].to(where), 32, torch.Generator().manual_seed(1)) for where in ("cpu", "cuda")
    )
    # nearest pixels may differ where a source lies between two
    assert ((here - there.cpu()).abs() < 1e-3).float().mean() > 0.99


def test_no_step_makes_the_host_wait(tmp_path: Path, device: Device, on_gpu: Stream) -> None:
    """Every kind of phase, the teacher's pass and the making of batches, under PyTorch's own watch for waiting."""
    teacher = teacher_on(device)
    learners = [
        learner(tmp_path, "labels", device, LABELS),
        learner(tmp_path, "feature", device, STUDY[:1]),
        learner(tmp_path, "base", device, STUDY[1:]),
        learner(tmp_path, "joint", device, joint("gram")),
        learner(tmp_path, "logits", device, joint("logit_std")),
    ]
    cut_out = Stream(on_gpu.images, on_gpu.recipe, ("crop", "cutout"), "student", seed=0)
    watched = Stream(on_gpu.images, on_gpu.recipe, ("study",), "student", seed=0), cut_out, on_gpu
    # kernels are chosen and workspaces made in the first steps
    for stream in watched:
        for images, labels in stream.batches(0):
            given = loop.teach(teacher, images, learners, device)
            for one in learners:
                one.learn(images, labels, given, device, 3)
    for one in learners:
        one.step = 0
    for stream in watched:
        batches = stream.batches(0)
        next(batches)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            images, labels = next(batches)
            given = loop.teach(teacher, images, learners, device)
            for one in learners:
                one.learn(images, labels, given, device, 3)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("phases", [LABELS, STUDY, joint("gram")], ids=["labels", "study", "joint"])
def test_replayed_steps_learn_what_steps_computed_anew_do(
    tmp_path: Path, images: Images, phases: list[Phase], recwarn: pytest.WarningsRecorder
) -> None:
    """At two sizes and with every loss; in fp32, so that little but the order of sums can differ."""
    how = recipe(epochs=2, image_sizes=[8, 16])
    stream = Stream(images.first(160).to(torch.device("cuda")), how, ("crop", "flip"), "student", seed=0)
    longer = [replace(phase, epochs=2) for phase in phases]
    ends = []
    for graphs in (False, True):
        device = replace(FP32, graphs=graphs)
        one = learner(tmp_path, f"{graphs}", device, longer)
        assert train([one], stream, device, Told(), Ended(), teacher_on(device)) and one.failure is None
        ends.append(one)
    assert not [warning for warning in recwarn if "CUDA graph" in str(warning.message)]
    anew, replayed = ends
    assert [epoch.loss for epoch in replayed.log] == pytest.approx([epoch.loss for epoch in anew.log], rel=2e-2)
    assert [epoch.lr for epoch in replayed.log] == [epoch.lr for epoch in anew.log]


@pytest.mark.parametrize("criterion", ["bn", "gn"])
def test_steps_of_sparse_training_can_be_replayed(
    tmp_path: Path, device: Device, on_gpu: Stream, criterion: str, recwarn: pytest.WarningsRecorder
) -> None:
    one = learner(tmp_path, criterion, device, [Phase("labels", 4, cross_entropy)])
    sparse = tiny_plan(tmp_path, [criterion], ["base"]).cells[1].student.start.parent
    assert isinstance(sparse, Sparse)
    one.regularise = regulariser(one.model, torch.zeros(1, 3, 16, 16, device="cuda"), sparse)
    one.model.train()
    assert train([one], on_gpu, device, Told(), Ended()) and one.failure is None
    assert not [warning for warning in recwarn if "CUDA graph" in str(warning.message)]


def test_a_step_in_fp32_is_that_of_the_cpu(tmp_path: Path, images: Images, on_gpu: Stream, device: Device) -> None:
    here, there = learner(tmp_path, "cpu", CPU, LABELS), learner(tmp_path, "gpu", FP32, LABELS)
    on_cpu = Stream(images.first(48), on_gpu.recipe, ("crop", "flip"), "student", seed=0)
    here.learn(*next(on_cpu.batches(0)), None, CPU, 3)
    there.learn(*next(on_gpu.batches(0)), None, FP32, 3)
    assert there.losses.item() == pytest.approx(here.losses.item(), rel=1e-3)
    for one, other in zip(here.model.parameters(), there.model.parameters(), strict=True):
        torch.testing.assert_close(other.cpu(), one, atol=2e-3, rtol=2e-2)


def test_learners_side_by_side_learn_and_resume_after_a_stop(tmp_path: Path, device: Device, on_gpu: Stream) -> None:
    teacher = teacher_on(device)

    def learners() -> list[Learner]:
        return [
            learner(tmp_path, "a", device, [Phase("labels", 3, cross_entropy)]),
            learner(tmp_path, "b", device, STUDY),
        ]

    stopped = learners()
    assert not train(stopped, on_gpu, device, Told(), Ended(), teacher, keep_going=iter([True, False]).__next__)
    resumed = learners()
    for one in resumed:
        one.resume()
        assert (one.epoch, one.step) == (0, 2) and one.losses.is_cuda
        assert all(state["momentum_buffer"].is_cuda for state in one.optimizer.state.values())
    assert all(same_weights(one.model, other.model) for one, other in zip(stopped, resumed, strict=True))
    ended = Ended()
    assert train(resumed, on_gpu, device, Told(), ended, teacher)
    assert sorted(ended) == ["a", "b"] and not any(one.failure for one in resumed)
    assert resumed[0].log[-1].loss < resumed[0].log[0].loss


def test_evaluation_is_in_fp32_and_agrees_with_the_cpu(images: Images, device: Device) -> None:
    here, there = network(3), network(3)
    device.place(there)
    agree = loop.answers(here, images, 32, CPU) == loop.answers(there, images, 32, device)
    assert agree.float().mean() > 0.99


def test_calibration_agrees_with_the_cpu(images: Images, device: Device) -> None:
    here, there = network(3), network(3)
    device.place(there)
    pixels = normalise(images.pixels[:96], images.mean, images.std)
    calibrate(here, pixels, 32)
    calibrate(there, pixels.cuda(), 32)
    for one, other in zip(here.buffers(), there.buffers(), strict=True):
        torch.testing.assert_close(other.cpu(), one, atol=1e-3, rtol=1e-2)


def test_what_a_network_takes_is_measured_on_the_gpu(device: Device) -> None:
    found = measure(thin(), 32, 64, device)
    model = build(thin())
    device.place(model)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    with device.autocast():
        logits = model(torch.zeros(64, 3, 32, 32, device="cuda").contiguous(memory_format=device.layout))
    assert found.working == pytest.approx(torch.cuda.memory_allocated() - before, rel=0.3)
    del logits
    assert free_bytes(device) > 0 and side_by_side(thin(), 32, 64, device) >= 1


@pytest.mark.usefixtures("few_images")
def test_a_whole_matrix_on_the_gpu(tmp_path: Path, device: Device) -> None:
    plan, paths = tiny_plan(tmp_path, ["bn", "gn"], ["fmse", "gram"]), below(tmp_path)
    summary = make_cells(plan, paths, device, Told())
    assert summary.complete and not summary.failed and len(summary.made) == 5
    record = load(record_path(paths.results, "quick", "train", "p0.3-gn-gram-s0"), TrainRecord)
    assert record.environment["device_type"] == "cuda"


@pytest.mark.usefixtures("few_images")
def test_a_method_with_modules_of_its_own_on_the_gpu(tmp_path: Path, device: Device) -> None:
    made = make(METHOD, tmp_path, device)
    assert made.summary.complete and not made.summary.failed


def test_a_worker_per_gpu(tmp_path: Path) -> None:
    """Two workers whatever there is: on one GPU they share it."""
    plan, paths = tiny_plan(tmp_path, ["l1"], ["base", "fmse"]), below(tmp_path)
    summary = make_on(Workers(["cuda:0", f"cuda:{min(1, gpu_count() - 1)}"]), plan, paths, Told(), lambda: True)
    assert summary.complete and not summary.failed
    records = [load(record_path(paths.results, "quick", "train", cell.id), TrainRecord) for cell in plan.cells]
    assert all(record.environment["device_type"] == "cuda" for record in records)


def test_features_in_bf16_are_what_a_loss_gets(device: Device, on_gpu: Stream) -> None:
    """A method converts what it compares: differences of bf16 numbers have two digits left."""
    images, _ = next(on_gpu.batches(0))
    given = loop.teach(teacher_on(device), images, [learner(Path(), "a", device, STUDY)], device)
    assert isinstance(given, Outputs)
    expected = torch.bfloat16 if device.bf16 else torch.float32
    assert {value.dtype for value in given.features.values()} == {expected}
