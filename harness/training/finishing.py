"""What becomes of a trained model: evaluated, stored, exported, and put on record; or why it failed."""

import json
import time
import traceback
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness import datasets
from harness.architectures import parameter_count, widths_of
from harness.datasets import Images
from harness.errors import HarnessError
from harness.files import file_sha256, write_text
from harness.model_files.onnx_export import IR_VERSION, PARITY_IMAGES, export
from harness.model_files.recount import macs_of
from harness.model_files.weights import load_weights, save_weights
from harness.plan.planning import Cell, Plan
from harness.predictions import save_classes
from harness.store.chain import Chain
from harness.store.paths import Paths, answers_file
from harness.store.records import (
    Epoch,
    ExportRecord,
    Failure,
    Pruning,
    TrainRecord,
    failed,
    identity,
    now,
    save,
)
from harness.store.revision import revision
from harness.store.states import cell_state
from harness.training.device import Device
from harness.training.loop import Learner, Watcher, accuracy_pct, answers


class Reporter(Watcher, Protocol):
    """A watcher that is also told what is being worked on."""

    def stage(self, text: str) -> None:
        """A new stage begins."""

    def cell(self, cell: Cell, record: TrainRecord) -> None:
        """A cell is done or has failed."""


@dataclass
class Ledger:
    """The cells of a plan as they come to their end. `failures` maps names to reasons, `made` lists the exported.

    Cells in `redo` count as missing until they have been made again.
    """

    plan: Plan
    paths: Paths
    device: Device
    reporter: Reporter
    redo: Collection[str] = ()
    made: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @cached_property
    def test(self) -> Images:
        """The test images, written out for the bench as well."""
        data = self.plan.teacher.teacher.data
        images = datasets.load(data.dataset.name, data.dataset.parameters, self.paths.data, train=False)
        path = self.paths.testset(self.plan.profile, self.plan.dataset)
        if not path.is_file():
            datasets.save_testset(path, images)
        return images

    @property
    def image_size(self) -> int:
        """Height and width, in pixels, of the images that the models are for."""
        return self.plan.settings.data.image_size

    @cached_property
    def example(self) -> Tensor:
        """One image's worth of zeros, for tracing."""
        return torch.zeros(1, 3, self.image_size, self.image_size)

    def folder(self, cell: Cell) -> Path:
        """Where the cell's files lie."""
        return self.paths.folder(self.plan.profile, cell)

    def weights(self, cell: Cell) -> Path:
        """The cell's trained weights."""
        return self.paths.weights(self.plan.profile, cell)

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell is trained and exported."""
        state = cell_state(self.paths, self.plan, cell).training
        return state in ("done", "changed") and not self._to_be_redone(cell)

    def trained(self, cell: Cell) -> TrainRecord | None:
        """The cell's record if its weights are here: what is left to do then is the export."""
        if self._to_be_redone(cell):
            return None
        record = Chain(self.plan, self.paths.results).train(cell).standing
        return record if record and self.weights(cell).is_file() else None

    def _to_be_redone(self, cell: Cell) -> bool:
        return cell.id in self.redo and cell.id not in self.made and cell.id not in self.failures

    def evaluate(self, model: nn.Module) -> float:
        """Accuracy (%) on the test images."""
        return accuracy_pct(self._answers(model), self.test)

    def test_while_training(self, model: nn.Module, image_size: int) -> float:
        """Accuracy (%) on the test images at a size, at the precision of training."""
        return accuracy_pct(answers(model, self.test, image_size, self.device, autocast=True), self.test)

    def _answers(self, model: nn.Module) -> Tensor:
        return answers(model, self.test, self.image_size, self.device)

    def end(self, cell: Cell, learner: Learner, log: list[Epoch], pruning: Pruning | None = None) -> None:
        """A learner has come to its end; `log` is what its network went through before."""
        if learner.failure:
            self.fail(cell, learner.failure)
        else:
            self.finish(cell, learner.model, [*log, *learner.log], learner.seconds, pruning)
        learner.checkpoint.unlink(missing_ok=True)

    def fail(self, cell: Cell, failure: Failure) -> None:
        """Put a cell without a model on record."""
        self.failures[cell.id] = failure.message
        record = failed(TrainRecord, failure, **self._trained(cell, 0.0))
        save(self.paths.results, record)
        self.reporter.cell(cell, record)

    def broke(self, cell: Cell, error: Exception) -> Failure:
        """An exception as a failure. What the user cannot put right leaves its traceback beside the cell's files."""
        if isinstance(error, HarnessError):
            return Failure(kind="error", message=str(error))
        log = self.folder(cell) / "failure.txt"
        write_text(log, "".join(traceback.format_exception(error)))
        first = (str(error).strip() or "no message").splitlines()[0]
        place = log.relative_to(self.paths.artifacts)
        return Failure(kind="error", message=f"{type(error).__name__}: {first} (traceback: artifacts/{place})")

    def finish(
        self, cell: Cell, model: nn.Module, log: list[Epoch], seconds: float, pruning: Pruning | None = None
    ) -> None:
        """Evaluate, store and export a trained model."""
        started = time.monotonic()
        given = self._answers(model)
        path = self.weights(cell)
        about = {"cell": cell.model_id, "key": cell.trained.key, "image_size": self.image_size}
        save_weights(path, model, {**about, "dataset": self.plan.dataset})
        # what the bench compares its own answers with
        answers_sha256 = save_classes(answers_file(self.folder(cell)), given.numpy())
        record = TrainRecord(
            status="done",
            finished_at=now(),
            weights_sha256=file_sha256(path),
            answers_sha256=answers_sha256,
            image_size=self.image_size,
            teacher_sha256=None if cell.is_teacher else file_sha256(self.weights(self.plan.teacher)),
            accuracy_pct=accuracy_pct(given, self.test),
            params=parameter_count(model),
            macs=pruning.macs_after if pruning else macs_of(model, self.image_size),
            widths=widths_of(model),
            pruning=pruning,
            epochs=log,
            **self._trained(cell, seconds + time.monotonic() - started),
        )
        save(self.paths.results, record)
        self._export(cell, model, record)
        self.reporter.cell(cell, record)

    def export_trained(self, cells: Iterable[Cell]) -> None:
        """Export the cells that are trained but have no model file, or none that passed."""
        for cell in cells:
            record = self.trained(cell)
            if record and not self.is_done(cell):
                model, _ = load_weights(self.weights(cell))
                self._export(cell, model, record)

    def _export(self, cell: Cell, model: nn.Module, trained: TrainRecord) -> None:
        started = time.monotonic()
        provenance = {
            "cell": cell.id,
            "title": cell.title,
            "key": cell.spec.key,
            "weights_sha256": trained.weights_sha256,
            "data": self.plan.dataset,
            "settings": json.dumps(cell.spec.document, sort_keys=True),
            "harness_revision": revision(),
        }
        path = self.paths.model_file(self.plan.profile, cell)
        try:
            done = export(model, path, self.test, self.image_size, cell.spec.opset, provenance)
        except Exception as error:  # the exporter's own faults must not take the other cells along
            failure = self.broke(cell, error)
            if isinstance(error, HarnessError):
                failure = failure.model_copy(update={"kind": "parity"})
            self.failures[cell.id] = failure.message
            save(self.paths.results, failed(ExportRecord, failure, **self._exported(cell, time.monotonic() - started)))
            return
        record = ExportRecord(
            status="done",
            finished_at=now(),
            weights_sha256=trained.weights_sha256,
            onnx_sha256=done.onnx_sha256,
            onnx_bytes=done.onnx_bytes,
            ir_version=IR_VERSION,
            params=done.params,
            flushed_weights=done.flushed_weights,
            denormal_weights=done.denormal_weights,
            parity_images=min(PARITY_IMAGES, len(self.test.labels)),
            parity_largest_logit=done.parity.largest_logit,
            parity_max_abs_diff=done.parity.max_abs_diff,
            parity_top1_agreement_pct=done.parity.top1_agreement_pct,
            **self._exported(cell, time.monotonic() - started),
        )
        save(self.paths.results, record)
        self.made.append(cell.id)

    def _trained(self, cell: Cell, seconds: float) -> dict[str, Any]:
        about = identity(self.plan.profile, cell.model_id, cell.title, cell.trained)
        return {**about, "seconds": seconds, "environment": self._environment()}

    def _exported(self, cell: Cell, seconds: float) -> dict[str, Any]:
        about = identity(self.plan.profile, cell.id, cell.title, cell.spec)
        return {**about, "code": {}, "seconds": seconds, "environment": self._environment()}

    def _environment(self) -> dict[str, Any]:
        return {**self.device.facts(), "harness_revision": revision()}
