"""Makes the cells that are missing: teacher, sparse training, pruning, distillation, export, each stage once.

What several cells share (the teacher, a sparsely trained network, a pruned one) is kept under its own key. Students of
a seed train side by side. A cell that fails is recorded with its reason and the others go on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from harness.architectures.resnet import ResNet50, full_widths, load_weights, save_weights, widths_of
from harness.compression.distillation import Phase, cross_entropy, method, phases
from harness.compression.pruning import kept_layers, prune, recalibrate, regulariser
from harness.errors import HarnessError
from harness.files import digest
from harness.plan.planning import Cell, Plan, ancestry
from harness.store.lock import alone
from harness.store.paths import Paths
from harness.store.records import Epoch, Pruning
from harness.training import data
from harness.training.augment import normalise, resize
from harness.training.device import Device
from harness.training.finishing import Ledger, Reporter
from harness.training.loop import Learner, train
from harness.training.memory import side_by_side

T = TypeVar("T")

RECALIBRATION_BATCHES = 8
RECALIBRATION_BATCH = 250


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

    @cached_property
    def ledger(self) -> Ledger:
        """Where models go when they are done."""
        return Ledger(self.plan, self.paths, self.device, self.reporter)

    def run(self, cells: Iterable[Cell]) -> Summary:
        """Make `cells`, and the teacher first where one of them needs it."""
        wanted = {cell.id: cell for cell in cells}
        self.ledger.export_trained(wanted.values())
        pending = [cell for cell in wanted.values() if not cell.is_teacher and not self.ledger.trained(cell)]
        complete = True
        if pending or self.plan.teacher.id in wanted:
            complete = self._make_teacher(self.plan.teacher)
            for group in self.groups or _by_seed(pending):
                here = {cell.id for cell in group}
                members = [cell for cell in pending if cell.id in here]
                complete = complete and (not members or self._make_students(members))
        # A teacher that failed is on record and ends the run; only one that was stopped leaves it unfinished.
        teacher_failed = self.plan.teacher.id in self.ledger.failures
        return Summary(self.ledger.made, self.ledger.failures, complete or teacher_failed)

    @cached_property
    def train_images(self) -> data.Images:
        """The training images on the device."""
        images = data.load(self.plan.data, self.paths.data, train=True)
        return images.first(self.plan.settings.data.train_images).to(self.device.torch)

    def _stream(self, recipe: dict[str, Any], seed: int) -> data.Stream:
        augment = tuple(self.plan.settings.data.augment)
        return data.Stream(self.train_images, recipe["batch_size"], self.ledger.image_size, augment, seed)

    def _stage_file(self, settings: dict[str, Any]) -> Path:
        return (
            self.paths.artifacts
            / self.plan.profile
            / "stages"
            / f"{settings['kind']}-{digest(settings, 16)}.safetensors"
        )

    # --- teacher ---------------------------------------------------------------------------------------------------

    def _make_teacher(self, cell: Cell) -> bool:
        """Train or take over the teacher; False where that was stopped or failed."""
        if self.ledger.trained(cell):
            return True
        settings = self.plan.settings
        if settings.teacher.checkpoint:
            self.ledger.finish(cell, self._given_teacher(Path(settings.teacher.checkpoint)), [], 0.0)
            return cell.id not in self.ledger.failures
        recipe = cell.settings["recipe"]
        torch.manual_seed(cell.seed)
        model = ResNet50(full_widths(settings.model.width), settings.model.stem)
        phase = Phase("teacher", recipe["epochs"], cross_entropy)
        learner = self._learner(cell.id, model, recipe, [phase], self.ledger.folder(cell) / "checkpoint.pt")
        self.reporter.stage(f"teacher: {recipe['epochs']} epochs of {len(self.train_images.labels)} images")
        complete = train(
            [learner],
            self._stream(recipe, cell.seed),
            self.device,
            self.reporter,
            lambda ended: self.ledger.end(cell, ended, []),
            keep_going=self.keep_going,
            alone=True,
        )
        return complete and cell.id not in self.ledger.failures

    def _given_teacher(self, path: Path) -> ResNet50:
        model, _ = load_weights(path)
        asked = self.plan.settings.model
        if widths_of(model) != full_widths(asked.width) or model.stem != asked.stem:
            raise HarnessError(
                f"{path}: another architecture ({model.conv1.out_channels} channels first, stem {model.stem}) "
                f"than [model] asks for (width {asked.width:g}, stem {asked.stem}); change one of the two"
            )
        return model

    @cached_property
    def teacher(self) -> ResNet50:
        """The trained teacher, on the device, for reading only."""
        model, _ = load_weights(self.ledger.weights(self.plan.teacher))
        self.device.place(model)
        model.eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        return model

    # --- sparse training and pruning --------------------------------------------------------------------------------

    def _make_sparse(self, cells: Sequence[Cell], seed: int) -> bool:
        """Sparse training of all starting points that these cells need, side by side; False where it was stopped."""
        needed = {
            self._stage_file(settings): settings
            for cell in cells
            for settings in ancestry(cell.settings)
            if settings["kind"] == "sparse"
        }
        missing = {path: settings for path, settings in needed.items() if not path.is_file()}
        return all(self._train_sparsely(dict(group), seed) for group in self._groups(list(missing.items())))

    def _train_sparsely(self, missing: dict[Path, dict[str, Any]], seed: int) -> bool:
        """One group of starting points; False where it was stopped."""
        learners = []
        for path, settings in missing.items():
            model, _ = load_weights(self.ledger.weights(self.plan.teacher))
            recipe = settings["recipe"]
            phase = Phase("sparse", recipe["epochs"], cross_entropy)
            learner = self._learner(path.stem, model, recipe, [phase], path.with_suffix(".checkpoint.pt"))
            learner.regularise = regulariser(
                settings["method"],
                learner.model,
                self.ledger.example.to(self.device.torch),
                kept_layers(settings["keep_for"]),
                recipe["regularisation"],
            )
            learner.model.train()
            learners.append(learner)
        self.reporter.stage(f"sparse training before pruning, seed {seed}: {len(learners)} networks side by side")

        def ended(learner: Learner) -> None:
            path = next(path for path in missing if path.stem == learner.name)
            if learner.failure:
                self.ledger.failures[learner.name] = learner.failure.message
            else:
                metadata = {"log": [e.model_dump() for e in learner.log], "seconds": learner.seconds}
                save_weights(path, learner.model, metadata)
            learner.checkpoint.unlink(missing_ok=True)

        stream = self._stream(learners[0].recipe, seed)
        return train(learners, stream, self.device, self.reporter, ended, keep_going=self.keep_going)

    def _pruned(self, settings: dict[str, Any]) -> tuple[ResNet50, Pruning, list[Epoch]]:
        """The pruned network of these settings, made where it is not yet there, with what is known of its making."""
        path = self._stage_file(settings)
        if not path.is_file():
            start = settings["start"]
            teacher = self.ledger.weights(self.plan.teacher)
            source = self._stage_file(start) if start["kind"] == "sparse" else teacher
            if not source.is_file():
                raise HarnessError(
                    f"sparse training failed: {self.ledger.failures.get(source.stem, 'no network was left')}"
                )
            model, metadata = load_weights(source)
            done = prune(
                settings["method"],
                model,
                self.ledger.example,
                settings["keep_for"],
                settings["amount"],
                settings["round_to"],
            )
            self.device.place(done.model)
            sample = self.train_images.pixels[: RECALIBRATION_BATCHES * RECALIBRATION_BATCH]
            recalibrate(
                done.model, (normalise(resize(p, self.ledger.image_size)) for p in sample.split(RECALIBRATION_BATCH))
            )
            facts = Pruning(
                amount=settings["amount"],
                channels_before=done.channels[0],
                channels_after=done.channels[1],
                params_before=done.params[0],
                params_after=done.params[1],
                macs_before=done.macs[0],
                macs_after=done.macs[1],
                kept_layers=done.kept_layers,
                accuracy_after_pct=self.ledger.evaluate(done.model),
            )
            save_weights(path, done.model, {"pruning": facts.model_dump(), "log": metadata.get("log", [])})
        model, metadata = load_weights(path)
        log = [Epoch.model_validate(epoch) for epoch in metadata["log"]]
        return model, Pruning.model_validate(metadata["pruning"]), log

    # --- students ---------------------------------------------------------------------------------------------------

    def _make_students(self, cells: Sequence[Cell]) -> bool:
        """All students of one seed, side by side as far as memory goes; False where that was stopped."""
        return self._make_sparse(cells, cells[0].seed) and all(self._distil(group) for group in self._groups(cells))

    def _distil(self, cells: Sequence[Cell]) -> bool:
        """Prune and train one group of students; False where that was stopped."""
        seed = cells[0].seed
        self.reporter.stage(f"pruning, seed {seed}: {len(cells)} students")
        learners: dict[str, Learner] = {}
        origins: dict[str, tuple[Pruning, list[Epoch]]] = {}
        by_id = {cell.id: cell for cell in cells}
        for cell in cells:
            kd, recipe = cell.settings["kd"], cell.settings["recipe"]
            try:
                model, pruning, log = self._pruned(cell.settings["start"])
            except Exception as error:  # whatever a pruning method does, the other cells go on
                self.ledger.fail(cell, self.ledger.broke(cell, error))
                continue
            if method(kd["method"]).fresh_weights:
                torch.manual_seed(seed)
                model = ResNet50(widths_of(model), model.stem)
            origins[cell.id] = (pruning, log)
            stages = phases(kd, recipe["epochs"])
            learners[cell.id] = self._learner(
                cell.id, model, recipe, stages, self.ledger.folder(cell) / "checkpoint.pt"
            )
        if not learners:
            return True
        self.reporter.stage(f"distillation, seed {seed}: {len(learners)} students side by side")
        return train(
            list(learners.values()),
            self._stream(cells[0].settings["recipe"], seed),
            self.device,
            self.reporter,
            lambda learner: self.ledger.end(by_id[learner.name], learner, *origins[learner.name][::-1]),
            teacher=self.teacher,
            keep_going=self.keep_going,
        )

    # --- common to all ----------------------------------------------------------------------------------------------

    def _groups(self, members: Sequence[T]) -> Iterator[Sequence[T]]:
        """The members in groups that train side by side; a group is measured for when its turn comes."""
        left = list(members)
        while left:
            most = self.together or self._fitting()
            yield left[:most]
            left = left[most:]

    def _fitting(self) -> int:
        """How many fit into memory; none of them is wider than the teacher."""
        settings = self.plan.settings
        batch = max(settings.student.batch_size, settings.pruning.sparse.batch_size)
        widths = full_widths(settings.model.width)
        return side_by_side(widths, settings.model.stem, self.ledger.image_size, batch, self.device)

    def _learner(
        self, name: str, model: ResNet50, recipe: dict[str, Any], stages: list[Phase], checkpoint: Path
    ) -> Learner:
        self.device.place(model)
        learner = Learner(name, model, recipe, stages, checkpoint)
        learner.resume()
        return learner


def _by_seed(cells: Sequence[Cell]) -> list[list[Cell]]:
    return [[cell for cell in cells if cell.seed == seed] for seed in sorted({cell.seed for cell in cells})]


def make_cells(
    plan: Plan,
    paths: Paths,
    device: Device,
    reporter: Reporter,
    keep_going: Callable[[], bool] = lambda: True,
    cells: Sequence[Cell] | None = None,
    by_value: bool = False,
    together: int | None = None,
) -> Summary:
    """Make all cells of the plan (or those given) that are not done. Stops cleanly when `keep_going` turns False.

    All students of a seed train side by side; `by_value` in smaller groups, the most valuable first, as befits a run
    that may be stopped before it is through. At most `together` at once; None: as many as fit into memory.
    """
    groups = plan.groups if by_value else None
    with alone(paths, plan.profile):
        maker = Maker(plan, paths, device, reporter, keep_going, groups, together)
        return maker.run(plan.cells if cells is None else cells)
