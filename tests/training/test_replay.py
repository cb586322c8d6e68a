"""Replaying without a GPU: what is recorded is a step with the arguments that it had, so that only a desk feeds it."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.architectures import Outputs
from harness.datasets import Images
from harness.training import loop
from harness.training.batches import Stream
from harness.training.loop import Learner, train
from harness.training.replay import WARM_UP, Desk, Lesson, Recorder, Step
from tests.training.test_loop import STUDY, Ended
from tests.training_kit import CPU, Told, network, outputs, recipe, same_weights

REPLAYING = replace(CPU, graphs=True)
# Three batches an epoch, at two sizes and with two losses: enough to record and replay a step of each.
HOW = recipe(epochs=4, image_sizes=[8, 8, 16, 16])
PHASES = [replace(phase, epochs=4) for phase in STUDY]


def trained(folder: Path, images: Images, record: Recorder | None, monkeypatch: pytest.MonkeyPatch) -> Learner:
    monkeypatch.setattr(loop, "cuda_recorder", lambda _: record)
    folder.mkdir()
    learner = Learner("one", network(1), HOW, PHASES, folder / "one.pt")
    stream = Stream(images.first(48), HOW, ("crop", "flip"), "student", seed=0)
    device = REPLAYING if record else CPU
    assert train([learner], stream, device, Told(), Ended(), network(99).requires_grad_(False))
    assert learner.failure is None
    return learner


def test_replayed_steps_end_with_the_same_bits(tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Step] = []

    def record(step: Step) -> Step:
        recorded.append(step)
        return step

    anew = trained(tmp_path / "anew", images, None, monkeypatch)
    replayed = trained(tmp_path / "replayed", images, record, monkeypatch)
    # at each size and with each loss
    assert len(recorded) == 4
    assert same_weights(anew.model, replayed.model) and anew.log[-1].loss == replayed.log[-1].loss
    assert [epoch.lr for epoch in anew.log] == [epoch.lr for epoch in replayed.log]


def test_a_step_that_cannot_be_recorded_is_taken_as_usual_and_a_warning_says_so(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(step: Step) -> Step:
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.warns(UserWarning, match=r"is not recorded as a CUDA graph: operation not") as said:
        replayed = trained(tmp_path / "replayed", images, refuse, monkeypatch)
    assert len(said) == 4
    assert same_weights(trained(tmp_path / "anew", images, None, monkeypatch).model, replayed.model)


def lesson(size: int, **features: Tensor) -> tuple[Tensor, Tensor, Outputs]:
    images = torch.rand(4, 3, size, size).contiguous(memory_format=torch.channels_last)
    return images, torch.arange(4), outputs(torch.rand(4, 5), **features)


def test_lessons_of_one_shape_lie_in_one_place_and_in_their_own_layout() -> None:
    desk = Desk()
    one, other = lesson(8, layer1=torch.rand(4, 2)), lesson(8, layer1=torch.rand(4, 2))
    first = desk.put(*one)
    second = desk.put(*other)
    assert second[0].data_ptr() == first[0].data_ptr() != other[0].data_ptr()
    assert torch.equal(second[0], other[0]) and second[0].is_contiguous(memory_format=torch.channels_last)
    assert second[2] is not None and torch.equal(second[2].features["layer1"], other[2].features["layer1"])


@pytest.mark.parametrize(
    "change",
    [
        lambda: lesson(16, layer1=torch.rand(4, 2)),
        lambda: lesson(8),
        lambda: lesson(8, layer2=torch.rand(4, 2)),
        lambda: (*lesson(8)[:2], None),
    ],
    ids=["another size", "no features", "another tap", "no teacher"],
)
def test_lessons_of_another_shape_lie_elsewhere(change: Callable[[], Lesson]) -> None:
    desk = Desk()
    first = desk.put(*lesson(8, layer1=torch.rand(4, 2)))
    images, labels, taught = changed = change()
    second = desk.put(*changed)
    assert second[0].data_ptr() != first[0].data_ptr()
    assert torch.equal(second[0], images) and torch.equal(second[1], labels)
    assert (second[2] is None) == (taught is None)


def test_steps_are_recorded_once_they_have_been_warmed_up(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def record(step: Step) -> Step:
        taken.append(f"recorded after {len(taken)}")
        return step

    usual = Learner._compute

    def compute(self: Learner, *arguments: object) -> None:
        taken.append("computed")
        usual(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Learner, "_compute", compute)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(tmp_path / "one", images, record, monkeypatch)
    assert taken[: WARM_UP + 1] == ["computed"] * WARM_UP + [f"recorded after {WARM_UP}"]
