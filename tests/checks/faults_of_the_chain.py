"""Ways to break the chain of records, and who must notice."""

from pathlib import Path
from typing import Any

from harness.checks import limits
from harness.store.records import (
    AccuracyRecord,
    ExportRecord,
    Failure,
    LatencyRecord,
    Record,
    TrainRecord,
    failed,
    save,
)
from tests.checks.planted import CELL, HEADLINE, OTHER, TEACHER, Bench, fault
from tests.synthetic import TRAINING, common


def fail(bench: Bench, kind: type[Record], failure: Failure) -> None:
    """Put a failed record of the cell in place of the done one."""
    fields = {k: v for k, v in common(bench.plan, bench.cell(), TRAINING).items() if k not in ("status", "finished_at")}
    needed = {"onnx_sha256": bench.get(ExportRecord).onnx_sha256, "runtime": limits.RUNTIMES["1.16.0"]}
    more: dict[type[Record], dict[str, Any]] = {
        TrainRecord: {"settings": {}},
        LatencyRecord: {**needed, "condition": HEADLINE, "threads": 1, "settings": {}},
        AccuracyRecord: needed,
    }
    save(bench.results, failed(kind, failure, **fields, **more.get(kind, {})))


def swap(one: Path, two: Path) -> None:
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


@fault("unreadable-record", (CELL, "latency"))
def truncated_record(bench: Bench) -> None:
    path = bench.path(LatencyRecord)
    path.write_text(path.read_text()[:200])


@fault("unreadable-record", (CELL, "train"))
def record_of_another_stage(bench: Bench) -> None:
    bench.path(TrainRecord).write_text(bench.path(ExportRecord).read_text())


@fault("missing-record", (CELL, "train"))
def missing_cell(bench: Bench) -> None:
    for kind in (TrainRecord, ExportRecord, LatencyRecord, AccuracyRecord):
        bench.path(kind).unlink()


@fault("missing-record", (CELL, "latency"), (CELL, "accuracy"))
def unmeasured_cell(bench: Bench) -> None:
    for kind in (LatencyRecord, AccuracyRecord):
        bench.path(kind).unlink()


@fault("missing-record", (TEACHER, "latency"))
def unmeasured_teacher(bench: Bench) -> None:
    bench.path(LatencyRecord, TEACHER).unlink()


@fault("failed-stage", (CELL, "train"))
def diverged_training(bench: Bench) -> None:
    fail(bench, TrainRecord, Failure(kind="diverged", message="loss is nan in epoch 1"))
    for kind in (ExportRecord, LatencyRecord, AccuracyRecord):
        bench.path(kind).unlink()


@fault("failed-stage", (CELL, "accuracy"))
def nan_logits(bench: Bench) -> None:
    fail(bench, AccuracyRecord, Failure(kind="error", message="logits are not finite (first in images 0 to 99)"))


@fault("stale-key", (CELL, "latency"))
def latency_under_other_settings(bench: Bench) -> None:
    bench.change(LatencyRecord, key="0" * 16)


@fault("stale-key", (CELL, "train"))
def training_under_other_settings(bench: Bench) -> None:
    for kind in (TrainRecord, ExportRecord, LatencyRecord, AccuracyRecord):
        bench.change(kind, key="0" * 16)


@fault("swapped-models", (CELL, "accuracy"), (OTHER, "accuracy"))
def swapped_record_files(bench: Bench) -> None:
    swap(bench.path(AccuracyRecord), bench.path(AccuracyRecord, OTHER))


@fault("swapped-models", (CELL, "latency"))
def latency_of_another_model(bench: Bench) -> None:
    bench.change(LatencyRecord, onnx_sha256=bench.get(ExportRecord, OTHER).onnx_sha256)


@fault("swapped-models", (CELL, "export"))
def export_of_another_model(bench: Bench) -> None:
    bench.change(ExportRecord, weights_sha256=bench.get(TrainRecord, OTHER).weights_sha256)


@fault("swapped-models", (CELL, "latency"))
def record_of_another_profile(bench: Bench) -> None:
    path = bench.path(LatencyRecord)
    path.write_text(path.read_text().replace('"profile": "lite"', '"profile": "quick"'))


@fault("broken-chain", (CELL, "accuracy"))
def accuracy_of_an_older_file(bench: Bench) -> None:
    bench.change(AccuracyRecord, onnx_sha256="f" * 64)


@fault("broken-chain", (CELL, "export"))
def export_of_older_weights(bench: Bench) -> None:
    bench.change(ExportRecord, weights_sha256="f" * 64)


@fault("changed-file", (CELL, "export"))
def damaged_onnx_file(bench: Bench) -> None:
    bench.onnx().write_bytes(b"cut short")


@fault("changed-file", (CELL, "export"), (OTHER, "export"))
def swapped_onnx_files(bench: Bench) -> None:
    swap(bench.onnx(), bench.onnx(OTHER))


@fault("duplicate-model", (CELL, "export"), (OTHER, "export"))
def one_onnx_file_for_two_cells(bench: Bench) -> None:
    for kind in (ExportRecord, LatencyRecord, AccuracyRecord):
        bench.change(kind, onnx_sha256=bench.get(ExportRecord, OTHER).onnx_sha256)
    bench.onnx().write_bytes(bench.onnx(OTHER).read_bytes())


@fault("duplicate-model", (CELL, "train"), (OTHER, "train"))
def the_same_weights_for_two_cells(bench: Bench) -> None:
    for kind in (TrainRecord, ExportRecord):
        bench.change(kind, weights_sha256=bench.get(TrainRecord, OTHER).weights_sha256)


@fault("wrong-key", (CELL, "train"))
def settings_changed_afterwards(bench: Bench) -> None:
    bench.change(TrainRecord, settings={**bench.get(TrainRecord).settings, "seed": 9})


@fault("other-teacher", (CELL, "train"))
def student_of_another_teacher(bench: Bench) -> None:
    bench.change(TrainRecord, teacher_sha256="f" * 64)


@fault("changed-weights", (CELL, "train"))
def damaged_weights(bench: Bench) -> None:
    bench.onnx().with_name("weights.safetensors").write_bytes(b"cut short")
