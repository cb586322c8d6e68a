from pathlib import Path

import pytest
import torch

from benchmarks import SUBJECTS
from benchmarks.contenders import RECIPE, nine_students, some_images, train_all
from benchmarks.other_loops import Apart, Loop, PilImages, study_transform, usual_transform
from benchmarks.step_profile import where, where_table
from benchmarks.training_speed import Figures, in_turns, ratio
from harness.architectures.resnet import ResNet50, full_widths, parameter_count, widths_of
from harness.compression.distillation import Phase
from harness.compression.pruning import kept_layers
from harness.errors import HarnessError
from harness.reporting.own_figures import WANTED
from harness.training.augment import normalise
from harness.training.data import Stream, draw_stand_in
from harness.training.device import Device
from harness.training.loop import Learner

CPU = Device(torch.device("cpu"), bf16=False)


def test_contestants_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def contestant(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = in_turns({"a": lambda: contestant("a"), "b": lambda: contestant("b")}, 3)
    assert order == ["a", "b"] * 4
    assert found == {"a": [3.0, 5.0, 7.0], "b": [4.0, 6.0, 8.0]}


def test_a_ratio_is_of_medians_with_the_extremes_of_single_rounds() -> None:
    found = ratio({"slow": [10.0, 12.0, 90.0], "fast": [5.0, 2.0, 3.0]}, "slow", "fast", "speedup")
    assert found == {"speedup": 4.0, "speedup_least": 2.0, "speedup_most": 30.0}


def test_a_learner_that_fails_is_no_measurement(tmp_path: Path) -> None:
    def faulty(*_: object) -> torch.Tensor:
        raise ValueError("no loss today")

    model = ResNet50(full_widths(0.0625), "cifar")
    learner = Learner("one", model, RECIPE, [Phase("labels", 1, faulty)], tmp_path / "one.pt")
    stream = Stream(draw_stand_in(8, seed=1), 8, 8, (), seed=0)
    with pytest.raises(HarnessError, match="not measured: one: ValueError: no loss today"):
        train_all([learner], stream, CPU)


def test_what_is_wanted_is_measured() -> None:
    source = Path("harness/benchmarks/training.py").read_text(encoding="utf-8")
    names = [name for name in WANTED if name.startswith(("step_", "nine_", "resume_"))]
    assert len(names) == 4 and all(f'"{name}"' in source for name in names)
    assert {"training", "training_profile"} <= set(SUBJECTS)


@pytest.mark.parametrize("transform", [study_transform(32), usual_transform(32)])
def test_other_loops_see_the_engines_images(transform) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    images = draw_stand_in(8, seed=1)
    pictures = PilImages(images, transform)
    seen = torch.stack([pictures[index][0] for index in range(8)])
    assert seen.shape == (8, 3, 32, 32) and [pictures[index][1] for index in range(8)] == images.labels.tolist()
    plain = normalise(images.pixels)
    assert seen.min() >= normalise(torch.zeros(1, 3, 1, 1)).min() and seen.max() <= plain.max() + 2.5


def test_another_loop_trains_whole_batches_of_an_epoch() -> None:
    model = ResNet50(full_widths(0.0625), "cifar")
    before = model.fc.weight.detach().clone()
    loop = Loop(model, draw_stand_in(20, seed=1), usual_transform(32), 8, 1, CPU.torch)
    assert loop.seconds_per_image() > 0
    assert not torch.equal(model.fc.weight, before)


def test_the_nine_students_are_those_of_the_studys_first_table() -> None:
    teacher, students = nine_students(0.125, 16)
    assert len({student.name for student in students}) == 9
    for student in students:
        assert parameter_count(student.model) < parameter_count(teacher)
        kept = kept_layers([student.kd["method"]])
        assert all(widths_of(student.model)[layer] == widths_of(teacher)[layer] for layer in kept)


def test_without_the_data_set_images_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert len(some_images(7).labels) == 7


def test_a_step_is_accounted_for() -> None:
    images = draw_stand_in(8, seed=1)
    shares = where(0.0625, normalise(images.pixels), images.labels, CPU)
    assert sum(shares.values()) == pytest.approx(100)
    assert all(
        shares[kind] > 0 for kind in ("convolution", "convolution, backward", "BatchNorm", "BatchNorm, backward")
    )
    assert shares["the rest"] < 50


def test_a_profile_is_a_table_with_a_column_per_width() -> None:
    figures: Figures = {"device": "A", "threads": 2, "precision": "bf16", "torch": "2", "batch": 8, "image_size": 32}
    figures |= {"where: 0.25: ReLU": 10.0, "where: 1: ReLU": 20.126, "variant: 1: fp32": 2.0}
    lines = where_table(figures, (0.25, 1.0)).splitlines()
    assert lines[0].split("|")[1:4] == [" Share of a step (%)   ", "   width 0.25 ", "   width 1 "]
    assert [cell.strip() for cell in lines[2].split("|")[1:4]] == ["ReLU", "10.00", "20.13"]
    assert "A, 2 threads, bf16" in lines[-1]


def test_a_loop_in_a_process_of_its_own_takes_its_turns_and_ends() -> None:
    apart = Apart("usual", 8, width=0.0625, image_size=16, images=16)
    with apart:
        assert all(0 < apart.seconds_per_image() < 10 for _ in range(2))
    assert apart.process.exitcode == 0
