"""What becomes of a trained model: evaluated, stored, exported, and put on record; or why it failed."""

import json
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch_pruning as tp
from torch import Tensor

from harness.architectures.resnet import ResNet50, load_weights, parameter_count, save_weights, widths_of
from harness.errors import HarnessError
from harness.export.onnx_export import IR_VERSION, OPSET, PARITY_IMAGES, export
from harness.files import atomic_path, file_sha256, write_text
from harness.plan.planning import Cell, Plan
from harness.store.chain import cell_state
from harness.store.paths import Paths, answers_file
from harness.store.records import Epoch, ExportRecord, Failure, Pruning, TrainRecord, failed, find, now, save
from harness.store.revision import revision
from harness.training import data
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
    """The cells of a plan as they come to their end. `failures` maps names to reasons, `made` lists the exported."""

    plan: Plan
    paths: Paths
    device: Device
    reporter: Reporter
    made: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @cached_property
    def test(self) -> data.Images:
        """The test images, written out for the bench as well."""
        images = data.load(self.plan.data, self.paths.data, train=False)
        path = self.paths.testset(self.plan.profile, self.plan.data)
        if not path.is_file():
            data.save_testset(path, images)
        return images

    @property
    def image_size(self) -> int:
        """Height and width, in pixels, of what the networks see."""
        return self.plan.settings.data.image_size

    @cached_property
    def example(self) -> Tensor:
        """One image's worth of zeros, for tracing."""
        return torch.zeros(1, 3, self.image_size, self.image_size)

    def folder(self, cell: Cell) -> Path:
        """Where the cell's files lie."""
        return cell.artifacts(self.paths.artifacts, self.plan.profile)

    def weights(self, cell: Cell) -> Path:
        """The cell's trained weights."""
        return self.folder(cell) / "weights.safetensors"

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell is trained and exported."""
        return cell_state(self.paths, self.plan, cell).training == "done"

    def trained(self, cell: Cell) -> TrainRecord | None:
        """The cell's record if its weights are here: what is left to do then is the export."""
        record = find(self.paths.results, self.plan.profile, cell.id, cell.key, TrainRecord)
        return record if record and not record.failure and self.weights(cell).is_file() else None

    def evaluate(self, model: ResNet50) -> float:
        """Accuracy (%) on the test images."""
        return accuracy_pct(self._answers(model), self.test)

    def _answers(self, model: ResNet50) -> Tensor:
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
        record = failed(TrainRecord, failure, settings=cell.settings, **self._common(cell, 0.0))
        save(self.paths.results, record)
        self.reporter.cell(cell, record)

    def broke(self, cell: Cell, error: Exception) -> Failure:
        """An exception as a failure. What the user cannot put right leaves its traceback beside the cell's files."""
        if isinstance(error, HarnessError):
            return Failure(kind="error", message=str(error))
        log = self.folder(cell) / "failure.txt"
        write_text(log, "".join(traceback.format_exception(error)))
        first = (str(error).strip() or "no message").splitlines()[0]
        return Failure(kind="error", message=f"{type(error).__name__}: {first} (traceback: {log})")

    def finish(
        self, cell: Cell, model: ResNet50, log: list[Epoch], seconds: float, pruning: Pruning | None = None
    ) -> None:
        """Evaluate, store and export a trained model."""
        started = time.monotonic()
        given = self._answers(model)
        path = self.weights(cell)
        save_weights(path, model, {"cell": cell.id, "key": cell.key, "image_size": self.image_size})
        # what the bench holds its own answers against
        with atomic_path(answers_file(self.folder(cell))) as temporary, temporary.open("wb") as file:
            np.save(file, given.to(torch.uint8).numpy())
        record = TrainRecord(
            status="done",
            finished_at=now(),
            settings=cell.settings,
            weights_sha256=file_sha256(path),
            teacher_sha256=None if cell.is_teacher else file_sha256(self.weights(self.plan.teacher)),
            accuracy_pct=accuracy_pct(given, self.test),
            params=parameter_count(model),
            macs=pruning.macs_after if pruning else self._macs(model),
            widths=widths_of(model),
            pruning=pruning,
            epochs=log,
            **self._common(cell, seconds + time.monotonic() - started),
        )
        save(self.paths.results, record)
        self._export(cell, model, record)
        self.reporter.cell(cell, record)

    def export_trained(self, cells: Iterable[Cell]) -> None:
        """Export the cells that are trained but have no ONNX file, or none that passed."""
        for cell in cells:
            record = self.trained(cell)
            if record and not self.is_done(cell):
                model, _ = load_weights(self.weights(cell))
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
            done = export(model, self.folder(cell) / "model.onnx", self.test, self.image_size, provenance)
        except Exception as error:  # the exporter's own faults must not take the other cells along
            failure = self.broke(cell, error)
            if isinstance(error, HarnessError):
                failure = failure.model_copy(update={"kind": "parity"})
            self.failures[cell.id] = failure.message
            save(self.paths.results, failed(ExportRecord, failure, **self._common(cell, time.monotonic() - started)))
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

    def _common(self, cell: Cell, seconds: float) -> dict[str, Any]:
        return {
            "cell": cell.id,
            "title": cell.title,
            "profile": self.plan.profile,
            "key": cell.key,
            "seconds": seconds,
            "environment": {**self.device.facts(), "harness_revision": revision()},
        }

    def _macs(self, model: ResNet50) -> int:
        return int(tp.utils.count_ops_and_params(model, self.example.to(self.device.torch))[0])
