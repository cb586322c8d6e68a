import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.architectures import Outputs, architecture_of, tapped
from harness.compression.distillation import Phase, Setup, cross_entropy, method_of, taught
from harness.datasets import Images, normalise, resize
from harness.plan import registry
from harness.plan.settings import Recipe
from harness.plan.specs import StagedObjective
from harness.training import loop
from harness.training.batches import Stream
from harness.training.loop import Learner, accuracy_pct, learning_rate, train
from tests.training_kit import CPU, Told, network, recipe, same_weights, stop_after, thin

NETWORK = thin("resnet18")
LABELS = [Phase("labels", 2, cross_entropy)]
STEPS = 6  # two epochs of three


def study(method: str) -> list[Phase]:
    """The phases of the study's protocol, an epoch each."""
    uses = registry.find("method", method).constants.get("USES", ())
    used = {name: registry.resolve("method", name, {}) for name in uses}
    parameters = registry.resolve("method", method, {})
    return method_of(method).phases(Setup(architecture_of(NETWORK), StagedObjective("sum"), 1, parameters, used))


STUDY = study("fmse")


class Ended(list[str]):
    """Which learners ended, in order."""

    def __call__(self, learner: Learner) -> None:
        self.append(learner.name)


def learner(folder: Path, name: str = "a", phases: list[Phase] | None = None, seed: int = 0, **changes: Any) -> Learner:
    return Learner(
        name, network(seed, spec=NETWORK), recipe(**changes), phases or LABELS, folder / f"{name}.pt", {"key": "v2-a"}
    )


def run(
    learners: Sequence[Learner],
    stream: Stream,
    teacher: nn.Module | None = None,
    keep_going: Callable[[], bool] = lambda: True,
) -> bool:
    return train(learners, stream, CPU, Told(), Ended(), teacher, keep_going)


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    return network(99, spec=NETWORK).requires_grad_(False)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, stream: Stream, teacher: nn.Module) -> dict[str, Learner]:
    """Each kind of learner, trained to its end by itself."""
    folder = tmp_path_factory.mktemp("alone")
    learners = {"labels": learner(folder), "study": learner(folder, phases=STUDY)}
    for one in learners.values():
        assert run([one], stream, teacher)
        assert not same_weights(one.model, network(0, spec=NETWORK))
    return learners


# --- Learning rate ---------------------------------------------------------------------------------------------------


@st.composite
def recipes(draw: st.DrawFn, /, **fixed: Any) -> Recipe:
    drawn = {
        "epochs": 30,
        "batch_size": 1,
        "lr": draw(st.floats(1e-5, 10)),
        "warmup_epochs": draw(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0])),
        "schedule": draw(st.sampled_from(["cosine", "linear", "exponential", "constant"])),
        "gamma": draw(st.floats(0.01, 0.999)),
    }
    return Recipe(**{**drawn, **fixed})


@given(recipes(), st.integers(1, 30), st.floats(0, 1))
def test_the_rate_is_never_above_its_peak_nor_below_zero(given: Recipe, epochs: int, part: float) -> None:
    assert 0 <= learning_rate(given, part * epochs, epochs) <= given.lr


@given(recipes(warmup_epochs=3.0), st.integers(4, 30), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_the_rate_rises_during_the_warm_up_and_the_first_step_counts(
    given: Recipe, epochs: int, parts: tuple[float, float]
) -> None:
    early, late = (learning_rate(given, 2.999 * part, epochs) for part in sorted(parts))
    assert 0 < early <= late < given.lr


@pytest.mark.parametrize(("schedule", "half"), [("cosine", 0.5), ("linear", 0.5)])
@given(st.data(), st.integers(4, 30))
def test_a_cosine_or_a_line_falls_from_the_peak_to_zero(
    schedule: str, half: float, data: st.DataObject, epochs: int
) -> None:
    drawn = data.draw(recipes(schedule=schedule))
    start = drawn.warmup_epochs
    rates = [learning_rate(drawn, start + (epochs - start) * n / 20, epochs) for n in range(21)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(drawn.lr) and rates[10] == pytest.approx(half * drawn.lr)
    assert rates[-1] == pytest.approx(0, abs=1e-9 * drawn.lr)


@given(recipes(schedule="exponential", warmup_epochs=0.0), st.integers(0, 29), st.floats(0, 0.999))
def test_an_exponential_rate_steps_down_once_an_epoch(given: Recipe, epoch: int, part: float) -> None:
    rate = learning_rate(given, epoch + part, 30)
    assert rate == learning_rate(given, epoch, 30) == pytest.approx(given.lr * given.gamma**epoch)


def test_the_schedule_spans_all_phases(tmp_path: Path, stream: Stream, teacher: nn.Module) -> None:
    one = learner(tmp_path, phases=STUDY, warmup_epochs=0.0)
    run([one], stream, teacher)
    last_steps = [learning_rate(one.recipe, position, 2) for position in (2 / 3, 5 / 3)]
    assert [ended.lr for ended in one.log] == pytest.approx(last_steps)


# --- One learner -----------------------------------------------------------------------------------------------------


def test_the_same_learner_twice_ends_with_the_same_bits(
    tmp_path: Path, stream: Stream, teacher: nn.Module, alone: dict[str, Learner]
) -> None:
    again = learner(tmp_path, phases=STUDY)
    run([again], stream, teacher)
    assert same_weights(again.model, alone["study"].model)
    assert [ended.loss for ended in again.log] == [ended.loss for ended in alone["study"].log]


def test_another_seed_sees_other_batches(tmp_path: Path, stream: Stream, alone: dict[str, Learner]) -> None:
    other = learner(tmp_path)
    run([other], replace(stream, seed=1))
    assert not same_weights(other.model, alone["labels"].model)


def test_the_log_has_the_phase_mean_loss_and_accuracy_of_every_epoch(tmp_path: Path, stream: Stream) -> None:
    seen: list[float] = []
    right: list[float] = []

    def loss(student: Outputs, _: Outputs | None, labels: Tensor) -> Tensor:
        value = cross_entropy(student, None, labels)
        seen.append(value.item())
        right.append(100 * (student.logits.argmax(1) == labels).float().mean().item())
        return value

    one, told = learner(tmp_path, phases=[Phase("first", 1, loss), Phase("second", 1, loss)]), Told()
    assert train([one], stream, CPU, told, Ended())
    assert [ended.phase for ended in one.log] == ["first", "second"]
    assert [ended.loss for ended in one.log] == pytest.approx([sum(seen[:3]) / 3, sum(seen[3:]) / 3])
    assert any(right)
    assert [ended.accuracy_pct for ended in one.log] == pytest.approx([sum(right[:3]) / 3, sum(right[3:]) / 3])
    assert told.epochs == [("a", 1, 2), ("a", 2, 2)] and told.steps == len(seen) == STEPS
    assert one.seconds > 0


@pytest.mark.parametrize(("count", "batch_size", "seen"), [(48, 16, 48), (50, 16, 48), (20, 512, 20)])
def test_throughput_counts_the_images_that_were_seen(
    tmp_path: Path, images: Images, count: int, batch_size: int, seen: int
) -> None:
    """A batch of 512 out of 20 images is one of 20."""
    one = learner(tmp_path, phases=[Phase("labels", 1, cross_entropy)], batch_size=batch_size)
    started = time.monotonic()
    run([one], Stream(images.first(count), recipe(batch_size=batch_size), (), "student", seed=0))
    took = time.monotonic() - started
    assert seen / took <= one.log[0].images_per_s <= 1.01 * seen / one.seconds


def test_training_lowers_the_loss(tmp_path: Path, stream: Stream) -> None:
    # Two classes out of a hundred: that there are only two is learned in a few steps, however a processor rounds.
    two = replace(stream, images=replace(stream.images, labels=stream.images.labels % 2))
    one = learner(tmp_path, phases=[Phase("labels", 6, cross_entropy)], clip_norm=0.0)
    run([one], two)
    assert one.log[-1].loss < 0.5 * one.log[0].loss


def test_gradients_are_clipped_to_the_norm_of_the_recipe(tmp_path: Path, images: Images) -> None:
    one = learner(
        tmp_path, clip_norm=0.1, lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="constant",
        warmup_epochs=0.0, phases=[Phase("labels", 1, cross_entropy)],
    )  # fmt: skip
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    run([one], Stream(images.first(16), recipe(), (), "student", seed=0))
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
    unchanged = dict(network(0, spec=NETWORK).named_parameters())
    assert all(torch.equal(parameter, unchanged[name]) for name, parameter in one.model.named_parameters())


def test_the_sizes_of_images_follow_the_schedule_of_the_recipe(tmp_path: Path, images: Images) -> None:
    sizes: list[int] = []
    one = learner(tmp_path, phases=[Phase("labels", 4, cross_entropy)], epochs=2, image_sizes=[8, 16])
    one.model.get_submodule("conv1").register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[-1]))
    assert run([one], Stream(images.first(32), one.recipe, (), "student", seed=0))
    assert sizes == [8, 8, 16, 16] * 2


def test_every_epoch_is_tested_at_its_own_size_and_training_ends_with_the_same_bits(
    tmp_path: Path, images: Images
) -> None:
    def one(name: str) -> Learner:
        return learner(tmp_path, name, [Phase("labels", 3, cross_entropy)], epochs=3, image_sizes=[8, 16])

    def accuracy(model: nn.Module, image_size: int) -> float:
        return accuracy_pct(loop.answers(model, images, image_size, CPU, autocast=True), images)

    stream = Stream(images.first(32), one("x").recipe, ("crop",), "student", seed=0)
    tested, untested = one("a"), one("b")
    assert train([tested], stream, CPU, Told(), Ended(), test=accuracy)
    assert run([untested], stream)
    assert same_weights(tested.model, untested.model)
    assert [epoch.image_size for epoch in tested.log] == [epoch.image_size for epoch in untested.log] == [8, 16, 16]
    assert [epoch.test_accuracy_pct for epoch in untested.log] == [None] * 3
    assert tested.log[-1].test_accuracy_pct == accuracy(tested.model, 16)


def test_a_learner_that_diverges_is_not_tested(tmp_path: Path, stream: Stream) -> None:
    def never(model: nn.Module, image_size: int) -> float:
        raise AssertionError

    one = learner(tmp_path, phases=[Phase("broken", 2, nan)])
    assert train([one], stream, CPU, Told(), Ended(), test=never)
    assert one.failure is not None and one.failure.kind == "diverged" and one.log == []


# --- Modules of a method's own ---------------------------------------------------------------------------------------


def hinted(folder: Path, name: str = "a", seed: int = 0) -> Learner:
    """A learner with a regressor from its stem's features to the teacher's second stage."""
    torch.manual_seed(seed + 17)
    modules = nn.ModuleDict({"regressor": nn.Conv2d(4, 8, 1)})

    def loss(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        guess = modules["regressor"](F.avg_pool2d(student.features["stem"], 2))
        return F.mse_loss(guess, teacher.features["layer2.sum"]) + cross_entropy(student, None, labels)

    phases = [taught("hint", 2, loss, ["stem", "layer2.sum"])]
    return Learner(name, network(seed, spec=NETWORK), recipe(), phases, folder / f"{name}.pt", {"key": "v2-a"}, modules)


def test_a_methods_own_modules_are_optimised_with_the_model(tmp_path: Path, stream: Stream, teacher: nn.Module) -> None:
    one, other = hinted(tmp_path), hinted(tmp_path)
    assert run([one], stream, teacher)
    assert not same_weights(one.modules, other.modules) and not same_weights(one.model, other.model)
    assert all(parameter in one.optimizer.state for parameter in one.modules.parameters())
    assert not any(name.startswith("regressor") for name in one.model.state_dict())


@pytest.mark.parametrize("step", [1, 4])
def test_a_methods_own_modules_are_resumed_to_the_same_bits(
    tmp_path: Path, stream: Stream, teacher: nn.Module, step: int
) -> None:
    whole, stopped = hinted(tmp_path, "whole"), hinted(tmp_path)
    assert run([whole], stream, teacher)
    assert not run([stopped], stream, teacher, stop_after(step))
    resumed = hinted(tmp_path, seed=55)
    resumed.resume()
    assert same_weights(resumed.modules, stopped.modules)
    assert run([resumed], stream, teacher)
    assert same_weights(resumed.model, whole.model) and same_weights(resumed.modules, whole.modules)


def test_clipping_counts_the_gradients_of_a_methods_own_modules(
    tmp_path: Path, stream: Stream, teacher: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = hinted(tmp_path)
    clipped: list[int] = []
    clip = torch.nn.utils.clip_grad_norm_

    def counting(given: list[Tensor], norm: float) -> Tensor:
        clipped.append(len(given))
        return clip(given, norm)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", counting)
    run([one], stream, teacher)
    assert set(clipped) == {len(list(one.model.parameters())) + 2}


# --- Side by side ----------------------------------------------------------------------------------------------------


def test_beside_others_a_learner_ends_with_the_bits_it_has_alone(
    tmp_path: Path, stream: Stream, teacher: nn.Module, alone: dict[str, Learner]
) -> None:
    learners = [
        learner(tmp_path, "a"),
        learner(tmp_path, "b", phases=STUDY),
        learner(tmp_path, "c", phases=[Phase("labels", 1, cross_entropy)], seed=7),
        Learner("d", network(3, True, NETWORK), recipe(), STUDY[1:], tmp_path / "d.pt"),
        hinted(tmp_path, "e"),
    ]
    assert run(learners, stream, teacher)
    assert same_weights(learners[0].model, alone["labels"].model)
    assert same_weights(learners[1].model, alone["study"].model)
    assert [len(one.log) for one in learners] == [2, 2, 1, 1, 2]


@pytest.mark.parametrize("cores", [1, 3])
def test_the_bits_do_not_depend_on_the_number_of_cores(
    tmp_path: Path,
    stream: Stream,
    teacher: nn.Module,
    alone: dict[str, Learner],
    cores: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    learners = [learner(tmp_path, name, phases=STUDY) for name in "abcd"]
    assert run(learners, stream, teacher)
    assert all(same_weights(one.model, alone["study"].model) for one in learners)


def test_every_learner_ends_once_even_one_with_nothing_to_do(tmp_path: Path, stream: Stream) -> None:
    ended = Ended()
    done, failing, short, long = (learner(tmp_path, name, seed=seed) for seed, name in enumerate("dfsl"))
    done.epoch = 2
    failing.phases = [Phase("labels", 2, raising(RuntimeError("no"), at=2))]
    short.phases = [Phase("labels", 1, cross_entropy)]
    assert train([done, failing, short, long], stream, CPU, Told(), ended)
    assert ended == ["d", "f", "s", "l"]
    assert [one.failure is None for one in (done, failing, short, long)] == [True, False, True, True]


def raising(error: BaseException, at: int) -> Callable[[Outputs, Outputs | None, Tensor], Tensor]:
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


def test_a_learner_that_diverges_does_not_disturb_the_others(
    tmp_path: Path, stream: Stream, teacher: nn.Module, alone: dict[str, Learner]
) -> None:
    sick, well, ended = learner(tmp_path, "s", [Phase("feature", 2, nan)]), learner(tmp_path, "w", STUDY), Ended()
    assert train([sick, well], stream, CPU, Told(), ended, teacher)
    assert sick.failure and sick.failure.kind == "diverged"
    assert "nan in epoch 1 (feature)" in sick.failure.message and "lr" in sick.failure.message
    assert sick.log == [] and ended == ["s", "w"]
    assert same_weights(well.model, alone["study"].model)


def test_a_rate_that_is_far_too_high_is_reported_as_divergence(tmp_path: Path, stream: Stream) -> None:
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


class Asked(nn.Module):
    """A teacher that remembers which features it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network(99, spec=NETWORK)
        self.asked: list[frozenset[str]] = []

    def tapped(self, images: Tensor, taps: frozenset[str]) -> Outputs:
        self.asked.append(taps)
        assert not torch.is_grad_enabled()
        return tapped(self.inner, images, taps)


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_nobody_asks_the_teacher_about_labels(tmp_path: Path, stream: Stream, asked: Asked) -> None:
    run([learner(tmp_path)], stream, asked)
    assert asked.asked == []


def test_the_teacher_is_asked_once_for_all_and_only_for_the_taps_of_the_phase(
    tmp_path: Path, stream: Stream, asked: Asked
) -> None:
    gram, hints = study("gram"), STUDY[:1]
    learners = [
        learner(tmp_path, "a", gram, seed=1),
        learner(tmp_path, "b", hints, seed=2),
        learner(tmp_path, "c", LABELS, seed=3),
    ]
    run(learners, stream, asked)
    assert gram[0].taps and hints[0].taps and gram[0].taps != hints[0].taps
    assert asked.asked == [gram[0].taps | hints[0].taps] * 3 + [frozenset()] * 3


def test_the_teacher_learns_nothing(tmp_path: Path, stream: Stream, asked: Asked) -> None:
    run([learner(tmp_path, phases=STUDY)], stream, asked)
    assert same_weights(asked.inner, network(99, spec=NETWORK))
    assert all(parameter.grad is None for parameter in asked.parameters())


def test_features_of_networks_without_taps_of_their_own_are_read_by_hooks(tmp_path: Path, stream: Stream) -> None:
    def plain(channels: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, channels, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * channels, 100))

    seen: list[tuple[int, ...]] = []

    def loss(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        seen.append((student.features["1"].shape[1], teacher.features["1"].shape[1], len(teacher.features)))
        return F.mse_loss(student.features["1"].mean(1), teacher.features["1"].mean(1))

    one = Learner("a", plain(4), recipe(), [taught("hooked", 1, loss, ["1"])], tmp_path / "a.pt")
    assert run([one], stream, plain(6)) and one.failure is None
    assert seen == [(4, 6, 1)] * 3


# --- Stopping and resuming -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_learner_that_was_stopped_resumes_to_the_same_bits(
    tmp_path: Path, stream: Stream, teacher: nn.Module, alone: dict[str, Learner], step: int
) -> None:
    stopped = learner(tmp_path, phases=STUDY)
    assert not run([stopped], stream, teacher, stop_after(step))
    resumed = learner(tmp_path, phases=STUDY, seed=55)
    resumed.resume()
    assert (resumed.epoch * 3 + resumed.step, resumed.seconds) == (step, stopped.seconds)
    assert run([resumed], stream, teacher)
    assert same_weights(resumed.model, alone["study"].model)
    told = [[(ended.loss, ended.accuracy_pct) for ended in log] for log in (resumed.log, alone["study"].log)]
    assert told[0] == told[1]


def test_a_stop_after_the_very_last_step_loses_nothing(
    tmp_path: Path, stream: Stream, alone: dict[str, Learner]
) -> None:
    assert not run([learner(tmp_path)], stream, None, stop_after(STEPS))
    resumed, ended = learner(tmp_path, seed=55), Ended()
    resumed.resume()
    assert train([resumed], stream, CPU, Told(), ended)
    assert ended == ["a"]
    assert same_weights(resumed.model, alone["labels"].model)


def test_a_stop_in_the_midst_of_a_schedule_of_sizes_resumes_at_its_size(tmp_path: Path, images: Images) -> None:
    def one(name: str, seed: int = 0) -> Learner:
        phases = [Phase("labels", 4, cross_entropy)]
        return learner(tmp_path, name, phases, seed, epochs=2, image_sizes=[8, 16])

    stream = Stream(images.first(32), one("x").recipe, ("crop",), "student", seed=0)
    whole = one("whole")
    assert run([whole], stream)
    assert not run([one("a")], stream, None, stop_after(3))
    resumed = one("a", seed=55)
    resumed.resume()
    assert run([resumed], stream)
    assert same_weights(resumed.model, whole.model)


def test_learners_that_have_come_to_different_places_each_join_at_theirs(
    tmp_path: Path, stream: Stream, teacher: nn.Module, alone: dict[str, Learner]
) -> None:
    run([learner(tmp_path, "ahead", STUDY)], stream, teacher, stop_after(4))
    ahead, behind, new = learner(tmp_path, "ahead", STUDY), learner(tmp_path, "behind"), learner(tmp_path, "new")
    ahead.resume()
    run([learner(tmp_path, "behind")], stream, None, stop_after(1))
    behind.resume()
    ended = Ended()
    assert train([ahead, behind, new], stream, CPU, Told(), ended, teacher)
    assert sorted(ended) == ["ahead", "behind", "new"]
    assert same_weights(ahead.model, alone["study"].model)
    assert same_weights(behind.model, alone["labels"].model)
    assert same_weights(new.model, alone["labels"].model)


def test_a_learner_is_checkpointed_now_and_then(
    tmp_path: Path, stream: Stream, monkeypatch: pytest.MonkeyPatch, alone: dict[str, Learner]
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
    killed = learner(tmp_path, phases=[Phase("labels", 2, raising(KeyboardInterrupt(), at=5))])
    with pytest.raises(KeyboardInterrupt):
        run([killed], stream)
    resumed = learner(tmp_path, seed=55)
    resumed.resume()
    assert (resumed.epoch, resumed.step) == (1, 1)
    run([resumed], stream)
    assert same_weights(resumed.model, alone["labels"].model)


def starts_again(one: Learner) -> bool:
    """Whether a learner refuses its checkpoint, deletes it, and is as it was made."""
    one.resume()
    return (
        (one.epoch, one.step) == (0, 0)
        and not one.checkpoint.exists()
        and same_weights(one.model, network(0, spec=NETWORK))
    )


def test_without_a_checkpoint_a_learner_starts_at_its_beginning(tmp_path: Path) -> None:
    assert starts_again(learner(tmp_path))


@pytest.fixture
def stopped(tmp_path: Path, stream: Stream) -> Path:
    """The checkpoint of a learner that was stopped after two steps."""
    one = learner(tmp_path)
    assert not run([one], stream, None, stop_after(2))
    return one.checkpoint


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_a_torn_checkpoint_is_refused(tmp_path: Path, stopped: Path, keep: int) -> None:
    stopped.write_bytes(stopped.read_bytes()[:keep])
    assert starts_again(learner(tmp_path))


@pytest.mark.parametrize("absent", ["right", "log", "optimizer", "modules", "origin", "model"])
def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, stopped: Path, absent: str) -> None:
    state = torch.load(stopped, weights_only=True)
    del state[absent]
    torch.save(state, stopped)
    assert starts_again(learner(tmp_path))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, stream: Stream) -> None:
    other = Learner("a", network(0, True, NETWORK), recipe(), LABELS, tmp_path / "a.pt", {"key": "v2-a"})
    run([other], stream, None, stop_after(2))
    assert starts_again(learner(tmp_path))


@pytest.mark.parametrize(
    "origin", [{}, {"key": "v2-b"}, {"key": "v2-a", "teacher_sha256": "0"}, {"key": "v2-a", "method fmse": "0"}]
)
def test_a_checkpoint_of_another_origin_is_refused(tmp_path: Path, stopped: Path, origin: dict[str, str]) -> None:
    one = learner(tmp_path)
    one.origin = origin
    assert starts_again(one)


def test_a_checkpoint_of_the_same_origin_is_resumed(tmp_path: Path, stopped: Path) -> None:
    one = learner(tmp_path)
    one.resume()
    assert one.step == 2 and stopped.exists()


def test_a_learner_that_has_ended_leaves_nothing_to_resume_from(tmp_path: Path, stream: Stream) -> None:
    """A checkpoint that outlived its learner would later become a result that nobody trained."""
    short, long = learner(tmp_path, "s", [Phase("labels", 1, cross_entropy)]), learner(tmp_path, "l")
    assert not run([short, long], stream, None, stop_after(5))
    assert not short.running and not short.checkpoint.exists() and long.checkpoint.exists()


# --- Accuracy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [7, 300, 500])
def test_accuracy_counts_every_image_once(images: Images, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(loop, "EVALUATION_BATCH", batch)
    model = network(spec=NETWORK).train()
    with torch.no_grad():
        answers = network(spec=NETWORK)(normalise(resize(images.pixels, 16), images.mean, images.std)).argmax(1)
    right = replace(images, labels=torch.where(torch.arange(300) < 123, answers, (answers + 1) % 100))
    given = loop.answers(model, right, 16, CPU)
    assert torch.equal(given, answers)
    assert accuracy_pct(given, right) == pytest.approx(41.0)
    assert not model.training
