import json
from pathlib import Path

import pytest

from harness.commands.overview import as_document
from harness.files import digest
from harness.plan.planning import ancestry
from harness.store.records import AccuracyRecord, ExportRecord, Failure, LatencyRecord, TrainRecord
from tests.checks.faults_of_the_chain import fail
from tests.checks.planted import CELL, OTHER, TEACHER, Bench
from tests.finished import finish, states_of, text_of, weights
from tests.synthetic import plan_for

DIVERGED = Failure(kind="diverged", message="loss is nan in epoch 1")
KILLED = Failure(kind="killed", message="a process was killed")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return finish(tmp_path)


def sums(text: str) -> dict[str, int]:
    """The lines "   10 benched" and the like."""
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.startswith(" ")]
    return {words: int(count) for count, words in lines if count.isdigit()}


def test_the_status_of_a_finished_plan_is_two_sums(bench: Bench) -> None:
    text = text_of(bench, only_counts=True)
    assert text.startswith("Profile lite, data cifar100: 10 models\n")
    assert "prune-0.3: Experiment 1: prune amount 0.3 (10 rows, protocol study)" in text
    assert sums(text) == {"trained and exported": 10, "benched": 10}
    assert "failed" not in text and "P(0.3_BN)" not in text


def test_the_status_names_every_failure_with_its_reason(bench: Bench) -> None:
    fail(bench, TrainRecord, DIVERGED)
    bench.change(LatencyRecord, OTHER, status="failed", failure=KILLED)
    text = text_of(bench, only_counts=True)
    assert sums(text) == {
        "failed, to be tried again": 1,
        "trained and exported": 9,
        "benched": 8,
        "failed in the bench": 1,
    }
    failures = [line for line in text.splitlines() if line.startswith("failed: ")]
    assert sorted(failures) == [f"failed: {CELL}: {DIVERGED.message}", f"failed: {OTHER}: {KILLED.message}"]


def test_the_plan_has_a_line_for_each_cell_with_its_states(bench: Bench) -> None:
    bench.path(TrainRecord).unlink()
    bench.path(AccuracyRecord, OTHER).unlink()
    weights(bench, TEACHER).unlink()
    lines = [line.split() for line in text_of(bench, only_counts=False).splitlines()]
    assert ["P(0.3_BN)_KD(3)_SEED(0)", "GRAM+Base", "missing", "missing"] in lines
    assert ["P(0.3_L1)_KD(0)_SEED(0)", "Base", "done", "missing"] in lines
    assert ["ResNet50", "recorded", "done"] in lines
    assert ["P(0.3_GN)_KD(1)_SEED(0)", "FMSE+Base", "done", "done"] in lines


def would(bench: Bench) -> str:
    """The last line of `plan`."""
    return text_of(bench, only_counts=False).splitlines()[-1]


def test_a_finished_plan_would_train_nothing(bench: Bench) -> None:
    assert would(bench) == "Nothing to train."


def test_from_nothing_all_of_it_would_run(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    settings = plan.settings
    sparse = {digest(part) for c in plan.cells for part in ancestry(c.settings) if part["kind"] == "sparse"}
    assert would(Bench(plan, tmp_path, tmp_path)) == (
        f"train-matrix would train {settings.teacher.epochs} epochs of the teacher, "
        f"train {len(sparse)} networks sparsely for {settings.pruning.sparse.epochs} epoch(s), "
        f"distil 9 students, {settings.student.epochs} epoch(s) a stage."
    )


def test_only_what_is_missing_would_run(bench: Bench) -> None:
    # L1 starts from the teacher: nothing is trained sparsely for it.
    bench.path(TrainRecord, OTHER).unlink()
    epochs = bench.plan.settings.student.epochs
    assert would(bench) == f"train-matrix would distil 1 students, {epochs} epoch(s) a stage."


def test_what_is_trained_would_only_be_exported(bench: Bench) -> None:
    bench.path(ExportRecord).unlink()
    bench.onnx(OTHER).unlink()
    assert would(bench) == "train-matrix would export 2 models that are trained already."


def test_the_document_is_json_with_states_reasons_and_keys(bench: Bench) -> None:
    fail(bench, TrainRecord, DIVERGED)
    document = json.loads(json.dumps(as_document(bench.plan, states_of(bench))))
    cells = bench.plan.cells
    assert (document["profile"], document["data"]) == ("lite", "cifar100")
    assert document["experiments"] == {"prune-0.3": [cell.id for cell in cells]}
    assert document["counts"] == {"done": 9, "failed": 1, "benched": 9, "bench_failed": 0}
    assert [(entry["id"], entry["title"], entry["key"]) for entry in document["cells"]] == [
        (cell.id, cell.title, cell.key) for cell in cells
    ]
    (failed,) = [entry for entry in document["cells"] if entry["reason"]]
    assert (failed["id"], failed["training"], failed["benching"]) == (CELL, "failed", "missing")
    assert failed["reason"] == DIVERGED.message
    # The settings are what the key is a hash of.
    assert all(digest(entry["settings"], 16) == entry["key"] for entry in document["cells"])
