"""The training loop: any number of learners side by side on the same batches, with one teacher pass for all.

Every learner steps on its own (weights, optimiser, schedule), so on a CPU its result is bit for bit the same with and
without others; one that fails or diverges drops out and disturbs nobody. Batches are a function of (stage, seed, epoch,
step), so a learner that was stopped resumes from its checkpoint and ends with the same weights as if it had not been.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness.architectures import Outputs, tapped
from harness.compression.distillation import Phase
from harness.datasets import Images, normalise, resize
from harness.files import atomic_path
from harness.plan.settings import Recipe
from harness.store.records import Epoch, Failure
from harness.training.batches import Stream
from harness.training.device import Device
from harness.training.executors import step_executor
from harness.training.replay import Desk, Lesson, Replays, cuda_recorder

CHECKPOINT_EVERY_S = 45.0
EVALUATION_BATCH = 250
# The attributes of a learner that say how far it has come.
COUNTERS = ("epoch", "step", "losses", "seen", "right", "rate", "seconds")

Batches = Iterator[tuple[Tensor, Tensor]]
# (model, height and width) -> accuracy on the test images in percent
Test = Callable[[nn.Module, int], float]


class Watcher(Protocol):
    """Who is told how training proceeds."""

    def step(self, epoch: int, epochs: int, step: int, steps: int, learners: int, images_per_s: float) -> None:
        """A step was taken by `learners` learners."""

    def epoch(self, learner: str, number: int, of: int, epoch: Epoch) -> None:
        """A learner finished an epoch."""


@dataclass
class Learner:
    """A model in training: what it is, and how far it has come.

    `origin` says what the model was made from (keys, hashes, digests of code): a checkpoint of another origin is not
    resumed from. `modules` are a distillation method's own, trained beside the model.
    """

    name: str
    model: nn.Module
    recipe: Recipe
    phases: list[Phase]
    checkpoint: Path
    origin: Mapping[str, Any] = field(default_factory=dict)
    modules: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    # called between backward and step: adds to the gradients
    regularise: Callable[[], None] | None = None
    optimizer: torch.optim.SGD = field(init=False)
    epoch: int = 0
    step: int = 0
    losses: Tensor = field(init=False)
    # images seen in this epoch, and how many of them were answered right (as augmented, before the step they were for)
    seen: int = 0
    right: Tensor = field(init=False)
    log: list[Epoch] = field(default_factory=list)
    # the rate of the latest step
    rate: float = 0.0
    # how a GPU repeats its steps; None: each is computed anew
    replays: Replays | None = None
    seconds: float = 0.0
    failure: Failure | None = None

    def __post_init__(self) -> None:
        self.model.train()
        self.parameters = [*self.model.parameters(), *self.modules.parameters()]
        device = self.parameters[0].device
        self.optimizer = torch.optim.SGD(
            self.parameters,
            lr=self.recipe.lr,
            momentum=self.recipe.momentum,
            nesterov=self.recipe.nesterov and self.recipe.momentum > 0,
            weight_decay=self.recipe.weight_decay,
            fused=True,
        )
        if self.recipe.momentum:
            # What the first step would make of them. The fused kernel needs the buffers of all parameters or of none,
            # and a feature stage gives the classifier no gradient.
            for parameter in self.parameters:
                self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        # a step that a GPU repeats as recorded reads its rate from the GPU's memory
        self.rate_on_gpu = torch.zeros((), device=device) if device.type == "cuda" else None
        self.losses = torch.zeros((), dtype=torch.float64, device=device)
        self.right = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def epochs(self) -> int:
        """Epochs of all phases together."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def running(self) -> bool:
        """Whether there is something left to do."""
        return self.failure is None and self.epoch < self.epochs

    def phase(self) -> Phase:
        """The phase that the current epoch is in."""
        end = 0
        for phase in self.phases:
            end += phase.epochs
            if self.epoch < end:
                return phase
        raise IndexError(f"{self.name}: epoch {self.epoch} of {end}")

    def learn(self, images: Tensor, labels: Tensor, teacher: Outputs | None, device: Device, steps: int) -> None:
        """One step."""
        self.rate = learning_rate(self.recipe, self.epoch + self.step / steps, self.epochs)
        phase = self.phase()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate if self.rate_on_gpu is None else self.rate_on_gpu.fill_(self.rate)
        step = partial(self._compute, images, labels, teacher, phase, device)
        if self.replays:
            self.replays.take(step, phase.name, (images, labels, teacher))
        else:
            step()
        self.seen += len(labels)
        self.step += 1

    def _compute(self, images: Tensor, labels: Tensor, teacher: Outputs | None, phase: Phase, device: Device) -> None:
        """What a step computes: on the device alone, so that a GPU can repeat it without the host."""
        images = images.contiguous(memory_format=device.layout)
        with device.autocast():
            outputs = tapped(self.model, images, phase.taps)
        loss = phase.loss(outputs, teacher, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.regularise:
            self.regularise()
        if self.recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        self.optimizer.step()
        # Summed on the device: reading it here would make the host wait for every step.
        self.losses += loss.detach()
        self.right += (outputs.logits.detach().argmax(1) == labels).sum()

    def end_epoch(self, steps: int, images_per_s: float, image_size: int, test: Test | None) -> Epoch | None:
        """Close the epoch in the log and return its entry; a loss that is not finite ends the learner without one.

        The epoch trained at `image_size`, and is tested at it.
        """
        loss = self.losses.item() / steps
        accuracy = 100 * self.right.item() / max(self.seen, 1)
        rate, phase, ended = self.rate, self.phase().name, None
        if math.isfinite(loss):
            ended = Epoch(
                phase=phase,
                loss=loss,
                accuracy_pct=accuracy,
                image_size=image_size,
                test_accuracy_pct=test(self.model, image_size) if test else None,
                lr=rate,
                images_per_s=images_per_s,
            )
            self.model.train()
            self.log.append(ended)
        else:
            self.failure = Failure(
                kind="diverged",
                message=f"loss is {loss} in epoch {self.epoch + 1} ({phase}); lower the recipe's lr ({rate:g})",
            )
        self.epoch, self.step, self.seen = self.epoch + 1, 0, 0
        self.losses.zero_()
        self.right.zero_()
        return ended

    def save(self) -> None:
        """Write everything that resuming needs."""
        state = {
            "origin": dict(self.origin),
            "model": self.model.state_dict(),
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in COUNTERS},
            "log": [ended.model_dump() for ended in self.log],
        }
        # through Python's own file, whose errors say what is wrong; PyTorch's do not
        with atomic_path(self.checkpoint) as temporary, temporary.open("wb") as file:
            torch.save(state, file)

    def resume(self) -> None:
        """Resume from the checkpoint where there is one; one that is torn, or of another origin, is deleted."""
        if not self.checkpoint.is_file():
            return
        try:
            state = torch.load(self.checkpoint, map_location=self.losses.device, weights_only=True)
            if state["origin"] != dict(self.origin):
                raise ValueError("made from something that has been replaced since")
            if _shapes(state["model"]) != _shapes(self.model.state_dict()):
                raise ValueError("of a network that was pruned differently")
            if absent := {"modules", "optimizer", *COUNTERS, "log"} - state.keys():
                raise ValueError(f"of another version of the harness: it has no {absent}")
        except Exception:  # a torn file can raise nearly anything; nothing is lost but time
            self.checkpoint.unlink()
            return
        self.model.load_state_dict(state["model"])
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in COUNTERS:
            setattr(self, name, state[name])
        self.log = [Epoch.model_validate(ended) for ended in state["log"]]


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def learning_rate(recipe: Recipe, position: float, epochs: int) -> float:
    """The rate at `position` epochs into `epochs`: linear warm-up, then the schedule, which ends at the last epoch."""
    if position < recipe.warmup_epochs:
        # never zero, so that the first step counts
        return recipe.lr * max(position, 0.05 * recipe.warmup_epochs) / recipe.warmup_epochs
    done = min((position - recipe.warmup_epochs) / max(epochs - recipe.warmup_epochs, 1e-9), 1.0)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))
    if recipe.schedule == "linear":
        return recipe.lr * (1 - done)
    if recipe.schedule == "exponential":
        return recipe.lr * recipe.gamma ** math.floor(position)
    return recipe.lr


def train(
    learners: Sequence[Learner],
    stream: Stream,
    device: Device,
    watcher: Watcher,
    ended: Callable[[Learner], None],
    teacher: nn.Module | None = None,
    keep_going: Callable[[], bool] = lambda: True,
    alone: bool = False,
    test: Test | None = None,
) -> bool:
    """Train all learners; True when all have come to their end, False when `keep_going` said stop (all is saved then).

    `ended` is called with each learner once, when it is done or has failed. Learners that have come to different places
    (after a stop, say) are trained from the one furthest behind on, each joining when its place comes. A learner that
    never trains beside others is trained `alone`, on every core of a CPU; its bits depend on how many there are. With
    `test`, every learner is tested after every epoch.
    """
    for learner in learners:
        if not learner.running:
            ended(learner)
    with step_executor(device, alone) as executor:
        return _train(learners, stream, device, watcher, ended, teacher, keep_going, executor, test)


def _train(
    learners: Sequence[Learner],
    stream: Stream,
    device: Device,
    watcher: Watcher,
    ended: Callable[[Learner], None],
    teacher: nn.Module | None,
    keep_going: Callable[[], bool],
    executor: Executor,
    test: Test | None,
) -> bool:
    saved = time.monotonic()
    desk = desk_for(learners, device)
    while running := [learner for learner in learners if learner.running]:
        epoch, first = min((learner.epoch, learner.step) for learner in running)
        together = [learner for learner in running if learner.epoch == epoch]
        started, images_seen = time.monotonic(), 0
        batches = stream.batches(epoch, first)

        def lesson(batches: Batches = batches, together: Sequence[Learner] = together) -> Lesson:
            """The next batch with the teacher's answers: prepared while the learners are busy with the one before."""
            images, labels = next(batches)
            return images, labels, teach(teacher, images, together, device)

        # A learner that was stopped after an epoch's last step has none left in it.
        coming = deque([executor.submit(lesson)] if first < stream.steps else [])
        for step in range(first, stream.steps):
            together = [learner for learner in together if learner.failure is None]
            if not together:
                break
            clock = time.monotonic()
            images, labels, outputs = coming.popleft().result()
            if step + 1 < stream.steps:
                coming.append(executor.submit(lesson))
            learning = [learner for learner in together if learner.step == step]
            if desk:
                images, labels, outputs = desk.put(images, labels, outputs)
            taught = [executor.submit(_learn, one, images, labels, outputs, device, stream.steps) for one in learning]
            for done in taught:
                done.result()
            for learner in learning:
                learner.seconds += (time.monotonic() - clock) / len(learning)
            images_seen += len(labels)
            rate = images_seen / (time.monotonic() - started)
            most = max(learner.epochs for learner in together)
            watcher.step(epoch, most, step + 1, stream.steps, len(learning), rate)
            stop = not keep_going()
            if stop or time.monotonic() - saved > CHECKPOINT_EVERY_S:
                _save(learners)
                saved = time.monotonic()
            if stop:
                return False
        device.synchronize()
        rate = images_seen / max(time.monotonic() - started, 1e-9)
        for learner in running:
            at_its_end = learner.failure is None and learner.epoch == epoch
            if at_its_end and (closed := learner.end_epoch(stream.steps, rate, stream.image_size(epoch), test)):
                watcher.epoch(learner.name, epoch + 1, learner.epochs, closed)
            if not learner.running:
                ended(learner)
    return True


def desk_for(learners: Sequence[Learner], device: Device) -> Desk | None:
    """Have a device that is to replay steps replay those of these learners; the desk that their lessons come from."""
    if not device.graphs:
        return None
    record = cuda_recorder(device.torch)
    for learner in learners:
        learner.replays = Replays(record)
    return Desk()


def teach(teacher: nn.Module | None, images: Tensor, learners: Sequence[Learner], device: Device) -> Outputs | None:
    """The teacher's outputs with every tap that one of the learners asks for; None when nobody asks."""
    wanting = [learner.phase() for learner in learners if learner.phase().needs_teacher]
    if not wanting or teacher is None:
        return None
    taps = frozenset().union(*(phase.taps for phase in wanting))
    images = images.contiguous(memory_format=device.layout)
    with torch.no_grad(), device.autocast():
        return tapped(teacher, images, taps)


def _learn(
    learner: Learner, images: Tensor, labels: Tensor, teacher: Outputs | None, device: Device, steps: int
) -> None:
    """One step of one learner; what goes wrong in it is its own failure."""
    try:
        learner.learn(images, labels, teacher, device, steps)
    except torch.OutOfMemoryError as error:
        learner.failure = Failure(kind="out-of-memory", message=f"{error}; lower TOGETHER or the batch_size")
    except Exception as error:  # a faulty method must not take the other learners along
        learner.failure = Failure(kind="error", message=f"{type(error).__name__}: {error}")


def _save(learners: Sequence[Learner]) -> None:
    """Checkpoint what is still in training: a learner that has ended must leave nothing that could be resumed from."""
    for learner in learners:
        if learner.running and (learner.epoch or learner.step):
            learner.save()


def answers(model: nn.Module, images: Images, image_size: int, device: Device, autocast: bool = False) -> Tensor:
    """The class that the model gives each image, int64 [N] on the CPU; computed on the device.

    In fp32; with `autocast`, at the precision that the device trains at. The model is left in evaluation mode.
    """
    model.eval()

    def answer(start: int) -> Tensor:
        pixels = images.pixels[start : start + EVALUATION_BATCH].to(device.torch)
        batch = normalise(resize(pixels, image_size), images.mean, images.std)
        # both hold for the thread that says it
        with torch.no_grad(), device.autocast() if autocast else nullcontext():
            return tapped(model, batch.contiguous(memory_format=device.layout)).logits.argmax(1)

    with step_executor(device, alone=False) as executor:
        return torch.cat(list(executor.map(answer, range(0, len(images.labels), EVALUATION_BATCH)))).cpu()


def accuracy_pct(given: Tensor, images: Images) -> float:
    """Top-1 accuracy in percent of the answers given: the figure that the exported model has to match."""
    return 100 * (given == images.labels.cpu()).sum().item() / len(images.labels)
