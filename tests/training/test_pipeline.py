import json
import math
import shutil
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from harness.architectures.resnet import ResNet50, full_widths, load_weights, save_weights, widths_of
from torch import Tensor

from harness.compression.distillation import Phase, phases
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.planning import Cell, Plan, make_plan
from harness.plan.settings import Settings
from harness.store.chain import cell_state
from harness.store.lock import alone
from harness.store.paths import Paths
from harness.store.records import ExportRecord, TrainRecord, find
from harness.training import finishing as ledger
from harness.training import pipeline as make
from harness.training.pipeline import Summary, make_cells
from tests.training_kit import CPU, Told, below, network, patience, pruned_widths, same_weights, tiny_plan

pytestmark = pytest.mark.usefixtures("few_images")

TEACHER, BASE, FMSE = "teacher-s0", "p0.3-bn-base-s0", "p0.3-bn-fmse-s0"
CELLS = [TEACHER, BASE, FMSE]
# In the teacher's epoch, at its end, among the students, among them again.
STOPS = (1, 3, 5, 4)


def build(
    plan: Plan,
    paths: Paths,
    keep_going: Callable[[], bool] = lambda: True,
    cells: list[Cell] | None = None,
) -> tuple[Summary, Told]:
    told = Told()
    return make_cells(plan, paths, CPU, told, keep_going, cells), told


def cell(plan: Plan, name: str) -> Cell:
    return next(found for found in plan.cells if found.id == name)


def trained(plan: Plan, paths: Paths, name: str) -> TrainRecord:
    found = find(paths.results, plan.profile, name, cell(plan, name).key, TrainRecord)
    assert found
    return found


def exported(plan: Plan, paths: Paths, name: str) -> ExportRecord:
    found = find(paths.results, plan.profile, name, cell(plan, name).key, ExportRecord)
    assert found
    return found


def folder(plan: Plan, paths: Paths, name: str) -> Path:
    return cell(plan, name).artifacts(paths.artifacts, plan.profile)


def weights(plan: Plan, paths: Paths) -> dict[str, str]:
    return {one.id: file_sha256(folder(plan, paths, one.id) / "weights.safetensors") for one in plan.cells}


def figures(plan: Plan, paths: Paths) -> list[Any]:
    """Everything that is computed about the models, unrounded."""
    records = [trained(plan, paths, one.id) for one in plan.cells]
    return [(r.accuracy_pct, r.pruning, r.macs, [(epoch.phase, epoch.loss) for epoch in r.epochs]) for r in records]


def times(files: Iterable[Path]) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return tiny_plan(tmp_path_factory.mktemp("matrix"), ["bn"], ["base", "fmse"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, plan: Plan, few_images: None) -> tuple[Paths, Summary, Told]:
    """The plan, made in one go. For reading only."""
    paths = below(tmp_path_factory.mktemp("whole"))
    return paths, *build(plan, paths)


@pytest.fixture(scope="module")
def made(whole: tuple[Paths, Summary, Told]) -> Paths:
    return whole[0]


@pytest.fixture
def copied(made: Paths, tmp_path: Path) -> Paths:
    """The whole plan, made; the test's own to change."""
    shutil.copytree(made.results, tmp_path / "results")
    shutil.copytree(made.artifacts, tmp_path / "artifacts")
    return below(tmp_path)


# --- All of it -------------------------------------------------------------------------------------------------------


def test_every_cell_is_made_and_said_to_be(plan: Plan, whole: tuple[Paths, Summary, Told]) -> None:
    paths, summary, told = whole
    assert summary == Summary(CELLS, {}, True)
    assert told.cells == CELLS
    assert [stage.split()[0].strip(":,") for stage in told.stages] == ["teacher", "sparse", "pruning", "distillation"]
    assert [cell_state(paths, plan, one).training for one in plan.cells] == ["done"] * 3


@pytest.mark.parametrize("name", CELLS)
def test_records_files_and_metadata_hang_together_by_their_hashes(plan: Plan, made: Paths, name: str) -> None:
    train, export = trained(plan, made, name), exported(plan, made, name)
    files = folder(plan, made, name)
    assert train.weights_sha256 == export.weights_sha256 == file_sha256(files / "weights.safetensors")
    assert export.onnx_sha256 == file_sha256(files / "model.onnx")
    said = {entry.key: entry.value for entry in onnx.load(files / "model.onnx").metadata_props}
    assert said["weights_sha256"] == train.weights_sha256
    assert (said["cell"], said["key"], said["title"]) == (name, train.key, train.title)
    assert (said["data"], said["image_size"]) == ("stand-in", "16")
    assert json.loads(said["settings"]) == train.settings == cell(plan, name).settings


@pytest.mark.parametrize("name", CELLS)
def test_a_record_says_what_the_network_is(plan: Plan, made: Paths, name: str) -> None:
    record = trained(plan, made, name)
    model, metadata = load_weights(folder(plan, made, name) / "weights.safetensors")
    assert record.widths == widths_of(model)
    assert record.params == sum(parameter.numel() for parameter in model.parameters())
    assert record.macs and record.accuracy_pct is not None and 0 <= record.accuracy_pct <= 100
    assert (metadata["cell"], metadata["key"], metadata["image_size"]) == (name, record.key, 16)
    assert record.environment["precision"] == "fp32" and record.environment["harness_revision"]


def test_the_log_keeps_every_epoch_from_sparse_training_on(plan: Plan, made: Paths) -> None:
    logs = {name: [epoch.phase for epoch in trained(plan, made, name).epochs] for name in CELLS}
    assert logs == {TEACHER: ["teacher"], BASE: ["sparse", "base"], FMSE: ["sparse", "feature", "base"]}


def test_a_student_is_smaller_than_its_teacher_and_says_by_how_much(plan: Plan, made: Paths) -> None:
    teacher = trained(plan, made, TEACHER)
    assert teacher.pruning is None and teacher.widths == full_widths(0.0625)
    for name in (BASE, FMSE):
        student = trained(plan, made, name)
        assert student.pruning and student.params and teacher.params and student.params < teacher.params
        assert (student.pruning.params_before, student.pruning.params_after) == (teacher.params, student.params)
        assert (student.pruning.macs_before, student.pruning.macs_after) == (teacher.macs, student.macs)
    fmse = trained(plan, made, FMSE)
    assert fmse.pruning and fmse.widths
    assert all(fmse.widths[layer] == teacher.widths[layer] for layer in fmse.pruning.kept_layers)


def test_nothing_temporary_is_left(plan: Plan, made: Paths) -> None:
    left = {path.name for path in made.artifacts.rglob("*") if path.is_file()}
    stages = {name for name in left if name.startswith(("sparse-", "pruned-"))}
    assert left - stages == {"weights.safetensors", "answers.npy", "model.onnx", "testset-stand-in.npz", ".lock"}
    assert len(stages) == 4 and not any("checkpoint" in name for name in stages)


def test_the_bench_gets_its_test_images(plan: Plan, made: Paths) -> None:
    with np.load(made.testset("quick", "stand-in")) as file:
        assert file["images"].shape == (300, 32, 32, 3)


def test_by_value_groups_train_one_after_the_other_to_the_same_bits(plan: Plan, made: Paths, tmp_path: Path) -> None:
    document = plan.settings.model_dump()
    document["experiment"][0]["first"] = [{"kd_method": "fmse"}]
    ordered = make_plan(Settings.model_validate(document), "quick", "stand-in", ["prune-0.3"])
    paths, told = below(tmp_path), Told()
    summary = make_cells(ordered, paths, CPU, told, by_value=True)
    assert summary.made == [TEACHER, FMSE, BASE]
    assert len([stage for stage in told.stages if stage.startswith("distillation")]) == 2
    assert weights(ordered, paths) == weights(plan, made)
    # stopped in the first group, the second is not begun
    paths = below(tmp_path / "stopped")
    stopped = make_cells(ordered, paths, CPU, told := Told(), patience(9), by_value=True)
    assert not stopped.complete and BASE not in told.cells and told.cells[0] == TEACHER


def test_a_student_names_the_teacher_that_it_comes_from(plan: Plan, made: Paths) -> None:
    teacher = trained(plan, made, TEACHER)
    assert teacher.teacher_sha256 is None
    assert {trained(plan, made, name).teacher_sha256 for name in (BASE, FMSE)} == {teacher.weights_sha256}


def test_a_second_call_finds_nothing_to_do(plan: Plan, copied: Paths) -> None:
    before = times(copied.artifacts.rglob("[a-z]*.*")) | times(copied.results.rglob("*.json"))
    summary, told = build(plan, copied)
    assert summary == Summary([], {}, True)
    assert (told.stages, told.cells, told.steps) == ([], [], 0)
    assert times(before) == before


@pytest.mark.parametrize("together", [1, 2])
def test_in_groups_of_any_size_students_are_as_ever(plan: Plan, copied: Paths, made: Paths, together: int) -> None:
    for name in (BASE, FMSE):
        shutil.rmtree(folder(plan, copied, name))
    for stage in (copied.artifacts / "quick" / "stages").iterdir():
        stage.unlink()
    told = Told()
    assert make_cells(plan, copied, CPU, told, together=together).made == [BASE, FMSE]
    groups = [stage for stage in told.stages if stage.startswith("distillation")]
    assert len(groups) == 2 // together and f"{together} students side by side" in groups[0]
    assert sum(stage.startswith("sparse") for stage in told.stages) == 2 // together
    assert weights(plan, copied) == weights(plan, made)


def test_memory_decides_how_many_train_side_by_side(
    plan: Plan, copied: Paths, made: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def one_fits(*about: Any) -> int:
        asked.append(about)
        return 1

    monkeypatch.setattr(make, "side_by_side", one_fits)
    for name in (BASE, FMSE):
        shutil.rmtree(folder(plan, copied, name))
    _, told = build(plan, copied)
    assert sum(stage.startswith("distillation") for stage in told.stages) == 2
    assert asked[0] == (full_widths(0.0625), "cifar", 16, 50, CPU)
    assert weights(plan, copied) == weights(plan, made)


# --- Part of it ------------------------------------------------------------------------------------------------------


def test_the_teacher_comes_along_where_only_a_student_is_asked_for(plan: Plan, tmp_path: Path) -> None:
    paths = below(tmp_path)
    summary, _ = build(plan, paths, cells=[cell(plan, BASE)])
    assert summary.made == [TEACHER, BASE]
    assert cell_state(paths, plan, cell(plan, FMSE)).training == "missing"


def test_a_deleted_onnx_file_is_exported_again_and_nothing_else(plan: Plan, copied: Paths) -> None:
    (folder(plan, copied, FMSE) / "model.onnx").unlink()
    before = weights(plan, copied)
    summary, told = build(plan, copied)
    assert summary.made == [FMSE] and told.steps == 0
    assert weights(plan, copied) == before
    assert exported(plan, copied, FMSE).onnx_sha256 == file_sha256(folder(plan, copied, FMSE) / "model.onnx")


def test_deleted_weights_are_made_again_with_the_same_bits(plan: Plan, copied: Paths) -> None:
    before = weights(plan, copied)
    shutil.rmtree(folder(plan, copied, BASE))
    summary, _ = build(plan, copied)
    assert summary.made == [BASE]
    assert weights(plan, copied) == before


def test_another_student_rate_makes_students_again_and_leaves_what_they_come_from(
    plan: Plan, copied: Paths, tmp_path: Path
) -> None:
    other = tiny_plan(tmp_path, ["bn"], ["base", "fmse"], profile__quick__student__lr=0.01)
    teacher = folder(plan, copied, TEACHER) / "weights.safetensors"
    kept = times([teacher, *(copied.artifacts / "quick" / "stages").iterdir()])
    summary, told = build(other, copied)
    assert summary.made == told.cells == [BASE, FMSE]
    assert times((copied.artifacts / "quick" / "stages").iterdir()) | times([teacher]) == kept
    assert weights(other, copied)[BASE] != weights(plan, copied)[BASE]


def test_controlled_students_start_from_one_pruned_network(plan: Plan, copied: Paths, tmp_path: Path) -> None:
    controlled = tiny_plan(tmp_path, ["l1"], ["none", "scratch", "base", "gram"], "controlled")
    stages = copied.artifacts / "quick" / "stages"
    before = set(stages.iterdir())
    summary, _ = build(controlled, copied)
    assert not summary.failed and len(summary.made) == 4
    new = sorted(path.name.split("-")[0] for path in set(stages.iterdir()) - before)
    assert new == ["pruned", "sparse"]
    records = [trained(controlled, copied, one.id) for one in controlled.cells if not one.is_teacher]
    assert len({json.dumps(record.widths) for record in records}) == 1
    assert len({record.pruning.model_dump_json() for record in records if record.pruning}) == 1
    assert [[epoch.phase for epoch in record.epochs] for record in records] == [["sparse", "joint", "joint"]] * 4
    models = [load_weights(folder(controlled, copied, record.cell) / "weights.safetensors")[0] for record in records]
    assert not any(same_weights(one, other) for one, other in combinations(models, 2))


# --- What goes wrong -------------------------------------------------------------------------------------------------


def sick_phases(kd: dict[str, Any], epochs: int) -> list[Phase]:
    def loss(student: Any, _: Any, __: Tensor) -> Tensor:
        return student.logits.sum() * math.nan

    return [Phase("feature", 1, loss)] if kd["method"] == "fmse" else phases(kd, epochs)


def test_a_cell_that_diverges_is_on_record_and_the_others_are_as_ever(
    plan: Plan, copied: Paths, made: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (BASE, FMSE):
        shutil.rmtree(folder(plan, copied, name))
    with monkeypatch.context() as patch:
        patch.setattr(make, "phases", sick_phases)
        summary, _ = build(plan, copied)
    failure = trained(plan, copied, FMSE).failure
    assert failure and failure.kind == "diverged"
    assert summary == Summary([BASE], {FMSE: failure.message}, True)
    assert cell_state(copied, plan, cell(plan, FMSE)).reason == failure.message
    assert not (folder(plan, copied, FMSE) / "weights.safetensors").exists()
    again, _ = build(plan, copied)
    assert again == Summary([FMSE], {}, True)
    assert weights(plan, copied) == weights(plan, made)


def test_a_teacher_that_diverges_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, ["bn"], ["base"], profile__quick__teacher__lr=1e30)
    summary, told = build(plan, below(tmp_path))
    assert list(summary.failed) == [TEACHER] and "lr" in summary.failed[TEACHER]
    assert summary.made == [] and told.cells == [TEACHER]


def test_where_sparse_training_diverges_its_students_fail_and_others_do_not(copied: Paths, tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, ["l1", "bn"], ["base"], profile__quick__pruning__sparse__lr=1e30)
    summary, _ = build(plan, copied)
    assert summary.complete and summary.made == ["p0.3-l1-base-s0"]
    assert "sparse training failed" in summary.failed[BASE] and "loss is" in summary.failed[BASE]
    assert trained(plan, copied, BASE).failure


def test_where_nothing_can_be_pruned_the_cell_says_so(copied: Paths, tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, ["l1"], ["base"], pruning__round_to=512)
    summary, _ = build(plan, copied)
    (reason,) = summary.failed.values()
    assert "removed nothing" in reason and summary.complete


def test_a_model_that_fails_the_parity_gate_is_a_failed_cell(
    plan: Plan, copied: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise HarnessError("parity gate: differs")

    (folder(plan, copied, BASE) / "model.onnx").unlink()
    monkeypatch.setattr(ledger, "export", refuse)
    summary, _ = build(plan, copied, cells=[cell(plan, BASE)])
    failure = exported(plan, copied, BASE).failure
    assert failure and failure.kind == "parity"
    assert summary.failed == {BASE: "parity gate: differs"}
    monkeypatch.undo()
    again, reporter = build(plan, copied, cells=[cell(plan, BASE)])
    assert again.made == [BASE] and not reporter.stages, "a failed export costs no second training"


def test_a_fault_of_the_exporter_itself_leaves_its_traceback(
    plan: Plan, copied: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise TypeError("out of order")

    (folder(plan, copied, BASE) / "model.onnx").unlink()
    monkeypatch.setattr(ledger, "export", crash)
    summary, _ = build(plan, copied, cells=[cell(plan, BASE)])
    assert "TypeError: out of order" in summary.failed[BASE] and summary.complete
    assert "in crash" in (folder(plan, copied, BASE) / "failure.txt").read_text()


def test_two_makers_of_one_profile_do_not_meet(plan: Plan, copied: Paths) -> None:
    with (
        alone(copied, "quick"),
        pytest.raises(HarnessError, match=r"another run is training, merging or unpacking profile quick"),
    ):
        build(plan, copied)
    assert build(plan, copied)[0].complete


def test_a_folder_that_cannot_be_written_is_named(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file")
    with pytest.raises(HarnessError, match=rf"{tmp_path}/artifacts.*writable"):
        build(plan, below(tmp_path))


# --- Going on --------------------------------------------------------------------------------------------------------


def test_stopped_again_and_again_it_ends_with_the_same_bits_in_as_many_steps(
    plan: Plan, whole: tuple[Paths, Summary, Told], tmp_path: Path
) -> None:
    paths = below(tmp_path)
    taken = 0
    for steps in STOPS:
        summary, told = build(plan, paths, patience(steps))
        assert not summary.complete and not summary.failed
        taken += told.steps
    summary, told = build(plan, paths)
    assert summary.complete and taken + told.steps == whole[2].steps
    assert weights(plan, paths) == weights(plan, whole[0])
    assert figures(plan, paths) == figures(plan, whole[0])
    assert [epoch.phase for epoch in trained(plan, paths, FMSE).epochs] == ["sparse", "feature", "base"]


# --- A teacher from elsewhere ----------------------------------------------------------------------------------------


def given(folder: Path, model: ResNet50) -> Plan:
    save_weights(folder / "given.safetensors", model, {})
    return tiny_plan(folder, ["l1"], ["base"], profile__quick__teacher__checkpoint=str(folder / "given.safetensors"))


def test_a_given_teacher_is_taken_as_it_is(tmp_path: Path) -> None:
    plan, paths = given(tmp_path, network(5)), below(tmp_path)
    summary, _ = build(plan, paths, cells=[plan.teacher])
    assert summary.made == [TEACHER] and trained(plan, paths, TEACHER).epochs == []
    model, _ = load_weights(folder(plan, paths, TEACHER) / "weights.safetensors")
    assert torch.equal(model.fc.weight, network(5).fc.weight)


@pytest.mark.parametrize("model", [network(widths=pruned_widths()), network(stem="imagenet")])
def test_a_given_teacher_of_another_shape_is_refused(tmp_path: Path, model: ResNet50) -> None:
    with pytest.raises(HarnessError, match=r"given\.safetensors: another architecture.*width 0\.0625, stem cifar"):
        build(given(tmp_path, model), below(tmp_path))
