"""Ways to break the chain of records, each with the check that must find it."""

from pathlib import Path
from typing import Any

from harness.plan.specs import Stage
from harness.store.records import (
    AccuracyRecord,
    ExportRecord,
    Failure,
    LatencyRecord,
    Record,
    TrainRecord,
    failed,
    identity,
    save,
)
from tests.checks.planted import BESIDE, CELL, HEADLINE, OTHER, TEACHER, Bench, fault
from tests.synthetic import TRAINING, onnx_hash

OLD_KEY = "v2-0000000000000000"
STAGES: tuple[type[Record], ...] = (TrainRecord, ExportRecord, LatencyRecord, AccuracyRecord)


def fail(bench: Bench, kind: type[Record], failure: Failure) -> None:
    """Put a failed record of the cell in place of the done one."""
    cell, plan = bench.cell(), bench.plan
    stages: dict[type[Record], Stage] = {
        TrainRecord: cell.trained,
        ExportRecord: cell.spec,
        LatencyRecord: plan.latency(cell, HEADLINE),
        AccuracyRecord: plan.accuracy(cell),
    }
    measured = {"onnx_sha256": onnx_hash(cell), "runtime": "onnxruntime 1.16.0"}
    more: dict[type[Record], dict[str, Any]] = {
        LatencyRecord: {**measured, "condition": HEADLINE, "threads": 1},
        AccuracyRecord: measured,
    }
    fields = identity(plan.profile, cell.id, cell.title, stages[kind])
    save(bench.results, failed(kind, failure, **fields, seconds=1.0, environment=TRAINING, **more.get(kind, {})))


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
    for kind in STAGES:
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


@fault("failed-stage", (CELL, "latency"))
def killed_beside_the_headline(bench: Bench) -> None:
    failure = Failure(kind="killed", message="a process was killed")
    bench.change(LatencyRecord, under=BESIDE, status="failed", failure=failure, latency_ms=None)


@fault("stale-key", (CELL, "latency"))
def latency_under_other_settings(bench: Bench) -> None:
    bench.change(LatencyRecord, key=OLD_KEY)


@fault("stale-key", (CELL, "latency"))
def latency_under_other_settings_beside_the_headline(bench: Bench) -> None:
    bench.change(LatencyRecord, under=BESIDE, key=OLD_KEY)


@fault("stale-key", (CELL, "export"))
def export_under_other_settings(bench: Bench) -> None:
    for kind in (ExportRecord, LatencyRecord, AccuracyRecord):
        bench.change(kind, key=OLD_KEY)


@fault("stale-key", (CELL, "train"))
def training_under_other_settings(bench: Bench) -> None:
    for kind in STAGES:
        bench.change(kind, key=OLD_KEY)


@fault("stale-key", (CELL, "train"))
def failed_training_under_other_settings(bench: Bench) -> None:
    fail(bench, TrainRecord, Failure(kind="diverged", message="loss is nan in epoch 1"))
    bench.change(TrainRecord, key=OLD_KEY)


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
    sha256 = bench.get(ExportRecord, OTHER).onnx_sha256
    for kind in (ExportRecord, AccuracyRecord):
        bench.change(kind, onnx_sha256=sha256)
    for condition in bench.plan.settings.bench.conditions:
        bench.change(LatencyRecord, under=condition, onnx_sha256=sha256)
    bench.onnx().write_bytes(bench.onnx(OTHER).read_bytes())


@fault("duplicate-model", (CELL, "train"), (OTHER, "train"))
def the_same_weights_for_two_cells(bench: Bench) -> None:
    for kind in (TrainRecord, ExportRecord):
        bench.change(kind, weights_sha256=bench.get(TrainRecord, OTHER).weights_sha256)


def respecify(bench: Bench, kind: type[Record], under: str = HEADLINE, **settings: Any) -> None:
    """Rewrite some of the settings that a record says it was made with, and leave its key."""
    bench.change(kind, under=under, spec={**bench.get(kind, under=under).spec, **settings})


@fault("wrong-key", (CELL, "train"))
def training_settings_changed_afterwards(bench: Bench) -> None:
    respecify(bench, TrainRecord, seed=9)


@fault("wrong-key", (CELL, "train"))
def the_teachers_settings_changed_afterwards(bench: Bench) -> None:
    spec = bench.get(TrainRecord).spec
    spec["parent"]["parent"]["parent"]["recipe"]["epochs"] = 1
    bench.change(TrainRecord, spec=spec)


@fault("wrong-key", (CELL, "export"))
def export_settings_changed_afterwards(bench: Bench) -> None:
    respecify(bench, ExportRecord, opset=11)


@fault("wrong-key", (CELL, "latency"))
def bench_settings_changed_afterwards_beside_the_headline(bench: Bench) -> None:
    respecify(bench, LatencyRecord, under=BESIDE, sampling={"rounds": 11})


@fault("wrong-key", (CELL, "accuracy"))
def settings_that_have_no_key(bench: Bench) -> None:
    respecify(bench, AccuracyRecord, threads=float("nan"))


@fault("code-changed", (CELL, "train"))
def a_method_whose_code_has_changed(bench: Bench) -> None:
    for kind in (TrainRecord, ExportRecord):
        bench.change(kind, code={**bench.get(TrainRecord).code, "method gram": "0" * 64})


@fault("code-changed", (CELL, "latency"))
def an_engine_whose_code_has_changed_beside_the_headline(bench: Bench) -> None:
    bench.change(LatencyRecord, under=BESIDE, code={"engine onnxruntime": "0" * 64})


@fault("code-changed", (CELL, "accuracy"))
def an_engine_whose_code_has_changed(bench: Bench) -> None:
    bench.change(AccuracyRecord, code={"engine onnxruntime": "0" * 64})


@fault("other-teacher", (CELL, "train"))
def student_of_another_teacher(bench: Bench) -> None:
    bench.change(TrainRecord, teacher_sha256="f" * 64)


@fault("changed-weights", (CELL, "train"))
def damaged_weights(bench: Bench) -> None:
    bench.onnx().with_name("weights.safetensors").write_bytes(b"cut short")
