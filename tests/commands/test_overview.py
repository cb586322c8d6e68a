import json
from pathlib import Path

import pytest

from harness.commands import overview
from harness.commands.overview import CHOOSE, MOST_REASONS, as_document
from harness.plan.planning import make_plan
from harness.store.records import AccuracyRecord, ExportRecord, Failure, LatencyRecord, TrainRecord
from tests.checks.faults_of_the_chain import OLD_KEY, fail
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


def test_the_status_of_a_finished_plan_is_two_counts(bench: Bench) -> None:
    text = text_of(bench, only_counts=True)
    assert text.startswith("Profile lite, data set cifar100: 10 models\n")
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


def test_of_very_many_models_the_first_are_listed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "MOST_MODELS", 4)
    lines = text_of(bench, only_counts=False).splitlines()
    assert sum("done" in line for line in lines) == 4
    assert f"... and {len(bench.plan.cells) - 4} more models; --json lists all" in lines
    monkeypatch.setattr(overview, "MOST_MODELS", len(bench.plan.cells))
    assert "more model" not in text_of(bench, only_counts=False)


def test_changed_code_is_counted_with_the_choice_and_named_once(bench: Bench) -> None:
    for cell in (CELL, OTHER):
        code = {**bench.get(TrainRecord, cell).code, "method base": "0" * 64}
        bench.change(TrainRecord, cell, code=code)
    bench.change(AccuracyRecord, TEACHER, code={"engine onnxruntime": "0" * 64})
    text = text_of(bench, only_counts=True)
    assert CHOOSE == "made by code that has changed since: choose CODE=redo or CODE=keep"
    assert sums(text) == {CHOOSE: 2, "trained and exported": 8, "benched": 9, f"benched, {CHOOSE}": 1}
    assert text.count("code changed: ") == 2
    assert "code changed: method base (2 models)" in text.splitlines()
    assert "code changed: engine onnxruntime (1 model)" in text.splitlines()
    lines = [line.split() for line in text_of(bench, only_counts=False).splitlines()]
    assert ["P(0.3_BN)_KD(3)_SEED(0)", "GRAM+Base", "changed", "done"] in lines
    assert ["ResNet50", "done", "changed"] in lines
    assert would(bench) == "train-matrix would stop and ask for CODE=redo or CODE=keep."


def test_records_that_cannot_be_used_are_named_with_the_reason_but_not_all_of_them(bench: Bench) -> None:
    students = [cell.id for cell in bench.plan.cells[1:]]
    for cell in students:
        bench.change(TrainRecord, cell, key=OLD_KEY)
    lines = text_of(bench, only_counts=True).splitlines()
    named = [line for line in lines if line.startswith("not usable: ")]
    assert [line.split(": ")[1] for line in named] == students[:MOST_REASONS]
    assert all(f"was made under other settings (key {OLD_KEY}, now v2-" in line for line in named)
    assert f"... and {len(students) - MOST_REASONS} records more; --json lists all" in lines
    reasons = [entry["reason"] for entry in as_document(bench.plan, states_of(bench))["cells"]]
    assert reasons.count(None) == 1


def test_records_of_an_earlier_schema_say_what_to_do(bench: Bench) -> None:
    path = bench.path(TrainRecord)
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    (line,) = [line for line in text_of(bench, only_counts=True).splitlines() if line.startswith("not usable")]
    assert f"move {bench.results}/lite away and make its models again" in line


def would(bench: Bench) -> str:
    """The last line of `plan`."""
    return text_of(bench, only_counts=False).splitlines()[-1]


def test_a_finished_plan_would_train_nothing(bench: Bench) -> None:
    assert would(bench) == "Nothing to train."


def test_from_nothing_everything_would_run(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    settings = plan.settings
    assert (settings.pruning.sparse.epochs, settings.student.epochs) == (1, 1)
    # BN and GN, each with the layers that Base, FMSE and GRAM keep
    assert would(Bench(plan, tmp_path, tmp_path)) == (
        f"train-matrix would train {settings.teacher.epochs} epochs of the teacher, "
        f"train 6 networks sparsely for 1 epoch, distil 9 students, 1 epoch a stage."
    )


def test_epochs_that_an_axis_varies_are_all_named(tmp_path: Path) -> None:
    settings = plan_for("lite").settings
    experiment = settings.experiment[0].model_copy(update={"student": {"epochs": [1, 4]}})
    plan = make_plan(settings.model_copy(update={"experiment": [experiment]}), "lite", experiments=["prune-0.3"])
    assert would(Bench(plan, tmp_path, tmp_path)).endswith("distil 18 students, 1 or 4 epochs a stage.")


def test_only_what_is_missing_would_run(bench: Bench) -> None:
    # L1 starts from the teacher: nothing is trained sparsely for it.
    bench.path(TrainRecord, OTHER).unlink()
    assert would(bench) == "train-matrix would distil 1 student, 1 epoch a stage."


def test_trained_models_would_only_be_exported(bench: Bench) -> None:
    bench.path(ExportRecord).unlink()
    bench.onnx(OTHER).unlink()
    assert would(bench) == "train-matrix would export 2 models already trained."


def test_the_document_is_json_with_states_reasons_and_keys(bench: Bench) -> None:
    fail(bench, TrainRecord, DIVERGED)
    document = json.loads(json.dumps(as_document(bench.plan, states_of(bench))))
    cells = bench.plan.cells
    assert (document["profile"], document["dataset"]) == ("lite", "cifar100")
    assert document["experiments"] == {"prune-0.3": [cell.id for cell in cells]}
    assert document["counts"] == {
        "done": 9,
        "failed": 1,
        "benched": 9,
        "bench_changed": 0,
        "bench_failed": 0,
    }
    assert [(entry["id"], entry["title"]) for entry in document["cells"]] == [(cell.id, cell.title) for cell in cells]
    (failed,) = [entry for entry in document["cells"] if entry["reason"]]
    assert (failed["id"], failed["training"], failed["benching"]) == (CELL, "failed", "missing")
    assert failed["reason"] == DIVERGED.message
    assert (failed["protocol"], failed["point"]) == (
        "study",
        {"prune_amount": 0.3, "prune_method": "bn", "kd_method": "gram", "seed": 0},
    )


def test_the_document_has_the_key_of_every_stage_up_to_the_model_file(bench: Bench) -> None:
    cells = as_document(bench.plan, states_of(bench))["cells"]
    found = {entry["id"]: entry["keys"] for entry in cells}
    teacher, student = bench.plan.teacher, bench.cell()
    assert list(found[CELL]) == ["teacher", "sparse", "pruned", "student", "export"]
    assert list(found[TEACHER]) == ["teacher", "export"]
    assert found[CELL]["teacher"] == found[TEACHER]["teacher"] == teacher.trained.key
    assert found[CELL]["student"] == student.trained.key == bench.get(TrainRecord).key
    assert found[CELL]["export"] == student.spec.key == bench.get(ExportRecord).key
