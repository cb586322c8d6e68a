"""What only a GPU can show. `make test` runs these where there is one; elsewhere they are skipped by name.

On their own: `.venvs/main/bin/python -m pytest tests/training/test_cuda.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.architectures.resnet import ResNet50, full_widths
from harness.training.data import Images, Stream

from harness.compression.distillation import Phase, cross_entropy, phases
from harness.store.records import TrainRecord, find
from harness.training import loop
from harness.training.augment import crop, cutout, flip, study
from harness.training.device import Device, choose_device, gpu_count
from harness.training.loop import Learner, train
from harness.training.memory import free_bytes, measure, side_by_side
from harness.training.pipeline import make_cells
from harness.training.workers import make_on
from tests.training.test_loop import RECIPE, STUDY, Ended
from tests.training_kit import CPU, WIDTH, Told, below, network, same_weights, tiny_plan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU: this shows what only a GPU can")

FP32 = Device(torch.device("cuda"), bf16=False)


@pytest.fixture
def device() -> Iterator[Device]:
    """As training chooses it, with PyTorch's own settings put back afterwards."""
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = torch.backends.cudnn.benchmark, *(backend.allow_tf32 for backend in backends)
    yield choose_device("auto")
    torch.backends.cudnn.benchmark = before[0]
    for backend, value in zip(backends, before[1:], strict=True):
        backend.allow_tf32 = value


@pytest.fixture
def on_gpu(images: Images) -> Stream:
    return Stream(images.first(48).to(torch.device("cuda")), 16, 16, ("crop", "flip"), seed=0)


def learner(folder: Path, name: str, device: Device, stages: list[Phase], seed: int = 0) -> Learner:
    model = network(seed)
    device.place(model)
    return Learner(name, model, RECIPE, stages, folder / f"{name}.pt")


def teacher_on(device: Device) -> ResNet50:
    model = network(99).requires_grad_(False)
    device.place(model)
    return model


def test_the_gpu_is_chosen_with_bf16_where_it_is_native(device: Device) -> None:
    assert device.torch.type == "cuda"
    assert device.bf16 == torch.cuda.is_bf16_supported(including_emulation=False)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert device.facts()["device"] == torch.cuda.get_device_name()


@pytest.mark.parametrize("augmentation", [crop, flip, cutout])
def test_a_gpu_sees_the_batches_a_cpu_would(augmentation, images: Images) -> None:  # type: ignore[no-untyped-def]
    here, there = (
        augmentation(images.pixels[:64].to(where), torch.Generator().manual_seed(1)) for where in ("cpu", "cuda")
    )
    assert torch.equal(here, there.cpu())


def test_the_studys_augmentation_is_the_cpus(images: Images) -> None:
    here, there = (
        study(images.pixels[:64].to(where), 32, torch.Generator().manual_seed(1)) for where in ("cpu", "cuda")
    )
    # nearest pixels may differ where a source lies between two
    assert ((here - there.cpu()).abs() < 1e-3).float().mean() > 0.99


def test_no_step_makes_the_host_wait(tmp_path: Path, device: Device, on_gpu: Stream) -> None:
    """Every kind of phase, the teacher's pass and the making of batches, under PyTorch's own watch for waiting."""
    teacher = teacher_on(device)
    joint = {"method": "gram", "objective": "joint", "stages": 1, "temperature": 4.0, "label_weight": 0.1,
             "feature_weight": 1.0}  # fmt: skip
    learners = [
        learner(tmp_path, "labels", device, [Phase("labels", 1, cross_entropy)]),
        learner(tmp_path, "feature", device, STUDY[:1]),
        learner(tmp_path, "base", device, STUDY[1:]),
        learner(tmp_path, "joint", device, phases(joint, 1)),
    ]
    watched = Stream(on_gpu.images, 16, 16, ("study",), seed=0), on_gpu
    # kernels are chosen and workspaces made in the first steps
    for stream in watched:
        for images, labels in stream.batches(0):
            given = loop._teach(teacher, images, learners, device)
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
            given = loop._teach(teacher, images, learners, device)
            for one in learners:
                one.learn(images, labels, given, device, 3)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_in_fp32_a_step_is_the_cpus(tmp_path: Path, images: Images, on_gpu: Stream, device: Device) -> None:
    here = learner(tmp_path, "cpu", CPU, [Phase("labels", 1, cross_entropy)])
    there = learner(tmp_path, "gpu", FP32, [Phase("labels", 1, cross_entropy)])
    on_cpu = Stream(images.first(48), 16, 16, ("crop", "flip"), seed=0)
    here.learn(*next(on_cpu.batches(0)), None, CPU, 3)
    there.learn(*next(on_gpu.batches(0)), None, FP32, 3)
    assert there.losses.item() == pytest.approx(here.losses.item(), rel=1e-3)
    for one, other in zip(here.model.parameters(), there.model.parameters(), strict=True):
        torch.testing.assert_close(other.cpu(), one, atol=2e-3, rtol=2e-2)


def test_it_learns_in_company_and_goes_on_after_a_stop(tmp_path: Path, device: Device, on_gpu: Stream) -> None:
    teacher = teacher_on(device)

    def company() -> list[Learner]:
        return [
            learner(tmp_path, "a", device, [Phase("labels", 3, cross_entropy)]),
            learner(tmp_path, "b", device, STUDY),
        ]

    stopped = company()
    assert not train(stopped, on_gpu, device, Told(), Ended(), teacher, keep_going=iter([True, False]).__next__)
    resumed = company()
    for one in resumed:
        one.resume()
        assert (one.epoch, one.step) == (0, 2) and one.losses.is_cuda
        assert all(state["momentum_buffer"].is_cuda for state in one.optimizer.state.values())
    assert all(same_weights(one.model, other.model) for one, other in zip(stopped, resumed, strict=True))
    ended = Ended()
    assert train(resumed, on_gpu, device, Told(), ended, teacher)
    assert sorted(ended) == ["a", "b"] and not any(one.failure for one in resumed)
    assert resumed[0].log[-1].loss < resumed[0].log[0].loss


def test_evaluation_is_fp32_and_the_cpus(images: Images, device: Device) -> None:
    here, there = network(3), network(3)
    device.place(there)
    agree = loop.answers(here, images, 32, CPU) == loop.answers(there, images, 32, device)
    assert agree.float().mean() > 0.99


def test_what_fits_is_measured_on_the_gpu(device: Device) -> None:
    widths = full_widths(WIDTH)
    found = measure(widths, "cifar", 32, 64, device)
    model = ResNet50(widths, "cifar")
    device.place(model)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    with device.autocast():
        logits = model(torch.zeros(64, 3, 32, 32, device="cuda").contiguous(memory_format=device.layout))
    assert found.working == pytest.approx(torch.cuda.memory_allocated() - before, rel=0.3)
    del logits
    assert free_bytes(device) > 0 and side_by_side(widths, "cifar", 32, 64, device) >= 1


@pytest.mark.usefixtures("few_images")
def test_a_whole_matrix_on_the_gpu(tmp_path: Path, device: Device) -> None:
    plan, paths = tiny_plan(tmp_path, ["bn", "gn"], ["fmse", "gram"]), below(tmp_path)
    summary = make_cells(plan, paths, device, Told())
    assert summary.complete and not summary.failed and len(summary.made) == 5
    record = find(paths.results, "quick", "p0.3-gn-gram-s0", plan.cells[-1].key, TrainRecord)
    assert record and record.environment["device_type"] == "cuda"


def test_a_worker_per_gpu(tmp_path: Path) -> None:
    """Two workers whatever there is: on one GPU they share it."""
    plan, paths = tiny_plan(tmp_path, ["l1"], ["base", "fmse"]), below(tmp_path)
    summary = make_on(["cuda:0", f"cuda:{min(1, gpu_count() - 1)}"], plan, paths, Told(), lambda: True)
    assert summary.complete and not summary.failed
    records = [find(paths.results, "quick", cell.id, cell.key, TrainRecord) for cell in plan.cells]
    assert all(record and record.environment["device_type"] == "cuda" for record in records)
