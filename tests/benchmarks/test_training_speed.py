import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import SUBJECTS, Figures
from benchmarks.baseline_loops import Loop, LoopProcess, PilImages, study_transform, usual_transform
from benchmarks.gpu_steps import measure as on_gpu
from benchmarks.gpu_steps import steps
from benchmarks.resume_cost import main as resume
from benchmarks.step_profile import stepping, where, where_table
from benchmarks.training_speed import Size, ratio, take_turns
from benchmarks.workload import (
    Contestant,
    nine_students,
    phases,
    recipe,
    resnet50,
    some_images,
    stream,
    students_plan,
    train_all,
)
from harness.architectures import parameter_count, widths_of
from harness.compression.distillation import Phase
from harness.compression.pruning import kept_layers
from harness.datasets import normalise
from harness.datasets.stand_in import draw
from harness.errors import HarnessError
from harness.model_files.weights import save_weights
from harness.reporting.own_figures import WANTED
from harness.training.device import Device
from harness.training.loop import Learner
from tests.documents import ROOT

CPU = Device(torch.device("cpu"), bf16=False)
THIN = 0.0625


def test_contestants_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def contestant(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = take_turns({"a": lambda: contestant("a"), "b": lambda: contestant("b")}, 3)
    assert order == ["a", "b"] * 4
    assert found == {"a": [3.0, 5.0, 7.0], "b": [4.0, 6.0, 8.0]}


def test_a_ratio_is_of_medians_with_the_extremes_of_single_rounds() -> None:
    found = ratio({"slow": [10.0, 12.0, 90.0], "fast": [5.0, 2.0, 3.0]}, "slow", "fast", "speedup")
    assert found == {"speedup": 4.0, "speedup_least": 2.0, "speedup_most": 30.0}


def test_a_learner_that_fails_is_no_measurement(tmp_path: Path) -> None:
    def faulty(*_: object) -> torch.Tensor:
        raise ValueError("no loss today")

    how = recipe(batch_size=8, image_size=8)
    learner = Learner("one", resnet50(THIN), how, [Phase("labels", 1, faulty)], tmp_path / "one.pt")
    with pytest.raises(HarnessError, match="not measured: one: ValueError: no loss today"):
        train_all([learner], stream(draw(8, seed=1), how), CPU)


def test_every_figure_with_a_limit_is_measured() -> None:
    source = (ROOT / "benchmarks" / f"{SUBJECTS['training'].module}.py").read_text(encoding="utf-8")
    names = [name for name in WANTED if name.startswith(("step_", "nine_", "resume_"))]
    assert len(names) == 4 and all(f'"{name}"' in source for name in names)


@pytest.mark.parametrize("transform", [study_transform, usual_transform])
def test_other_loops_see_the_same_images(transform) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    images = draw(8, seed=1)
    pictures = PilImages(images, transform(32, images))
    seen = torch.stack([pictures[index][0] for index in range(8)])
    assert seen.shape == (8, 3, 32, 32) and [pictures[index][1] for index in range(8)] == images.labels.tolist()
    plain = normalise(images.pixels, images.mean, images.std)
    black = normalise(torch.zeros(1, 3, 1, 1), images.mean, images.std)
    assert seen.min() >= black.min() and seen.max() <= plain.max() + 2.5


def test_another_loop_trains_whole_batches_of_an_epoch() -> None:
    model, images = resnet50(THIN), draw(20, seed=1)
    before = copy.deepcopy(model.state_dict()["fc.weight"])
    loop = Loop(model, images, usual_transform(32, images), 8, 1, CPU.torch)
    assert loop.seconds_per_image() > 0
    after = model.state_dict()
    assert not torch.equal(after["fc.weight"], before)
    assert after["bn1.num_batches_tracked"] == 2


@pytest.fixture(scope="module")
def nine() -> tuple[nn.Module, list[Contestant]]:
    """A thin teacher, and its nine students for batches of 8 images of 8 pixels."""
    return nine_students(0.125, image_size=8, batch_size=8)


def test_the_nine_students_are_those_of_the_studys_first_table(nine: tuple[nn.Module, list[Contestant]]) -> None:
    teacher, students = nine
    assert len({student.name for student in students}) == 9
    for student in students:
        assert parameter_count(student.model) < parameter_count(teacher)
        kept = kept_layers(student.model, [student.stage.method.name])
        assert all(widths_of(student.model)[layer] == widths_of(teacher)[layer] for layer in kept)
    assert {phase.name for one in students for phase in phases(one.stage, one.model)} == {"base", "feature"}


def test_resuming_takes_one_step_from_every_checkpoint_and_keeps_it(
    nine: tuple[nn.Module, list[Contestant]], tmp_path: Path
) -> None:
    size = Size(width=0.125, image=8, batch=8, images=16, student_images=16, rounds=1, student_rounds=1)
    teacher, students = nine
    learners = [student.learner(tmp_path) for student in students]
    train_all(learners, stream(draw(16, seed=1), learners[0].recipe), CPU, teacher.eval(), keep_going=lambda: False)
    for learner in learners:
        learner.save()
        save_weights(tmp_path / f"{learner.name}.safetensors", learner.model, {})
    save_weights(tmp_path / "teacher.safetensors", teacher, {})
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")}
    resume(tmp_path, size.width, size.image, size.batch, size.student_images)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")} == before
    assert len(list((tmp_path / "again").glob("*.pt"))) == len(before) == 9


def test_the_students_plan_has_the_size_that_is_asked_for() -> None:
    plan = students_plan(0.25, 24, 32)
    assert plan.teacher.teacher.network.width == 0.25
    assert {(cell.student.recipe.batch_size, *cell.student.recipe.image_sizes) for cell in plan.cells[1:]} == {(32, 24)}


def test_without_the_data_set_images_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert torch.equal(some_images(7).pixels, draw(7, seed=1).pixels)


def test_the_parts_of_a_step_add_up() -> None:
    images = draw(8, seed=1)
    shares = where(0.125, normalise(images.pixels, images.mean, images.std), images.labels, CPU)
    assert sum(shares.values()) == pytest.approx(100)
    kinds = ("convolution", "convolution, backward", "BatchNorm", "BatchNorm, backward")
    assert all(shares[kind] > 0 for kind in kinds)
    assert shares["the rest"] < 50


@pytest.mark.parametrize("change", [{"optimizer": {"fused": False, "foreach": True}}, {"clip_norm": 0.0}])
def test_a_step_with_one_thing_changed_is_still_a_step(change) -> None:  # type: ignore[no-untyped-def]
    images, model = draw(8, seed=1), resnet50(THIN)
    before = copy.deepcopy(model.state_dict()["fc.weight"])
    pixels = normalise(images.pixels, images.mean, images.std)
    stepping(THIN, pixels, images.labels, CPU, model=model, **change)()
    assert not torch.equal(model.state_dict()["fc.weight"], before)


def test_a_profile_is_a_table_with_a_column_per_width() -> None:
    figures: Figures = {"device": "A", "threads": 2, "precision": "bf16", "torch": "2", "batch": 8, "image_size": 32}
    figures |= {"where: 0.25: ReLU": 10.0, "where: 1: ReLU": 20.126, "variant: 1: fp32": 2.0}
    lines = where_table(figures, (0.25, 1.0)).splitlines()
    assert lines[0].split("|")[1:4] == [" Share of a step (%)   ", "   width 0.25 ", "   width 1 "]
    assert [cell.strip() for cell in lines[2].split("|")[1:4]] == ["ReLU", "10.00", "20.13"]
    assert "A, 2 threads, bf16" in lines[-1]


def test_a_loop_in_a_process_of_its_own_takes_its_turns_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # drawn images are there sooner than the data set's
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    loop = LoopProcess("usual", 8, width=THIN, image_size=16, images=16)
    with loop:
        assert all(0 < loop.seconds_per_image() < 10 for _ in range(2))
    assert loop.process.exitcode == 0


def test_ways_of_taking_steps_are_compared_at_every_size() -> None:
    found = steps(CPU, (8, 16), batch=4, width=THIN, rounds=1, graphs=False)
    speeds = {name: value for name, value in found.items() if name.endswith("images_per_s")}
    assert list(speeds) == [
        f"{size} px, {who}, kernel by kernel: images_per_s" for size in (8, 16) for who in ("teacher", "nine students")
    ]
    assert all(isinstance(value, float) and value > 0 for value in speeds.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so this measures instead of refusing")
def test_ways_of_taking_steps_on_a_gpu_want_one() -> None:
    with pytest.raises(HarnessError, match="no CUDA GPU here"):
        on_gpu()
