"""Makes the cells that are missing: teacher, sparse training, pruning, distillation, export, each stage once.

What several cells share (the teacher, a sparsely trained network, a pruned one) is kept under its own key. Students of
a seed train side by side. A cell that fails is recorded with its reason and the others go on.
"""

import fcntl
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.matrix import Cell, Plan, ancestry
from harness.paths import Paths
from harness.records import (
    Epoch,
    ExportRecord,
    Failure,
    Pruning,
    TrainRecord,
    digest,
    failed,
    file_sha256,
    find,
    now,
    save,
)
from harness.revision import revision
from harness.status import cell_state
from harness.training import data
from harness.training.augment import normalise, resize
from harness.training.device import Device
from harness.training.distillation import Phase, cross_entropy, method, phases
from harness.training.export import IR_VERSION, OPSET, PARITY_IMAGES, export
from harness.training.loop import Learner, Watcher, accuracy_pct, train
from harness.training.model import ResNet50, full_widths, load_weights, parameter_count, save_weights, widths_of
from harness.training.pruning import kept_layers, prune, recalibrate, regulariser

RECALIBRATION_BATCHES = 8
RECALIBRATION_BATCH = 250


class Reporter(Watcher, Protocol):
    """A watcher that is also told what is being worked on."""

    def stage(self, text: str) -> None:
        """A new stage begins."""

    def cell(self, cell: Cell, record: TrainRecord) -> None:
        """A cell is done or has failed."""


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
    made: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def run(self, cells: Iterable[Cell]) -> Summary:
        """Make `cells`, and the teacher first where one of them needs it."""
        wanted = {cell.id: cell for cell in cells}
        students = [cell for cell in wanted.values() if not cell.is_teacher]
        self._export_trained([cell for cell in wanted.values() if self._state(cell) == "trained"])
        pending = [cell for cell in students if self._state(cell) != "done"]
        if pending or self.plan.teacher.id in wanted:
            if not self._make_teacher(self.plan.teacher):
                # a teacher that failed is on record; one that was stopped goes on next time
                return self._summary(complete=bool(self.failures))
            for seed in sorted({cell.seed for cell in pending}):
                if not self._make_students([cell for cell in pending if cell.seed == seed]):
                    return self._summary(complete=False)
        return self._summary(complete=True)

    def _summary(self, complete: bool) -> Summary:
        return Summary(self.made, self.failures, complete)

    def _state(self, cell: Cell) -> str:
        return cell_state(self.paths, self.plan, cell).training

    @cached_property
    def test(self) -> data.Images:
        """The test images, written out for the bench as well."""
        images = data.load(self.plan.data, self.paths.data, train=False)
        path = self.paths.testset(self.plan.profile, self.plan.data)
        if not path.is_file():
            data.save_testset(path, images)
        return images

    @cached_property
    def train_images(self) -> data.Images:
        """The training images on the device."""
        images = data.load(self.plan.data, self.paths.data, train=True)
        return images.first(self.plan.settings.data.train_images).to(self.device.torch)

    @property
    def image_size(self) -> int:
        return self.plan.settings.data.image_size

    @cached_property
    def example(self) -> Tensor:
        """One image's worth of zeros, for tracing."""
        return torch.zeros(1, 3, self.image_size, self.image_size)

    def _stream(self, recipe: dict[str, Any], seed: int) -> data.Stream:
        augment = tuple(self.plan.settings.data.augment)
        return data.Stream(self.train_images, recipe["batch_size"], self.image_size, augment, seed)

    def _folder(self, cell: Cell) -> Path:
        return cell.artifacts(self.paths.artifacts, self.plan.profile)

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
        if self._state(cell) == "done":
            return True
        settings = self.plan.settings
        if settings.teacher.checkpoint:
            self._finish(cell, self._given_teacher(Path(settings.teacher.checkpoint)), [], 0.0)
            return cell.id not in self.failures
        recipe = cell.settings["recipe"]
        torch.manual_seed(cell.seed)
        model = ResNet50(full_widths(settings.model.width), settings.model.stem)
        phase = Phase("teacher", recipe["epochs"], cross_entropy)
        learner = self._learner(cell.id, model, recipe, [phase], self._folder(cell) / "checkpoint.pt")
        self.reporter.stage(f"teacher: {recipe['epochs']} epochs of {len(self.train_images.labels)} images")
        complete = train(
            [learner],
            self._stream(recipe, cell.seed),
            self.device,
            self.reporter,
            lambda ended: self._end(cell, ended, []),
            keep_going=self.keep_going,
        )
        return complete and cell.id not in self.failures

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
        model, _ = load_weights(self._folder(self.plan.teacher) / "weights.safetensors")
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
        if not missing:
            return True
        learners = []
        for path, settings in missing.items():
            model, _ = load_weights(self._folder(self.plan.teacher) / "weights.safetensors")
            recipe = settings["recipe"]
            phase = Phase("sparse", recipe["epochs"], cross_entropy)
            learner = self._learner(path.stem, model, recipe, [phase], path.with_suffix(".checkpoint.pt"))
            learner.regularise = regulariser(
                settings["method"],
                learner.model,
                self.example.to(self.device.torch),
                kept_layers(settings["keep_for"]),
                recipe["regularisation"],
            )
            learner.model.train()
            learners.append(learner)
        self.reporter.stage(f"sparse training before pruning, seed {seed}: {len(learners)} networks side by side")

        def ended(learner: Learner) -> None:
            path = next(path for path in missing if path.stem == learner.name)
            if learner.failure:
                self.failures[learner.name] = learner.failure.message
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
            teacher = self._folder(self.plan.teacher) / "weights.safetensors"
            source = self._stage_file(start) if start["kind"] == "sparse" else teacher
            if not source.is_file():
                raise HarnessError(f"sparse training failed: {self.failures.get(source.stem, 'no network was left')}")
            model, metadata = load_weights(source)
            done = prune(
                settings["method"], model, self.example, settings["keep_for"], settings["amount"], settings["round_to"]
            )
            self.device.place(done.model)
            sample = self.train_images.pixels[: RECALIBRATION_BATCHES * RECALIBRATION_BATCH]
            recalibrate(done.model, (normalise(resize(p, self.image_size)) for p in sample.split(RECALIBRATION_BATCH)))
            facts = Pruning(
                amount=settings["amount"],
                channels_before=done.channels[0],
                channels_after=done.channels[1],
                params_before=done.params[0],
                params_after=done.params[1],
                macs_before=done.macs[0],
                macs_after=done.macs[1],
                kept_layers=done.kept_layers,
                accuracy_after_pct=accuracy_pct(done.model, self.test, self.image_size, self.device),
            )
            save_weights(path, done.model, {"pruning": facts.model_dump(), "log": metadata.get("log", [])})
        model, metadata = load_weights(path)
        log = [Epoch.model_validate(epoch) for epoch in metadata["log"]]
        return model, Pruning.model_validate(metadata["pruning"]), log

    # --- students ---------------------------------------------------------------------------------------------------

    def _make_students(self, cells: Sequence[Cell]) -> bool:
        """All students of one seed side by side; False where that was stopped."""
        seed = cells[0].seed
        if not self._make_sparse(cells, seed):
            return False
        self.reporter.stage(f"pruning, seed {seed}: {len(cells)} students")
        learners: dict[str, Learner] = {}
        origins: dict[str, tuple[Pruning, list[Epoch]]] = {}
        by_id = {cell.id: cell for cell in cells}
        for cell in cells:
            kd, recipe = cell.settings["kd"], cell.settings["recipe"]
            try:
                model, pruning, log = self._pruned(cell.settings["start"])
            except HarnessError as error:
                self._fail(cell, Failure(kind="error", message=str(error)))
                continue
            if method(kd["method"]).fresh_weights:
                torch.manual_seed(seed)
                model = ResNet50(widths_of(model), model.stem)
            origins[cell.id] = (pruning, log)
            stages = phases(kd, recipe["epochs"])
            learners[cell.id] = self._learner(cell.id, model, recipe, stages, self._folder(cell) / "checkpoint.pt")
        if not learners:
            return True
        self.reporter.stage(f"distillation, seed {seed}: {len(learners)} students side by side")
        return train(
            list(learners.values()),
            self._stream(cells[0].settings["recipe"], seed),
            self.device,
            self.reporter,
            lambda learner: self._end(by_id[learner.name], learner, *origins[learner.name][::-1]),
            teacher=self.teacher,
            keep_going=self.keep_going,
        )

    # --- common to all ----------------------------------------------------------------------------------------------

    def _learner(
        self, name: str, model: ResNet50, recipe: dict[str, Any], stages: list[Phase], checkpoint: Path
    ) -> Learner:
        self.device.place(model)
        learner = Learner(name, model, recipe, stages, checkpoint)
        learner.resume()
        return learner

    def _end(self, cell: Cell, learner: Learner, log: list[Epoch], pruning: Pruning | None = None) -> None:
        if learner.failure:
            self._fail(cell, learner.failure)
        else:
            self._finish(cell, learner.model, [*log, *learner.log], learner.seconds, pruning)
        learner.checkpoint.unlink(missing_ok=True)

    def _common(self, cell: Cell, seconds: float) -> dict[str, Any]:
        return {
            "cell": cell.id,
            "title": cell.title,
            "profile": self.plan.profile,
            "key": cell.key,
            "seconds": seconds,
            "environment": {**self.device.facts(), "harness_revision": revision()},
        }

    def _fail(self, cell: Cell, failure: Failure) -> None:
        self.failures[cell.id] = failure.message
        record = failed(TrainRecord, failure, settings=cell.settings, **self._common(cell, 0.0))
        save(self.paths.results, record)
        self.reporter.cell(cell, record)

    def _finish(
        self, cell: Cell, model: ResNet50, log: list[Epoch], seconds: float, pruning: Pruning | None = None
    ) -> None:
        """Evaluate, store and export a trained model."""
        started = time.monotonic()
        accuracy = accuracy_pct(model, self.test, self.image_size, self.device)
        path = self._folder(cell) / "weights.safetensors"
        save_weights(path, model, {"cell": cell.id, "key": cell.key, "image_size": self.image_size})
        macs = pruning.macs_after if pruning else self._macs(model)
        record = TrainRecord(
            status="done",
            finished_at=now(),
            settings=cell.settings,
            weights_sha256=file_sha256(path),
            accuracy_pct=accuracy,
            params=parameter_count(model),
            macs=macs,
            widths=widths_of(model),
            pruning=pruning,
            epochs=log,
            **self._common(cell, seconds + time.monotonic() - started),
        )
        save(self.paths.results, record)
        self._export(cell, model, record)
        self.reporter.cell(cell, record)

    def _macs(self, model: ResNet50) -> int:
        import torch_pruning as tp

        return int(tp.utils.count_ops_and_params(model, self.example.to(self.device.torch))[0])

    def _export_trained(self, cells: Iterable[Cell]) -> None:
        for cell in cells:
            record = find(self.paths.results, self.plan.profile, cell.id, cell.key, TrainRecord)
            if record:
                model, _ = load_weights(self._folder(cell) / "weights.safetensors")
                self._export(cell, model, record)

    def _export(self, cell: Cell, model: ResNet50, trained: TrainRecord) -> None:
        started = time.monotonic()
        provenance = {
            "cell": cell.id,
            "title": cell.title,
            "key": cell.key,
            "weights_sha256": trained.weights_sha256,
            "data": self.plan.data,
            "settings": json.dumps(cell.settings, sort_keys=True),
            "harness_revision": revision(),
        }
        try:
            done = export(model, self._folder(cell) / "model.onnx", self.test, self.image_size, provenance)
        except HarnessError as error:
            self.failures[cell.id] = str(error)
            common = self._common(cell, time.monotonic() - started)
            save(self.paths.results, failed(ExportRecord, Failure(kind="parity", message=str(error)), **common))
            return
        record = ExportRecord(
            status="done",
            finished_at=now(),
            weights_sha256=trained.weights_sha256,
            opset=OPSET,
            ir_version=IR_VERSION,
            parity_images=PARITY_IMAGES,
            **vars(done),
            **self._common(cell, time.monotonic() - started),
        )
        save(self.paths.results, record)
        self.made.append(cell.id)


@contextmanager
def alone(paths: Paths, profile: str) -> Iterator[None]:
    """Hold the profile's lock: two runs that train the same cells would overwrite each other's checkpoints."""
    path = paths.artifacts / profile / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise HarnessError(f"{path.parent}: cannot write here ({error.strerror}); make the folder writable") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HarnessError(f"{path}: another run is training profile {profile}; wait for it or stop it") from None
        yield


def make_cells(
    plan: Plan,
    paths: Paths,
    device: Device,
    reporter: Reporter,
    keep_going: Callable[[], bool] = lambda: True,
    cells: Sequence[Cell] | None = None,
) -> Summary:
    """Make all cells of the plan (or those given) that are not done. Stops cleanly when `keep_going` turns False."""
    with alone(paths, plan.profile):
        return Maker(plan, paths, device, reporter, keep_going).run(plan.cells if cells is None else cells)
