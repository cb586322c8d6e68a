import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.architectures.resnet import Outputs, ResNet50
from harness.training.data import Images, Stream
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness.compression.distillation import Phase, cross_entropy, fmse, phases
from harness.training import loop
from harness.training.augment import normalise, resize
from harness.training.loop import Learner, accuracy_pct, learning_rate, train
from tests.training_kit import CPU, Told, network, patience, pruned_widths, same_weights

RECIPE: dict[str, Any] = {
    "lr": 0.05,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "schedule": "cosine",
    "gamma": 1.0,
    "warmup_epochs": 0.5,
    "clip_norm": 1.0,
}
LABELS = [Phase("labels", 2, cross_entropy)]
STUDY = phases({"method": "fmse", "objective": "stages"}, 1)
STEPS = 6  # two epochs of three


class Ended(list[str]):
    """Who ended, in order."""

    def __call__(self, learner: Learner) -> None:
        self.append(learner.name)


def learner(folder: Path, name: str = "a", stages: list[Phase] | None = None, seed: int = 0, **recipe: Any) -> Learner:
    return Learner(name, network(seed), RECIPE | recipe, stages or LABELS, folder / f"{name}.pt")


def run(
    learners: Sequence[Learner],
    stream: Stream,
    teacher: ResNet50 | None = None,
    keep_going: Callable[[], bool] = lambda: True,
) -> bool:
    return train(learners, stream, CPU, Told(), Ended(), teacher, keep_going)


@pytest.fixture(scope="module")
def teacher() -> ResNet50:
    return network(99).requires_grad_(False)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, stream: Stream, teacher: ResNet50) -> dict[str, Learner]:
    """Each kind of learner, trained to its end by itself."""
    folder = tmp_path_factory.mktemp("alone")
    learners = {"labels": learner(folder), "study": learner(folder, stages=STUDY)}
    for one in learners.values():
        assert run([one], stream, teacher)
        assert not same_weights(one.model, network(0))
    return learners


# --- Learning rate ---------------------------------------------------------------------------------------------------


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "lr": draw(st.floats(1e-5, 10)),
        "warmup_epochs": draw(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0])),
        "schedule": draw(st.sampled_from(["cosine", "exponential", "constant"])),
        "gamma": draw(st.floats(0.01, 1.0)),
    }


@given(recipes(), st.integers(1, 30), st.floats(0, 1))
def test_the_rate_is_never_above_its_peak_nor_below_zero(recipe: dict[str, Any], epochs: int, part: float) -> None:
    assert 0 <= learning_rate(recipe, part * epochs, epochs) <= recipe["lr"]


@given(recipes(), st.integers(4, 30), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_the_rate_rises_while_it_warms_up_and_the_first_step_counts(
    recipe: dict[str, Any], epochs: int, parts: tuple[float, float]
) -> None:
    recipe["warmup_epochs"] = 3.0
    early, late = (learning_rate(recipe, 2.999 * part, epochs) for part in sorted(parts))
    assert 0 < early <= late < recipe["lr"]


@given(recipes(), st.integers(4, 30))
def test_a_cosine_falls_from_its_peak_to_zero(recipe: dict[str, Any], epochs: int) -> None:
    recipe["schedule"] = "cosine"
    start = recipe["warmup_epochs"]
    rates = [learning_rate(recipe, start + (epochs - start) * n / 20, epochs) for n in range(21)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(recipe["lr"]) and rates[10] == pytest.approx(recipe["lr"] / 2)
    assert rates[-1] == pytest.approx(0, abs=1e-9 * recipe["lr"])


@given(recipes(), st.integers(0, 29), st.floats(0, 0.999))
def test_an_exponential_steps_down_once_an_epoch(recipe: dict[str, Any], epoch: int, part: float) -> None:
    recipe |= {"schedule": "exponential", "warmup_epochs": 0.0}
    rate = learning_rate(recipe, epoch + part, 30)
    assert rate == learning_rate(recipe, epoch, 30) == pytest.approx(recipe["lr"] * recipe["gamma"] ** epoch)


def test_the_schedule_spans_all_phases(tmp_path: Path, stream: Stream, teacher: ResNet50) -> None:
    one = learner(tmp_path, stages=STUDY, warmup_epochs=0.0)
    run([one], stream, teacher)
    last_steps = [learning_rate(one.recipe, position, 2) for position in (2 / 3, 5 / 3)]
    assert [ended.lr for ended in one.log] == pytest.approx(last_steps)


# --- One learner -----------------------------------------------------------------------------------------------------


def test_the_same_learner_twice_ends_with_the_same_bits(
    tmp_path: Path, stream: Stream, teacher: ResNet50, alone: dict[str, Learner]
) -> None:
    again = learner(tmp_path, stages=STUDY)
    run([again], stream, teacher)
    assert same_weights(again.model, alone["study"].model)
    assert [ended.loss for ended in again.log] == [ended.loss for ended in alone["study"].log]


def test_another_seed_sees_other_batches(tmp_path: Path, stream: Stream, alone: dict[str, Learner]) -> None:
    other = learner(tmp_path)
    run([other], replace(stream, seed=1))
    assert not same_weights(other.model, alone["labels"].model)


def test_the_log_has_an_entry_per_epoch_with_its_phase_mean_loss_and_accuracy(
    tmp_path: Path, stream: Stream, teacher: ResNet50
) -> None:
    seen: list[float] = []
    right: list[float] = []

    def loss(student: Outputs, _: Outputs | None, labels: Tensor) -> Tensor:
        value = cross_entropy(student, None, labels)
        seen.append(value.item())
        right.append(100 * (student.logits.argmax(1) == labels).float().mean().item())
        return value

    one, told = learner(tmp_path, stages=[Phase("first", 1, loss), Phase("second", 1, loss)]), Told()
    assert train([one], stream, CPU, told, Ended())
    assert [ended.phase for ended in one.log] == ["first", "second"]
    assert [ended.loss for ended in one.log] == pytest.approx([sum(seen[:3]) / 3, sum(seen[3:]) / 3])
    assert any(right)
    assert [ended.accuracy_pct for ended in one.log] == pytest.approx([sum(right[:3]) / 3, sum(right[3:]) / 3])
    assert told.epochs == [("a", 1, 2), ("a", 2, 2)] and told.steps == len(seen) == STEPS
    assert one.seconds > 0 and all(ended.images_per_s > 0 for ended in one.log)


def test_training_lowers_the_loss(tmp_path: Path, stream: Stream) -> None:
    # Two classes out of a hundred: that there are only two is learned in a few steps, however a processor rounds.
    two = replace(stream, images=Images(stream.images.pixels, stream.images.labels % 2))
    one = learner(tmp_path, stages=[Phase("labels", 6, cross_entropy)], clip_norm=0.0)
    run([one], two)
    assert one.log[-1].loss < 0.5 * one.log[0].loss


def test_gradients_are_clipped_to_the_norm_asked_for(tmp_path: Path, images: Images) -> None:
    one = learner(
        tmp_path, clip_norm=0.1, lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="constant",
        warmup_epochs=0.0, stages=[Phase("labels", 1, cross_entropy)],
    )  # fmt: skip
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    run([one], Stream(images.first(16), 16, 8, (), seed=0))
    moved = [(new - old).square().sum().item() for new, old in zip(one.model.parameters(), before, strict=True)]
    assert math.sqrt(sum(moved)) == pytest.approx(0.1, rel=1e-3)


def test_the_regulariser_acts_between_backward_and_step(tmp_path: Path, stream: Stream) -> None:
    one = learner(tmp_path, weight_decay=0.0)

    def silence() -> None:
        for parameter in one.model.parameters():
            assert parameter.grad is not None
            parameter.grad.zero_()

    one.regularise = silence
    run([one], stream)
    fresh = dict(network(0).named_parameters())
    assert all(torch.equal(parameter, fresh[name]) for name, parameter in one.model.named_parameters())


# --- Side by side ----------------------------------------------------------------------------------------------------


def test_in_company_a_learner_ends_as_it_does_alone(
    tmp_path: Path, stream: Stream, teacher: ResNet50, alone: dict[str, Learner]
) -> None:
    company = [
        learner(tmp_path, "a"),
        learner(tmp_path, "b", stages=STUDY),
        learner(tmp_path, "c", stages=[Phase("labels", 1, cross_entropy)], seed=7),
        Learner("d", network(3, pruned_widths()), RECIPE, STUDY[1:], tmp_path / "d.pt"),
    ]
    assert run(company, stream, teacher)
    assert same_weights(company[0].model, alone["labels"].model)
    assert same_weights(company[1].model, alone["study"].model)
    assert [len(one.log) for one in company] == [2, 2, 1, 1]


@pytest.mark.parametrize("cores", [1, 3])
def test_the_bits_do_not_depend_on_the_cores(
    tmp_path: Path,
    stream: Stream,
    teacher: ResNet50,
    alone: dict[str, Learner],
    cores: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    company = [learner(tmp_path, name, stages=STUDY) for name in "abcd"]
    assert run(company, stream, teacher)
    assert all(same_weights(one.model, alone["study"].model) for one in company)


def test_every_learner_ends_once_even_one_with_nothing_to_do(tmp_path: Path, stream: Stream) -> None:
    ended = Ended()
    done, failing, short, long = (learner(tmp_path, name, seed=seed) for seed, name in enumerate("dfsl"))
    done.epoch = 2
    failing.phases = [Phase("labels", 2, raising(RuntimeError("no"), at=2))]
    short.phases = [Phase("labels", 1, cross_entropy)]
    assert train([done, failing, short, long], stream, CPU, Told(), ended)
    assert ended == ["d", "f", "s", "l"]
    assert [one.failure is None for one in (done, failing, short, long)] == [True, False, True, True]


def raising(error: Exception, at: int) -> Callable[[Outputs, Outputs | None, Tensor], Tensor]:
    """A loss that raises in its `at`-th step."""
    steps = Counter[str]()

    def loss(student: Outputs, _: Outputs | None, labels: Tensor) -> Tensor:
        steps["taken"] += 1
        if steps["taken"] == at:
            raise error
        return cross_entropy(student, None, labels)

    return loss


def nan(student: Outputs, _: Outputs | None, labels: Tensor) -> Tensor:
    return cross_entropy(student, None, labels) * math.nan


def test_a_learner_that_diverges_disturbs_nobody(
    tmp_path: Path, stream: Stream, teacher: ResNet50, alone: dict[str, Learner]
) -> None:
    sick, well, ended = learner(tmp_path, "s", [Phase("feature", 2, nan)]), learner(tmp_path, "w", STUDY), Ended()
    assert train([sick, well], stream, CPU, Told(), ended, teacher)
    assert sick.failure and sick.failure.kind == "diverged"
    assert "nan in epoch 1 (feature)" in sick.failure.message and "lr" in sick.failure.message
    assert sick.log == [] and ended == ["s", "w"]
    assert same_weights(well.model, alone["study"].model)


def test_a_rate_that_is_far_too_high_is_told_as_divergence(tmp_path: Path, stream: Stream) -> None:
    one = learner(tmp_path, lr=1e30, clip_norm=0.0)
    run([one], stream)
    assert one.failure and one.failure.kind == "diverged"


@pytest.mark.parametrize("at", [1, 2, 5])
@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (RuntimeError("shapes do not fit"), "error", "RuntimeError: shapes do not fit"),
        (torch.OutOfMemoryError("14 GiB"), "out-of-memory", "lower TOGETHER or the batch_size"),
    ],
)
def test_a_learner_that_raises_fails_alone(
    tmp_path: Path, stream: Stream, alone: dict[str, Learner], error: Exception, kind: str, said: str, at: int
) -> None:
    sick, well = learner(tmp_path, "s", [Phase("labels", 2, raising(error, at))]), learner(tmp_path, "w")
    assert run([sick, well], stream)
    assert sick.failure and sick.failure.kind == kind and said in sick.failure.message
    assert same_weights(well.model, alone["labels"].model)


# --- The teacher -----------------------------------------------------------------------------------------------------


class Asked(ResNet50):
    """A teacher that remembers what it was asked for."""

    asked: list[frozenset[str]]

    def tapped(self, x: Tensor, taps: frozenset[str]) -> Outputs:
        self.asked.append(taps)
        assert not torch.is_grad_enabled()
        return super().tapped(x, taps)


@pytest.fixture
def asked() -> Asked:
    model = network(99)
    model.__class__ = Asked
    assert isinstance(model, Asked)
    model.asked = []
    return model


def test_nobody_asks_the_teacher_about_labels(tmp_path: Path, stream: Stream, asked: Asked) -> None:
    run([learner(tmp_path)], stream, asked)
    assert asked.asked == []


def test_the_teacher_is_asked_once_for_all_and_only_for_the_taps_of_the_phase(
    tmp_path: Path, stream: Stream, asked: Asked
) -> None:
    probe = Phase(
        "probe", 1, lambda s, t, _: fmse.paper_loss(s, t) if t else s.logits.sum(), frozenset(fmse.TAPS), True
    )
    gram = phases({"method": "gram", "objective": "stages"}, 1)
    company = [
        learner(tmp_path, "a", gram, seed=1),
        learner(tmp_path, "b", [probe], seed=2),
        learner(tmp_path, "c", LABELS, seed=3),
    ]
    run(company, stream, asked)
    assert asked.asked == [gram[0].taps | set(fmse.TAPS)] * 3 + [frozenset()] * 3


def test_the_teacher_learns_nothing(tmp_path: Path, stream: Stream, asked: Asked) -> None:
    run([learner(tmp_path, stages=STUDY)], stream, asked)
    assert same_weights(asked, network(99))
    assert all(parameter.grad is None for parameter in asked.parameters())


# --- Stopping and going on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_learner_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, stream: Stream, teacher: ResNet50, alone: dict[str, Learner], step: int
) -> None:
    stopped = learner(tmp_path, stages=STUDY)
    assert not run([stopped], stream, teacher, patience(step))
    resumed = learner(tmp_path, stages=STUDY, seed=55)
    resumed.resume()
    assert (resumed.epoch * 3 + resumed.step, resumed.seconds) == (step, stopped.seconds)
    assert run([resumed], stream, teacher)
    assert same_weights(resumed.model, alone["study"].model)
    told = [[(ended.loss, ended.accuracy_pct) for ended in log] for log in (resumed.log, alone["study"].log)]
    assert told[0] == told[1]


def test_a_stop_after_the_very_last_step_loses_nothing(
    tmp_path: Path, stream: Stream, alone: dict[str, Learner]
) -> None:
    assert not run([learner(tmp_path)], stream, None, patience(STEPS))
    resumed, ended = learner(tmp_path, seed=55), Ended()
    resumed.resume()
    assert train([resumed], stream, CPU, Told(), ended)
    assert ended == ["a"]
    assert same_weights(resumed.model, alone["labels"].model)


def test_learners_that_stand_at_different_places_join_when_theirs_comes(
    tmp_path: Path, stream: Stream, teacher: ResNet50, alone: dict[str, Learner]
) -> None:
    run([learner(tmp_path, "ahead", STUDY)], stream, teacher, patience(4))
    ahead, behind, fresh = learner(tmp_path, "ahead", STUDY), learner(tmp_path, "behind"), learner(tmp_path, "fresh")
    ahead.resume()
    run([learner(tmp_path, "behind")], stream, None, patience(1))
    behind.resume()
    ended = Ended()
    assert train([ahead, behind, fresh], stream, CPU, Told(), ended, teacher)
    assert sorted(ended) == ["ahead", "behind", "fresh"]
    assert same_weights(ahead.model, alone["study"].model)
    assert same_weights(behind.model, alone["labels"].model)
    assert same_weights(fresh.model, alone["labels"].model)


def test_a_learner_is_saved_now_and_then(
    tmp_path: Path, stream: Stream, monkeypatch: pytest.MonkeyPatch, alone: dict[str, Learner]
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
    killed = learner(tmp_path, stages=[Phase("labels", 2, raising(KeyboardInterrupt(), at=5))])  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        run([killed], stream)
    resumed = learner(tmp_path, seed=55)
    resumed.resume()
    assert (resumed.epoch, resumed.step) == (1, 1)
    run([resumed], stream)
    assert same_weights(resumed.model, alone["labels"].model)


def test_without_a_checkpoint_one_starts_at_the_beginning(tmp_path: Path) -> None:
    one = learner(tmp_path)
    one.resume()
    assert (one.epoch, one.step) == (0, 0)


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_a_torn_checkpoint_means_starting_again(
    tmp_path: Path, stream: Stream, alone: dict[str, Learner], keep: int
) -> None:
    one = learner(tmp_path)
    run([one], stream, None, patience(2))
    one.checkpoint.write_bytes(one.checkpoint.read_bytes()[:keep])
    again = learner(tmp_path)
    again.resume()
    assert (again.epoch, again.step) == (0, 0) and not again.checkpoint.exists()
    assert same_weights(again.model, network(0))


@pytest.mark.parametrize("absent", ["right", "log", "optimizer"])
def test_a_checkpoint_of_another_version_means_starting_again(tmp_path: Path, stream: Stream, absent: str) -> None:
    one = learner(tmp_path)
    run([one], stream, None, patience(2))
    state = torch.load(one.checkpoint, weights_only=True)
    del state[absent]
    torch.save(state, one.checkpoint)
    again = learner(tmp_path)
    again.resume()
    assert (again.epoch, again.step) == (0, 0) and not again.checkpoint.exists()
    assert same_weights(again.model, network(0))


def test_a_checkpoint_of_another_network_means_starting_again(tmp_path: Path, stream: Stream) -> None:
    other = Learner("a", network(0, pruned_widths()), RECIPE, LABELS, tmp_path / "a.pt")
    run([other], stream, None, patience(2))
    one = learner(tmp_path)
    one.resume()
    assert (one.epoch, one.step) == (0, 0)
    assert same_weights(one.model, network(0))


# --- Accuracy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [7, 300, 500])
def test_accuracy_counts_every_image_once(images: Images, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(loop, "EVALUATION_BATCH", batch)
    model = network().train()
    with torch.no_grad():
        answers = network()(normalise(resize(images.pixels, 16))).argmax(1)
    right = Images(images.pixels, torch.where(torch.arange(300) < 123, answers, (answers + 1) % 100))
    given = loop.answers(model, right, 16, CPU)
    assert torch.equal(given, answers)
    assert accuracy_pct(given, right) == pytest.approx(41.0)
    assert not model.training
