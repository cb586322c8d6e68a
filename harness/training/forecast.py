"""How long the cells that are to be made will take on this machine, from steps timed before any is taken in earnest.

Training is steps times seconds per step. So a step of every network is timed at every size and with every loss that it
will train with, as the engine takes it: on a CPU side by side, a core each. Students do not exist yet. What stands in
for them are untrained networks that L1 pruned by as much, since how long a step takes hardly depends on which channels
have gone. Training that was stopped resumes from its checkpoint, and so takes less than is said here.
"""

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from harness import datasets
from harness.architectures import build, widths_of
from harness.compression.distillation import Phase, cross_entropy
from harness.compression.pruning import prune, regulariser
from harness.errors import HarnessError
from harness.files import digest
from harness.model_files.onnx_export import export
from harness.plan.planning import Cell, Plan
from harness.plan.settings import Recipe
from harness.plan.specs import Choice, Pruned, Sparse, Student
from harness.store.paths import Paths
from harness.training.batches import Stream
from harness.training.device import Device
from harness.training.executors import step_executor
from harness.training.loop import EVALUATION_BATCH, Learner, answers, desk_for, teach
from harness.training.memory import side_by_side
from harness.training.preparation import Prepared, prepare
from harness.training.replay import WARM_UP

# What is timed is timed at least this often, and for this long (s).
LEAST_TIMES, LEAST_S = 2, 1.0
# The criterion that prunes an untrained network evenly: all of its weights are drawn alike.
STAND_IN = Choice("l1", {})
T = TypeVar("T")


@dataclass
class Forecast:
    """Seconds: of each cell by id, and of what several cells share by what it is."""

    cells: dict[str, float] = field(default_factory=dict)
    shared: dict[str, float] = field(default_factory=dict)

    @property
    def total_s(self) -> float:
        """All of it."""
        return sum(self.cells.values()) + sum(self.shared.values())


def forecast(
    plan: Plan, paths: Paths, device: Device, cells: Sequence[Cell], say: Callable[[str], None] = lambda _: None
) -> Forecast:
    """The seconds that training and exporting these cells takes here; `say` is told what is being timed."""
    return Rehearsal(plan, paths, device, say).forecast(cells)


class Rehearsal:
    """Networks of the plan's shapes, untrained, and how long the engine's work with them takes."""

    def __init__(self, plan: Plan, paths: Paths, device: Device, say: Callable[[str], None]) -> None:
        self.plan, self.device, self.say = plan, device, say
        data = plan.teacher.teacher.data
        # any images of the data set will do, and the test images are read anyway
        self.images = datasets.load(data.dataset.name, data.dataset.parameters, paths.data, train=False)
        self.image_size = data.image_size
        # how many of the same kind are timed at once: what it takes to keep every core busy
        self.copies = 1 if device.torch.type == "cuda" else torch.get_num_threads()
        # what was made or timed once: students whose networks have the same shapes share it
        self._known: dict[Any, Any] = {}

    def _once(self, like: Any, find: Callable[[], T]) -> T:
        """What `find` finds, which is the same wherever `like` is."""
        if like not in self._known:
            self._known[like] = find()
        found: T = self._known[like]
        return found

    @cached_property
    def teacher(self) -> nn.Module:
        """The unpruned network, for reading only."""
        return self.device.place(build(self.plan.teacher.teacher.network)).eval().requires_grad_(False)

    @cached_property
    def example(self) -> Tensor:
        """One image's worth of zeros, for tracing."""
        return torch.zeros(1, 3, self.image_size, self.image_size)

    def forecast(self, cells: Sequence[Cell]) -> Forecast:
        """See the function of this name."""
        found = Forecast()
        students = [cell for cell in cells if not cell.is_teacher]
        for cell in (cell for cell in cells if cell.is_teacher):
            found.cells[cell.id] = self._teacher_s(cell)
        sparse = {stage.key: stage for cell in students for stage in cell.spec.lineage if isinstance(stage, Sparse)}
        if sparse:
            what = f"sparse training before pruning, {len(sparse)} network{'' if len(sparse) == 1 else 's'}"
            found.shared[what] = sum(map(self._sparse_s, sparse.values()))
        for cell in students:
            found.cells[cell.id] = self._student_s(cell)
        if students:
            found.shared["batches and the teacher's answers to them"] = sum(self._lessons_s(students))
        return found

    # --- stages ------------------------------------------------------------------------------------------------------

    def _teacher_s(self, cell: Cell) -> float:
        recipe = cell.teacher.recipe
        model = self.device.place(build(cell.teacher.network))
        seconds = self._kept_s(model)
        if recipe is None:
            return seconds
        learner = partial(self._learner, model, recipe, Phase("teacher", recipe.epochs, cross_entropy))
        for size in _sizes(recipe, recipe.epochs):
            step = self._step_s(("teacher",), learner, recipe, size, alone=True)
            seconds += self._steps(recipe) * (step + self._batch_s(recipe, size, alone=True))
        return seconds

    def _sparse_s(self, stage: Sparse) -> float:
        recipe, phase = stage.recipe, Phase("sparse", stage.recipe.epochs, cross_entropy)

        def learner() -> Learner:
            made = self._learner(build(self.plan.teacher.teacher.network), recipe, phase)
            made.regularise = regulariser(made.model, self.example.to(self.device.torch), stage)
            made.model.train()
            return made

        # a criterion's regulariser takes time as well
        like = ("sparse", stage.criterion.name)
        steps = (self._step_s(like, learner, recipe, size) for size in _sizes(recipe, recipe.epochs))
        return self._steps(recipe) * sum(steps)

    def _student_s(self, cell: Cell) -> float:
        spec, recipe = cell.student, cell.student.recipe
        model, seconds = self._stand_in(spec.start)
        # as pruned, and with its BatchNorm estimated anew
        seconds += 2 * self._test_s(model, self.image_size, autocast=False) + self._kept_s(model)
        for epoch, place in enumerate(self._places(spec)):
            size = recipe.image_size(epoch)
            like = (spec.method.name, place, _shape(model))
            step = self._step_s(like, partial(self._pupil, spec, place), recipe, size)
            seconds += self._steps(recipe) * step + self._test_s(model, size, autocast=True)
        return seconds

    def _lessons_s(self, cells: Sequence[Cell]) -> Iterator[float]:
        """Batches and the teacher's pass over them, once for all students that train side by side."""
        groups: dict[Any, list[Student]] = {}
        for cell in cells:
            groups.setdefault((cell.seed, digest(cell.student.recipe.document)), []).append(cell.student)
        for members in groups.values():
            recipe, network = members[0].recipe, self.plan.teacher.teacher.network
            most = side_by_side(network, max(recipe.image_sizes), recipe.batch_size, self.device)
            passes = math.ceil(len(members) / most)
            longest = max(len(self._places(spec)) for spec in members)
            for size in _sizes(recipe, longest):
                yield passes * self._steps(recipe) * (self._batch_s(recipe, size) + self._answers_s(recipe, size))

    def _kept_s(self, model: nn.Module) -> float:
        """Evaluating a trained model, and exporting it."""

        def export_s() -> float:
            started = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix="harness-forecast-") as folder, suppress(HarnessError):
                # an untrained network may fail the gate, at the end of all that takes time
                path = Path(folder) / "model.onnx"
                export(model, path, self.images, self.image_size, self.plan.settings.export.opset, {})
            return time.perf_counter() - started

        exported_s = self._once(("export", _shape(model)), export_s)
        return exported_s + self._test_s(model, self.image_size, autocast=False)

    def _steps(self, recipe: Recipe) -> int:
        """Steps in an epoch."""
        return max(1, self.plan.teacher.teacher.data.train_images // recipe.batch_size)

    # --- networks ----------------------------------------------------------------------------------------------------

    def _stand_in(self, stage: Pruned) -> tuple[nn.Module, float]:
        """A network that is pruned as much, and the seconds that pruning it and its BatchNorm took."""

        def pruned() -> tuple[nn.Module, float]:
            started = time.perf_counter()
            bare = build(self.plan.teacher.teacher.network)
            done = prune(bare, self.example, replace(stage, criterion=STAND_IN, seed=None))
            seconds, model = time.perf_counter() - started, self.device.place(done.model)
            share = stage.calibration.images / len(self.images.labels)
            return model, seconds + share * self._test_s(model, self.image_size, autocast=False)

        return self._once(("pruned", stage.amount, stage.keep_for, stage.round_to), pruned)

    def _places(self, spec: Student) -> list[int]:
        """The number of the phase that each of the student's epochs is in."""

        def places() -> list[int]:
            return [place for place, phase in enumerate(self._prepared(spec).phases) for _ in range(phase.epochs)]

        return self._once(("places", spec.key), places)

    def _prepared(self, spec: Student) -> Prepared:
        model, _ = self._stand_in(spec.start)
        return prepare(spec, deepcopy(model), self.teacher, self.example, self.device)

    def _pupil(self, spec: Student, place: int) -> Learner:
        """A learner in one of its phases."""
        prepared = self._prepared(spec)
        return self._learner(prepared.model, spec.recipe, prepared.phases[place], prepared.modules)

    def _learner(self, model: nn.Module, recipe: Recipe, phase: Phase, modules: nn.ModuleDict | None = None) -> Learner:
        own = self.device.place(deepcopy(model))
        return Learner("forecast", own, recipe, [phase], Path(os.devnull), {}, modules or nn.ModuleDict())

    # --- what is timed -----------------------------------------------------------------------------------------------

    def _step_s(
        self, like: tuple[Any, ...], make: Callable[[], Learner], recipe: Recipe, size: int, alone: bool = False
    ) -> float:
        """One step of one learner, in seconds of the whole machine. `like`: the network and the loss."""

        def step_s() -> float:
            learners = [make() for _ in range(1 if alone else self.copies)]
            self.say(f"a step of {like[0]} ({learners[0].phases[0].name}) at {size} px")
            images, labels = next(self._stream(recipe, size).batches(0))
            outputs = teach(self.teacher, images, learners, self.device)
            desk = desk_for(learners, self.device)
            if desk:
                images, labels, outputs = desk.put(images, labels, outputs)

            def step(learner: Learner) -> Callable[[], None]:
                # a learner takes its rate from its place in the epoch, and stays at its first step here
                return lambda: learner.learn(images, labels, outputs, self.device, steps=10**9)

            if desk:
                # what is recorded is replayed from then on, and only that is to be timed
                for one in learners * (WARM_UP + 1):
                    step(one)()
            return self._timed([step(one) for one in learners], alone)

        return self._once(("step", *like, size, recipe.batch_size), step_s)

    def _answers_s(self, recipe: Recipe, size: int) -> float:
        """The teacher's pass over a batch."""
        images, _ = next(self._stream(recipe, size).batches(0))
        images = images.contiguous(memory_format=self.device.layout)

        def answer() -> None:
            with torch.no_grad(), self.device.autocast():
                self.teacher(images)

        return self._alike(("answers", size, recipe.batch_size), answer)

    def _batch_s(self, recipe: Recipe, size: int, alone: bool = False) -> float:
        """Drawing and augmenting a batch."""
        stream = self._stream(recipe, size)
        return self._alike(("batch", size, recipe.batch_size, alone), lambda: next(stream.batches(0)), alone)

    def _alike(self, like: Any, job: Callable[[], Any], alone: bool = False) -> float:
        return self._once(like, lambda: self._timed([job] * (1 if alone else self.copies), alone))

    def _test_s(self, model: nn.Module, size: int, autocast: bool) -> float:
        """Answering all test images; timed with some of them."""
        some = self.images.first(min(2 * self.copies * EVALUATION_BATCH, len(self.images.labels)))
        seconds = self._alike(
            ("test", _shape(model), size, autocast),
            lambda: answers(model, some, size, self.device, autocast),
            alone=True,
        )
        return seconds * len(self.images.labels) / len(some.labels)

    def _stream(self, recipe: Recipe, size: int) -> Stream:
        """Batches of the recipe at one size; the same few images make them all."""
        few = self.images.first(min(recipe.batch_size, len(self.images.labels))).to(self.device.torch)
        at_size = recipe.model_copy(update={"image_sizes": [size]})
        return Stream(few, at_size, self.plan.teacher.teacher.data.augment, "forecast", 0)

    def _timed(self, jobs: Sequence[Callable[[], Any]], alone: bool) -> float:
        """Seconds of the whole machine for one of these jobs, all alike, while the others are done beside it."""
        taken: list[float] = []
        with step_executor(self.device, alone) as executor:
            # the first round, in which kernels are compiled, does not count
            while len(taken) <= LEAST_TIMES or sum(taken[1:]) * len(jobs) < LEAST_S:
                started = time.perf_counter()
                for done in [executor.submit(job) for job in jobs]:
                    done.result()
                self.device.synchronize()
                taken.append((time.perf_counter() - started) / len(jobs))
        return statistics.median(taken[1:])


def _shape(model: nn.Module) -> str:
    """The same for networks of the same widths."""
    return digest(widths_of(model), 16)


def _sizes(recipe: Recipe, epochs: int) -> list[int]:
    """The size of every epoch."""
    return [recipe.image_size(epoch) for epoch in range(epochs)]
