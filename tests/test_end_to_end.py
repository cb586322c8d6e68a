"""The whole chain on a slice of the real data (where it is at hand), and every number of the table walked back."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.host.isa.shown import obstacle
from harness.plan.cpu_table import find_cpu
from harness.plan.loading import load_settings
from harness.plan.planning import Plan, make_plan
from harness.store.chain import Chain, as_measured
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, TrainRecord, load, record_path
from tests.command import TINY, harness, invoked, real_data, table, tiny_matrix
from tests.documents import ROOT

TITLES = ["ResNet50", "P(0.3_BN)_KD(0)_SEED(0)", "P(0.3_BN)_KD(3)_SEED(0)"]
README = "# Results\n\n<!-- table: quick prune-0.3 -->\n<!-- end -->\n\nThe end.\n"

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venvs/bench-1.16.0/bin/python").is_file(), reason="no .venvs/bench-1.16.0: `make setup` makes it"
)


class Done(NamedTuple):
    folder: Path
    data: Path
    printed: dict[str, str]


def settings() -> dict[str, Any]:
    """The study's network, and real images where they are at hand: of ten classes, which say as much here as all."""
    images = "cifar100_ten" if real_data() else "stand_in"
    return {"profile__quick__model__architecture": "resnet50", "profile__quick__data__dataset": images}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("end-to-end")
    empty = folder / "empty"
    empty.mkdir()
    data = real_data() or empty
    tiny_matrix(folder, ["base", "gram"], **settings())
    (folder / "README.md").write_text(README)
    printed = {}
    for verb in ("train-matrix", "bench", "report"):
        result = harness(folder, verb, "--profile", "quick", data=data)
        assert result.returncode == 0, f"{verb}: {result.stdout}{result.stderr}"
        printed[verb] = result.stdout
    return Done(folder, data, printed)


def run(done: Done, *arguments: str) -> Any:
    # those that measure leave it to other processes to say what they do
    there = harness if arguments[0] in ("bench", "test") else invoked
    return there(done.folder, *arguments, data=done.data)


def plan_of(done: Done) -> Plan:
    plan = make_plan(load_settings(done.folder / "matrix.toml", "quick"), "quick")
    return as_measured(plan, [Chain(plan, done.folder / "results")])


def headline(done: Done) -> str:
    return plan_of(done).settings.bench.conditions[0]


def test_figures_are_under_the_targets_instruction_set_where_this_machine_can_show_it(done: Done) -> None:
    can = (ROOT / ".venvs/isa/cpuid.so").is_file() and not obstacle(find_cpu("i9-9900K"))
    assert headline(done) == f"onnxruntime-1.16.0-{'target' if can else 'host'}-threads-1"
    first = "Instruction set: the Intel Core i9-9900K's." if can else "Instruction set, cores, caches and clock: the"
    assert first in (done.folder / "results/quick/tables/prune-0.3.md").read_text()
    assert first in done.printed["report"]


@pytest.fixture(scope="module")
def rows(done: Done) -> list[dict[str, str]]:
    return table(done.folder / "results/quick/tables/prune-0.3.md")


def test_every_cell_is_a_row_the_teacher_first_then_by_accuracy(rows: list[dict[str, str]]) -> None:
    assert sorted(row["Model Name"] for row in rows) == sorted(TITLES)
    assert rows[0]["Model Name"] == "ResNet50"
    accuracies = [float(row["Accuracy (%)"]) for row in rows[1:]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert list(rows[0])[:6] == ["Model Name", "Latency (ms)", "Accuracy (%)", "Parameters (M)", "Pruning", "KD"]


def test_every_number_is_that_of_the_records(done: Done, rows: list[dict[str, str]]) -> None:
    results = done.folder / "results"
    for cell in plan_of(done).cells:
        row = next(row for row in rows if row["Model Name"] == cell.title)
        export = load(record_path(results, "quick", "export", cell.id), ExportRecord)
        latency = load(record_path(results, "quick", "latency", cell.id, headline(done)), LatencyRecord)
        accuracy = load(record_path(results, "quick", "accuracy", cell.id), AccuracyRecord)
        assert latency.latency_ms and latency.ratio_to_teacher and export.params
        for text, value in {
            row["Latency (ms)"]: latency.latency_ms.value,
            row["Accuracy (%)"]: accuracy.accuracy_pct,
            row["Parameters (M)"]: export.params / 1e6,
        }.items():
            decimals = len(text.partition(".")[2])
            assert value is not None and text == f"{value:.{decimals}f}"
        if not cell.is_teacher:
            assert row["Latency ratio"].removeprefix("≈ ").startswith(f"{latency.ratio_to_teacher.value:.3f}")
            assert "1/8 width" in row["Note"]


def test_the_chain_from_row_to_settings_holds(done: Done) -> None:
    for cell in plan_of(done).cells:
        folder = done.folder / "results"
        train = load(record_path(folder, "quick", "train", cell.id), TrainRecord)
        export = load(record_path(folder, "quick", "export", cell.id), ExportRecord)
        accuracy = load(record_path(folder, "quick", "accuracy", cell.id), AccuracyRecord)
        assert (train.key, train.spec) == (cell.trained.key, cell.trained.document)
        assert (export.key, accuracy.key) == (cell.spec.key, plan_of(done).accuracy(cell).key)
        assert export.weights_sha256 == train.weights_sha256 and accuracy.onnx_sha256 == export.onnx_sha256


def test_the_bench_finds_the_accuracy_that_torch_found(done: Done) -> None:
    for cell in plan_of(done).cells:
        train = load(record_path(done.folder / "results", "quick", "train", cell.id), TrainRecord)
        accuracy = load(record_path(done.folder / "results", "quick", "accuracy", cell.id), AccuracyRecord)
        assert accuracy.images == (1_000 if real_data() else TINY["dataset.stand_in.test_images"])
        assert accuracy.accuracy_pct == pytest.approx(train.accuracy_pct, abs=0.1)


def test_the_second_time_there_is_nothing_to_do(done: Done) -> None:
    assert "Nothing to train" in run(done, "train-matrix", "--profile", "quick").stdout
    assert "Nothing to bench" in run(done, "bench", "--profile", "quick").stdout


def test_the_table_is_printed_and_its_files_are_named(done: Done) -> None:
    assert all(title in done.printed["report"] for title in TITLES)
    assert "results/quick/tables/prune-0.3.md" in done.printed["report"]


def test_the_readme_is_filled_and_a_changed_digit_is_noticed(done: Done) -> None:
    readme = done.folder / "README.md"
    filled = readme.read_text()
    assert "ResNet50" in filled and filled.endswith("<!-- end -->\n\nThe end.\n")
    assert run(done, "report-check").returncode == 0
    accuracy = table(done.folder / "results/quick/tables/prune-0.3.md")[1]["Accuracy (%)"]
    changed = f"{accuracy[:-1]}{(int(accuracy[-1]) + 1) % 10}"
    readme.write_text(filled.replace(accuracy, changed, 1))
    stale = run(done, "report-check")
    readme.write_text(filled)
    assert stale.returncode == 1 and "README.md:3" in stale.stderr


def copied(done: Done, tmp_path: Path) -> Done:
    shutil.copytree(done.folder, tmp_path / "copy")
    return Done(tmp_path / "copy", done.data, done.printed)


def test_a_deleted_record_leaves_a_row_that_says_so(done: Done, tmp_path: Path) -> None:
    other = copied(done, tmp_path)
    record_path(other.folder / "results", "quick", "latency", "p0.3-bn-gram-s0", headline(done)).unlink()
    run(other, "report", "--profile", "quick")
    found = table(other.folder / "results/quick/tables/prune-0.3.md")
    row = next(row for row in found if row["Model Name"] == TITLES[2])
    assert "latency" in row["Note"] and len(found) == 3


def test_a_failed_cell_is_a_row_with_its_reason_and_exit_code_one(done: Done, tmp_path: Path) -> None:
    other = copied(done, tmp_path)
    # A learning rate at which nothing can stay finite; the teacher and the pruned networks are kept.
    tiny_matrix(
        other.folder,
        ["base", "gram"],
        **settings(),
        profile__quick__student__lr=1e30,
        profile__quick__student__clip_norm=0.0,
    )
    trained = run(other, "train-matrix", "--profile", "quick")
    assert trained.returncode == 1
    assert "diverged" in trained.stdout and "2 failed" in trained.stdout and "teacher:" not in trained.stdout
    assert "failed" in run(other, "status", "--profile", "quick").stdout
    run(other, "report", "--profile", "quick")
    notes = [row["Note"] for row in table(other.folder / "results/quick/tables/prune-0.3.md")[1:]]
    assert all("failed (diverged)" in note for note in notes)


def test_one_file_is_measured_like_all(done: Done) -> None:
    (onnx,) = (done.folder / "artifacts/quick").glob("p0.3-bn-base-s0-*/model.onnx")
    text = run(done, "test", "--onnx-file", str(onnx), "--profile", "quick").stdout
    accuracy = json.loads((done.folder / "results/quick/accuracy/p0.3-bn-base-s0.json").read_text())["accuracy_pct"]
    assert "Parameters: " in text and "Latency: " in text and f"Accuracy: {accuracy:.2f} %" in text


def test_one_student_is_trained_and_exported_from_a_given_teacher(done: Done, tmp_path: Path) -> None:
    (teacher,) = (done.folder / "artifacts/quick").glob("teacher-s0-*/weights.safetensors")
    out = tmp_path / "pmodels"
    options = ["--prune-method", "BN", "--kd-method", "3", "--outp-dir", str(out), "--profile", "quick"]
    trained = run(done, "train", "--orig-model", str(teacher), *options)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    saved = out / "P(0.3_BN)_KD(3)_SEED(0).safetensors"
    assert f"saved: {saved}" in trained.stdout
    out_file = tmp_path / "model.onnx"
    exported = run(done, "export", "--torch-file", str(saved), "--out-file", str(out_file), "--profile", "quick")
    assert exported.returncode == 0 and "M parameters" in exported.stdout


def test_changed_code_is_never_passed_over_in_silence(done: Done, tmp_path: Path) -> None:
    other = copied(done, tmp_path)
    record = record_path(other.folder / "results", "quick", "train", "p0.3-bn-gram-s0")
    # as if GRAM's file had been another one when this model was trained
    document = json.loads(record.read_text())
    document["code"]["method gram"] = "0" * 64
    record.write_text(json.dumps(document))
    assert "changed" in run(other, "status", "--profile", "quick").stdout
    assert "code-changed" in run(other, "check", "--profile", "quick").stdout
    refused = run(other, "train-matrix", "--profile", "quick")
    assert refused.returncode == 2 and "method gram" in refused.stderr
    assert "CODE=redo" in refused.stderr and "CODE=keep" in refused.stderr
    kept = run(other, "train-matrix", "--profile", "quick", "--code", "keep")
    assert kept.returncode == 0 and "Nothing to train" in kept.stdout
    assert json.loads(record.read_text())["code_kept"][0]["method gram"] == "0" * 64
    assert "code-changed" not in run(other, "check", "--profile", "quick").stdout


def test_a_model_is_made_again_on_demand_and_comes_out_the_same(done: Done, tmp_path: Path) -> None:
    other = copied(done, tmp_path)
    record = record_path(other.folder / "results", "quick", "train", "p0.3-bn-base-s0")
    before = json.loads(record.read_text())
    again = run(other, "train-matrix", "--profile", "quick", "--redo", "p0.3-bn-base-s0")
    after = json.loads(record.read_text())
    assert again.returncode == 0 and "1 of 1 models made now" in again.stdout
    assert before["weights_sha256"] == after["weights_sha256"]
    assert [epoch["loss"] for epoch in before["epochs"]] == [epoch["loss"] for epoch in after["epochs"]]
    assert not list(other.folder.rglob("checkpoint.pt"))
