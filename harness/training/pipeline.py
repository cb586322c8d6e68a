"""Makes the cells that are missing: teacher, sparse training, pruning, distillation, export, each stage once.

What several cells share (the teacher, a sparsely trained network, a pruned one) is kept under its own key. Students of
a seed train side by side. A cell that fails is recorded with its reason and the others continue.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from harness import datasets
from harness.architectures import build, network_of, widths_of
from harness.compression.calibration import calibrate, sample
from harness.compression.distillation import Phase, cross_entropy
from harness.compression.pruning import Batches, prune, regulariser
from harness.datasets import Images, normalise, resize
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.model_files.weights import load_weights, read_metadata, save_weights
from harness.plan import registry
from harness.plan.planning import Cell, Plan
from harness.plan.settings import Calibration, Recipe
from harness.plan.specs import Pruned, Sparse, Stage, Teacher, code_of
from harness.store.chain import hashes
from harness.store.lock import alone
from harness.store.paths import Paths
from harness.store.records import Epoch, Failure, Pruning
from harness.training.batches import Stream
from harness.training.device import Device
from harness.training.finishing import Ledger, Reporter
from harness.training.loop import Learner, train
from harness.training.memory import side_by_side
from harness.training.preparation import prepare

T = TypeVar("T")
# Batches that a pruning criterion may ask for.
CRITERION_BATCH = 64


@dataclass(frozen=True)
class Summary:
    """What a call of `make_cells` did."""

    made: list[str]
    failed: dict[str, str]
    complete: bool


@dataclass
class Maker:
    """One run over a plan: the data, the device, and the stages in their order."""

    plan: Plan
    paths: Paths
    device: Device
    reporter: Reporter
    keep_going: Callable[[], bool]
    # students in the order in which to make them, each group side by side; None: seed after seed
    groups: Sequence[Sequence[Cell]] | None = None
    # at most so many networks side by side; None: as many as fit into memory
    together: int | None = None
    # the ids of cells to make again although they are done
    redo: Collection[str] = ()
    # the part of the device's free memory that is ours
    memory_share: float = 1.0

    @cached_property
    def ledger(self) -> Ledger:
        """Where models go when they are done."""
        return Ledger(self.plan, self.paths, self.device, self.reporter, self.redo)

    def run(self, cells: Iterable[Cell]) -> Summary:
        """Make `cells`, and the teacher first where one of them needs it."""
        wanted = {cell.id: cell for cell in cells}
        self._start_again(wanted.values())
        self.ledger.export_trained(wanted.values())
        students = [cell for cell in wanted.values() if not cell.is_teacher]
        complete = True
        if self.plan.teacher.id in wanted or not all(map(self.ledger.trained, students)):
            complete = self._make_teacher(self.plan.teacher)
            # Asked only now: another teacher leaves no student that stands.
            pending = [cell for cell in students if not self.ledger.trained(cell)]
            for group in self.groups or _by_seed(pending):
                here = {cell.id for cell in group}
                members_here = [cell for cell in pending if cell.id in here]
                for members in _same_batches(members_here, lambda cell: (cell.student.recipe, cell.seed)):
                    complete = complete and self._make_students(members)
        # A teacher that failed is on record and ends the run; only one that was stopped leaves it unfinished.
        teacher_failed = self.plan.teacher.id in self.ledger.failures
        return Summary(self.ledger.made, self.ledger.failures, complete or teacher_failed)

    def _start_again(self, cells: Iterable[Cell]) -> None:
        """Remove what a cell that is to be made again would otherwise be resumed from."""
        for cell in cells:
            if cell.id in self.redo:
                self._checkpoint(cell).unlink(missing_ok=True)
                if not cell.is_teacher:
                    self._stage_file(cell.student.start).unlink(missing_ok=True)

    @cached_property
    def train_images(self) -> Images:
        """The training images on the device."""
        data = self.plan.teacher.teacher.data
        images = datasets.load(data.dataset.name, data.dataset.parameters, self.paths.data, train=True)
        return images.first(data.train_images).to(self.device.torch)

    def _stream(self, recipe: Recipe, stage: Stage, seed: int) -> Stream:
        return Stream(self.train_images, recipe, self.plan.teacher.teacher.data.augment, stage.kind, seed)

    def _calibrate(self, model: nn.Module, calibration: Calibration) -> None:
        """Estimate BatchNorm's statistics anew, at the size that the exported model is for."""
        images = self.train_images

        def prepare(pixels: Tensor) -> Tensor:
            return normalise(resize(pixels, self.ledger.image_size), images.mean, images.std)

        calibrate(model, sample(images.pixels, calibration), calibration.batch_size, prepare)

    # --- teacher ---------------------------------------------------------------------------------------------------

    def _make_teacher(self, cell: Cell) -> bool:
        """Train or take over the teacher; False where that was stopped or failed."""
        if self.ledger.trained(cell):
            return True
        spec = cell.teacher
        if spec.recipe is None:
            self.ledger.finish(cell, self._given_teacher(spec), [], 0.0)
            return cell.id not in self.ledger.failures
        torch.manual_seed(spec.seed)
        model = build(spec.network)
        phase = Phase("teacher", spec.recipe.epochs, cross_entropy)
        origin = {"key": spec.key, **code_of(spec)}
        learner = self._learner(cell.id, model, spec.recipe, [phase], self._checkpoint(cell), origin)
        self.reporter.stage(f"teacher: {spec.recipe.epochs} epochs of {len(self.train_images.labels)} images")
        complete = train(
            [learner],
            self._stream(spec.recipe, spec, spec.seed),
            self.device,
            self.reporter,
            lambda ended: self._end(cell, ended, spec.calibration),
            keep_going=self.keep_going,
            alone=True,
        )
        return complete and cell.id not in self.ledger.failures

    def _given_teacher(self, spec: Teacher) -> nn.Module:
        path = Path(str(self.plan.settings.teacher.checkpoint))
        model, metadata = load_weights(path)
        given = network_of(model)
        full = widths_of(build(given))
        if given != spec.network or widths_of(model) != full:
            raise HarnessError(
                f"{path}: another network ({_named(given)}{', pruned' if widths_of(model) != full else ''}) "
                f"than [model] asks for ({_named(spec.network)}); change one of the two"
            )
        trained_on = metadata.get("dataset")
        if trained_on not in (None, self.plan.dataset):
            given_title, own_title = (registry.find("dataset", name).title for name in (trained_on, self.plan.dataset))
            raise HarnessError(
                f"{path}: was trained on {given_title}, and the data set here is {own_title}; "
                f"name the folder that holds {given_title} (DATA_DIR), or set data.dataset to {trained_on}"
            )
        trained_at = metadata.get("image_size")
        if trained_at not in (None, spec.data.image_size):
            raise HarnessError(
                f"{path}: is for images of {trained_at} px, and data.image_size is {spec.data.image_size}; "
                f"set data.image_size to {trained_at}, or name another profile"
            )
        return model

    @cached_property
    def teacher(self) -> nn.Module:
        """The trained teacher, on the device, for reading only."""
        model, _ = load_weights(self.ledger.weights(self.plan.teacher))
        self.device.place(model)
        model.eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        return model

    @cached_property
    def teacher_sha256(self) -> str:
        """The hash of the teacher's weights; HarnessError where they are not those on its record.

        Students of other weights would be on record as this teacher's, and never stand.
        """
        path = self.ledger.weights(self.plan.teacher)
        found, record = file_sha256(path), self.ledger.trained(self.plan.teacher)
        if found not in hashes(record):
            raise HarnessError(
                f"{path}: is not the file that {self.plan.teacher.id}'s record is of; "
                f"put that one back, or make the teacher again (--redo {self.plan.teacher.id})"
            )
        return found

    # --- sparse training and pruning --------------------------------------------------------------------------------

    def _stage_file(self, stage: Sparse | Pruned) -> Path:
        name = f"{stage.kind}-{stage.key.partition('-')[2]}.safetensors"
        return self.paths.artifacts / self.plan.profile / "stages" / name

    def _origin(self, stage: Sparse | Pruned) -> dict[str, str]:
        """What a stage's file was made from: it is taken up again only if all of this is still the same."""
        parent = stage.parent
        before = self.teacher_sha256 if isinstance(parent, Teacher) else file_sha256(self._stage_file(parent))
        return {"key": stage.key, "parent_sha256": before, **code_of(stage)}

    def _stands(self, stage: Sparse | Pruned) -> bool:
        """Whether a stage's file is here, and was made from what is here now."""
        path = self._stage_file(stage)
        if not path.is_file():
            return False
        if isinstance(stage.parent, Sparse) and not self._stands(stage.parent):
            return False
        try:
            return bool(read_metadata(path).get("origin") == self._origin(stage))
        except HarnessError:
            return False

    def _make_sparse(self, cells: Sequence[Cell]) -> bool:
        """Sparse training of all starting points that these cells need, side by side; False where it was stopped."""
        needed = {stage.key: stage for cell in cells for stage in cell.spec.lineage if isinstance(stage, Sparse)}
        missing = [stage for stage in needed.values() if not self._stands(stage)]
        return all(
            self._train_sparsely(group)
            for alike in _same_batches(missing, lambda stage: (stage.recipe, stage.seed))
            for group in self._groups(alike, alike[0].recipe)
        )

    def _train_sparsely(self, missing: Sequence[Sparse]) -> bool:
        """One group of starting points; False where it was stopped."""
        learners = []
        by_name = {self._stage_file(stage).stem: stage for stage in missing}
        for name, stage in by_name.items():
            model, _ = load_weights(self.ledger.weights(self.plan.teacher))
            phase = Phase("sparse", stage.recipe.epochs, cross_entropy)
            checkpoint = self._stage_file(stage).with_suffix(".checkpoint.pt")
            learner = self._learner(name, model, stage.recipe, [phase], checkpoint, self._origin(stage))
            try:
                learner.regularise = regulariser(learner.model, self.ledger.example.to(self.device.torch), stage)
            except Exception as error:  # whatever a criterion does, the others continue
                learner.failure = Failure(kind="error", message=f"{type(error).__name__}: {error}")
            learner.model.train()
            learners.append(learner)
        first = missing[0]
        self.reporter.stage(f"sparse training before pruning, seed {first.seed}: {len(learners)} networks side by side")

        def ended(learner: Learner) -> None:
            stage = by_name[learner.name]
            if learner.failure:
                self.ledger.failures[learner.name] = learner.failure.message
            else:
                metadata = {"log": [epoch.model_dump() for epoch in learner.log], "origin": dict(learner.origin)}
                save_weights(self._stage_file(stage), learner.model, metadata)
            learner.checkpoint.unlink(missing_ok=True)

        stream = self._stream(first.recipe, first, first.seed)
        return train(learners, stream, self.device, self.reporter, ended, keep_going=self.keep_going)

    def _pruned(self, stage: Pruned) -> tuple[nn.Module, Pruning, list[Epoch]]:
        """The pruned network, made where it is not here yet, with what is known of its making."""
        path = self._stage_file(stage)
        if not self._stands(stage):
            parent = stage.parent
            teacher = self.ledger.weights(self.plan.teacher)
            source = self._stage_file(parent) if isinstance(parent, Sparse) else teacher
            if not source.is_file():
                reason = self.ledger.failures.get(source.stem, "no network was left")
                raise HarnessError(f"sparse training failed: {reason}")
            model, metadata = load_weights(source)
            done = prune(model, self.ledger.example, stage, lambda: self._labelled(stage.seed or 0))
            self.device.place(done.model)
            before = self.ledger.evaluate(done.model)
            self._calibrate(done.model, stage.calibration)
            facts = Pruning(
                amount=stage.amount,
                channels_before=done.channels[0],
                channels_after=done.channels[1],
                ranked_before=done.ranked[0],
                ranked_after=done.ranked[1],
                emptied_layers=done.emptied,
                params_before=done.params[0],
                params_after=done.params[1],
                macs_before=done.macs[0],
                macs_after=done.macs[1],
                kept_layers=done.kept_layers,
                accuracy_before_calibration_pct=before,
                accuracy_after_pct=self.ledger.evaluate(done.model),
            )
            about = {"pruning": facts.model_dump(), "log": metadata.get("log", []), "origin": self._origin(stage)}
            save_weights(path, done.model, about)
        model, metadata = load_weights(path)
        log = [Epoch.model_validate(epoch) for epoch in metadata["log"]]
        return model, Pruning.model_validate(metadata["pruning"]), log

    def _labelled(self, seed: int) -> Batches:
        """Labelled training batches without augmentation, on the CPU, for a criterion that asks for them."""
        images = self.train_images.to(torch.device("cpu"))
        order = torch.randperm(len(images.labels), generator=torch.Generator().manual_seed(seed))
        for chosen in order.split(CRITERION_BATCH):
            pixels = resize(images.pixels.index_select(0, chosen), self.ledger.image_size)
            yield normalise(pixels, images.mean, images.std), images.labels.index_select(0, chosen)

    # --- students ---------------------------------------------------------------------------------------------------

    def _make_students(self, cells: Sequence[Cell]) -> bool:
        """Students of one seed and recipe, side by side as far as memory goes; False where that was stopped."""
        # looked at before any of them is tried: weights that are not the teacher's are no fault of a cell
        assert self.teacher_sha256
        groups = self._groups(cells, cells[0].student.recipe)
        return self._make_sparse(cells) and all(self._distil(group) for group in groups)

    def _distil(self, cells: Sequence[Cell]) -> bool:
        """Prune and train one group of students; False where that was stopped."""
        first = cells[0].student
        self.reporter.stage(f"pruning, seed {first.seed}: {len(cells)} students")
        learners: dict[str, Learner] = {}
        origins: dict[str, tuple[Pruning, list[Epoch]]] = {}
        by_id = {cell.id: cell for cell in cells}
        for cell in cells:
            try:
                model, pruning, log = self._pruned(cell.student.start)
                learners[cell.id] = self._student(cell, model)
            except Exception as error:  # whatever a method does, the other cells continue
                self.ledger.fail(cell, self.ledger.broke(cell, error))
                continue
            origins[cell.id] = (pruning, log)
        if not learners:
            return True
        self.reporter.stage(f"distillation, seed {first.seed}: {len(learners)} students side by side")
        stream = self._stream(first.recipe, first, first.seed)

        def ended(learner: Learner) -> None:
            cell = by_id[learner.name]
            pruning, log = origins[learner.name]
            differs = stream.image_size(learner.epochs - 1) != self.ledger.image_size
            self._end(cell, learner, cell.student.start.calibration if differs else None, log, pruning)

        return train(
            list(learners.values()),
            stream,
            self.device,
            self.reporter,
            ended,
            teacher=self.teacher,
            keep_going=self.keep_going,
            test=self.ledger.test_while_training,
        )

    def _student(self, cell: Cell, model: nn.Module) -> Learner:
        spec = cell.student
        prepared = prepare(spec, model, self.teacher, self.ledger.example, self.device)
        origin = {
            "key": spec.key,
            "teacher_sha256": self.teacher_sha256,
            "pruned_sha256": file_sha256(self._stage_file(spec.start)),
            **code_of(spec),
        }
        return self._learner(
            cell.id, prepared.model, spec.recipe, prepared.phases, self._checkpoint(cell), origin, prepared.modules
        )

    def _end(
        self,
        cell: Cell,
        learner: Learner,
        calibration: Calibration | None,
        log: Sequence[Epoch] = (),
        pruning: Pruning | None = None,
    ) -> None:
        """Calibrate a model that was last trained at another size than it is exported for, and record it."""
        if learner.failure is None and calibration is not None:
            self._calibrate(learner.model, calibration)
        self.ledger.end(cell, learner, list(log), pruning)

    # --- common to all ----------------------------------------------------------------------------------------------

    def _groups(self, members: Sequence[T], recipe: Recipe) -> Iterator[Sequence[T]]:
        """The members in groups that train side by side; memory is measured for each group when its turn comes."""
        left = list(members)
        while left:
            most = self.together or self._fitting(recipe)
            yield left[:most]
            left = left[most:]

    def _fitting(self, recipe: Recipe) -> int:
        """How many that train by this recipe fit into memory; none of them is wider than the teacher."""
        network = self.plan.teacher.teacher.network
        return side_by_side(network, max(recipe.image_sizes), recipe.batch_size, self.device, self.memory_share)

    def _checkpoint(self, cell: Cell) -> Path:
        return self.paths.checkpoint(self.plan.profile, cell)

    def _learner(
        self,
        name: str,
        model: nn.Module,
        recipe: Recipe,
        phases: list[Phase],
        checkpoint: Path,
        origin: dict[str, Any],
        modules: nn.ModuleDict | None = None,
    ) -> Learner:
        self.device.place(model)
        own = nn.ModuleDict() if modules is None else modules
        learner = Learner(name, model, recipe, phases, checkpoint, origin, own)
        learner.resume()
        return learner


def _named(network: Any) -> str:
    return f"{network.architecture.name}, {network.classes} classes, width {network.width:g}, stem {network.stem}"


def _by_seed(cells: Sequence[Cell]) -> list[list[Cell]]:
    return [[cell for cell in cells if cell.seed == seed] for seed in sorted({cell.seed for cell in cells})]


def _same_batches(members: Sequence[T], about: Callable[[T], tuple[Recipe, int]]) -> list[list[T]]:
    """The members in groups that train on the same batches; `about` gives the recipe and the seed of one."""
    groups: dict[Any, list[T]] = {}
    for member in members:
        recipe, seed = about(member)
        # what a stream's batches depend on, beside the stage
        alike = (seed, recipe.batch_size, tuple(recipe.image_sizes), recipe.epochs)
        groups.setdefault(alike, []).append(member)
    return list(groups.values())


def make_cells(
    plan: Plan,
    paths: Paths,
    device: Device,
    reporter: Reporter,
    keep_going: Callable[[], bool] = lambda: True,
    cells: Sequence[Cell] | None = None,
    by_value: bool = False,
    together: int | None = None,
    redo: Collection[str] = (),
) -> Summary:
    """Make all cells of the plan (or those given) that are not done. Stops cleanly when `keep_going` turns False.

    All students of a seed train side by side; `by_value` in smaller groups, the most valuable first, as befits a run
    that may be stopped before its end. At most `together` at once; None: as many as fit into memory. Cells in `redo`
    are made again although they are done.
    """
    groups = plan.groups if by_value else None
    with alone(paths, plan.profile):
        maker = Maker(plan, paths, device, reporter, keep_going, groups, together, redo)
        return maker.run(plan.cells if cells is None else cells)
