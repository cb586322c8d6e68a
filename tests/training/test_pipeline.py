import json
import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from harness.architectures import build, parameter_count, widths_of
from harness.compression import calibration
from harness.compression.distillation import Method, Phase, Setup, fmse
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.model_files.weights import load_weights, read_metadata, save_weights
from harness.plan.planning import Cell, Plan, make_plan
from harness.plan.settings import Settings
from harness.plan.specs import Choice, Network, Pruned, Sparse, code_of
from harness.store.chain import Chain
from harness.store.lock import alone
from harness.store.paths import Paths
from harness.store.records import ExportRecord, TrainRecord, load, record_path, save
from harness.store.states import cell_state
from harness.training import finishing, pipeline
from harness.training.batches import Stream
from harness.training.pipeline import Maker, Summary, make_cells
from tests.training_kit import CPU, WIDTH, Told, below, network, same_weights, stop_after, thin, tiny_plan

pytestmark = pytest.mark.usefixtures("few_images")

NETWORK = thin("resnet18")
RESNET50 = {"profile__quick__model__architecture": "resnet50"}
TEACHER, BASE, FMSE = "teacher-s0", "p0.3-bn-base-s0", "p0.3-bn-fmse-s0"
CELLS = [TEACHER, BASE, FMSE]
# In the teacher's epoch, at its end, among the students, and among them once more.
STOPS = (1, 3, 5, 4)


def run(
    plan: Plan,
    paths: Paths,
    keep_going: Callable[[], bool] = lambda: True,
    cells: list[Cell] | None = None,
    **more: Any,
) -> tuple[Summary, Told]:
    told = Told()
    return make_cells(plan, paths, CPU, told, keep_going, cells, **more), told


def cell(plan: Plan, name: str) -> Cell:
    (found,) = plan.named([name])
    return found


def trained(plan: Plan, paths: Paths, name: str) -> TrainRecord:
    record = load(record_path(paths.results, plan.profile, "train", name), TrainRecord)
    assert record.key == cell(plan, name).trained.key
    return record


def exported(plan: Plan, paths: Paths, name: str) -> ExportRecord:
    record = load(record_path(paths.results, plan.profile, "export", name), ExportRecord)
    assert record.key == cell(plan, name).spec.key
    return record


def stands(plan: Plan, paths: Paths) -> bool:
    """Whether every cell has a training and an export that stand."""
    chain = Chain(plan, paths.results)
    return all(chain.train(one).standing and chain.export(one).standing for one in plan.cells)


def folder(plan: Plan, paths: Paths, name: str) -> Path:
    return paths.folder(plan.profile, cell(plan, name))


def weights(plan: Plan, paths: Paths) -> dict[str, str]:
    return {one.id: file_sha256(paths.weights(plan.profile, one)) for one in plan.cells}


def stages(paths: Paths) -> list[Path]:
    return sorted((paths.artifacts / "quick" / "stages").iterdir())


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
    return paths, *run(plan, paths)


@pytest.fixture(scope="module")
def made(whole: tuple[Paths, Summary, Told]) -> Paths:
    return whole[0]


@pytest.fixture
def copied(made: Paths, tmp_path: Path) -> Paths:
    """The whole plan, made; the test's own to change."""
    shutil.copytree(made.results, tmp_path / "results")
    shutil.copytree(made.artifacts, tmp_path / "artifacts")
    return below(tmp_path)


# --- The whole plan --------------------------------------------------------------------------------------------------


def test_every_cell_is_made_and_reported(plan: Plan, whole: tuple[Paths, Summary, Told]) -> None:
    paths, summary, told = whole
    assert summary == Summary(CELLS, {}, True)
    assert told.cells == CELLS
    assert [stage.split()[0].strip(":,") for stage in told.stages] == ["teacher", "sparse", "pruning", "distillation"]
    assert [cell_state(paths, plan, one).training for one in plan.cells] == ["done"] * 3
    assert stands(plan, paths)


@pytest.mark.parametrize("name", CELLS)
def test_records_files_and_metadata_agree_by_their_hashes_and_keys(plan: Plan, made: Paths, name: str) -> None:
    train, export = trained(plan, made, name), exported(plan, made, name)
    files, spec = folder(plan, made, name), cell(plan, name).spec
    assert train.weights_sha256 == export.weights_sha256 == file_sha256(files / "weights.safetensors")
    assert export.onnx_sha256 == file_sha256(files / "model.onnx")
    said = {entry.key: entry.value for entry in onnx.load(files / "model.onnx").metadata_props}
    assert said["weights_sha256"] == train.weights_sha256
    assert (said["cell"], said["key"], said["title"]) == (name, spec.key, train.title)
    assert (said["data"], said["image_size"]) == ("stand_in", "16")
    assert json.loads(said["settings"]) == spec.document
    assert train.spec == cell(plan, name).trained.document and export.spec["parent"] == train.key
    assert train.code == code_of(cell(plan, name).trained) != {}


@pytest.mark.parametrize("name", CELLS)
def test_a_record_says_what_the_network_is(plan: Plan, made: Paths, name: str) -> None:
    record = trained(plan, made, name)
    model, metadata = load_weights(folder(plan, made, name) / "weights.safetensors")
    assert record.widths == widths_of(model)
    assert record.params == parameter_count(model)
    assert record.macs and record.accuracy_pct is not None and 0 <= record.accuracy_pct <= 100
    about = (metadata["cell"], metadata["key"], metadata["image_size"], metadata["dataset"])
    assert about == (name, record.key, 16, "stand_in")
    assert record.environment["precision"] == "fp32" and record.environment["harness_revision"]


def test_the_log_has_every_epoch_from_sparse_training_on(plan: Plan, made: Paths) -> None:
    logs = {name: [epoch.phase for epoch in trained(plan, made, name).epochs] for name in CELLS}
    assert logs == {TEACHER: ["teacher"], BASE: ["sparse", "base"], FMSE: ["sparse", "feature", "base"]}


def test_students_are_tested_after_every_epoch_of_their_own_and_last_as_the_model_that_is_kept(
    plan: Plan, made: Paths
) -> None:
    assert [epoch.test_accuracy_pct for epoch in trained(plan, made, TEACHER).epochs] == [None]
    for name in (BASE, FMSE):
        sparse, *own = [epoch.test_accuracy_pct for epoch in trained(plan, made, name).epochs]
        assert sparse is None and None not in own
        # trained in fp32 and at the size of the file, so it is the very same figure
        assert own[-1] == trained(plan, made, name).accuracy_pct


def test_the_answers_on_file_are_those_that_the_accuracy_counts(plan: Plan, made: Paths) -> None:
    with np.load(made.testset("quick", "stand_in")) as file:
        labels = file["labels"]
    for name in CELLS:
        given = np.load(folder(plan, made, name) / "answers.npy")
        assert trained(plan, made, name).answers_sha256 == file_sha256(folder(plan, made, name) / "answers.npy")
        assert 100 * (given == labels).mean() == pytest.approx(trained(plan, made, name).accuracy_pct)


def test_a_student_is_smaller_than_its_teacher_and_says_by_how_much(plan: Plan, made: Paths) -> None:
    teacher = trained(plan, made, TEACHER)
    assert teacher.pruning is None and teacher.widths == widths_of(network(spec=NETWORK))
    for name in (BASE, FMSE):
        student = trained(plan, made, name)
        assert student.pruning and student.params and teacher.params and student.params < teacher.params
        assert (student.pruning.params_before, student.pruning.params_after) == (teacher.params, student.params)
        assert (student.pruning.macs_before, student.pruning.macs_after) == (teacher.macs, student.macs)
        assert student.pruning.ranked_after < student.pruning.ranked_before <= student.pruning.channels_before
    kept = trained(plan, made, FMSE)
    assert kept.pruning and kept.widths and teacher.widths
    assert all(kept.widths[layer] == teacher.widths[layer] for layer in kept.pruning.kept_layers)


def test_nothing_temporary_is_left(plan: Plan, made: Paths) -> None:
    left = {path.name for path in made.artifacts.rglob("*") if path.is_file()}
    shared = {path.name for path in stages(made)}
    assert left - shared == {"weights.safetensors", "answers.npy", "model.onnx", "testset-stand_in.npz", ".lock"}
    assert sorted(name.split("-")[0] for name in shared) == ["pruned", "pruned", "sparse", "sparse"]
    assert not any("checkpoint" in name for name in left)


def test_the_bench_gets_its_test_images(plan: Plan, made: Paths) -> None:
    with np.load(made.testset("quick", "stand_in")) as file:
        assert file["images"].shape == (300, 32, 32, 3)


def test_groups_by_value_train_one_after_the_other_to_the_same_bits(plan: Plan, made: Paths, tmp_path: Path) -> None:
    document = plan.settings.model_dump()
    document["experiment"][0]["first"] = [{"kd_method": "fmse"}]
    ordered = make_plan(Settings.model_validate(document), "quick", "stand_in", ["prune-0.3"])
    paths = below(tmp_path)
    summary, told = run(ordered, paths, by_value=True)
    assert summary.made == [TEACHER, FMSE, BASE]
    assert len([stage for stage in told.stages if stage.startswith("distillation")]) == 2
    assert weights(ordered, paths) == weights(plan, made)


def test_stopped_in_the_first_group_the_second_is_not_begun(plan: Plan, copied: Paths) -> None:
    document = plan.settings.model_dump()
    document["experiment"][0]["first"] = [{"kd_method": "fmse"}]
    ordered = make_plan(Settings.model_validate(document), "quick", "stand_in", ["prune-0.3"])
    for name in (BASE, FMSE):
        shutil.rmtree(folder(plan, copied, name))
    stopped, told = run(ordered, copied, stop_after(3), by_value=True)
    assert not stopped.complete and told.cells == []
    assert not folder(plan, copied, BASE).exists() and (folder(plan, copied, FMSE) / "checkpoint.pt").is_file()


def test_a_student_names_the_teacher_that_it_comes_from(plan: Plan, made: Paths) -> None:
    teacher = trained(plan, made, TEACHER)
    assert teacher.teacher_sha256 is None
    assert {trained(plan, made, name).teacher_sha256 for name in (BASE, FMSE)} == {teacher.weights_sha256}


def test_a_second_call_finds_nothing_to_do(plan: Plan, copied: Paths) -> None:
    before = times(copied.artifacts.rglob("[a-z]*.*")) | times(copied.results.rglob("*.json"))
    summary, told = run(plan, copied)
    assert summary == Summary([], {}, True)
    assert (told.stages, told.cells, told.steps) == ([], [], 0)
    assert times(before) == before


@pytest.mark.parametrize("together", [1, 2])
def test_students_are_the_same_in_groups_of_any_size(plan: Plan, copied: Paths, made: Paths, together: int) -> None:
    for name in (BASE, FMSE):
        shutil.rmtree(folder(plan, copied, name))
    for stage in stages(copied):
        stage.unlink()
    summary, told = run(plan, copied, together=together)
    assert summary.made == [BASE, FMSE]
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

    monkeypatch.setattr(pipeline, "side_by_side", one_fits)
    for name in (BASE, FMSE):
        shutil.rmtree(folder(plan, copied, name))
    _, told = run(plan, copied)
    assert sum(stage.startswith("distillation") for stage in told.stages) == 2
    assert asked[0] == (NETWORK, 16, 50, CPU, 1.0)
    assert weights(plan, copied) == weights(plan, made)


# --- Part of it ------------------------------------------------------------------------------------------------------


def test_the_teacher_is_made_too_where_only_a_student_is_asked_for(tmp_path: Path) -> None:
    plan, paths = tiny_plan(tmp_path, ["l1"], ["base", "fmse"], **RESNET50), below(tmp_path)
    _, base, fmse = plan.cells
    summary, _ = run(plan, paths, cells=[fmse])
    assert summary.made == [TEACHER, fmse.id]
    assert cell_state(paths, plan, base).training == "missing"
    assert widths_of(load_weights(paths.weights("quick", plan.teacher))[0]) == widths_of(network())


def test_a_deleted_onnx_file_is_exported_again_and_nothing_else(plan: Plan, copied: Paths) -> None:
    (folder(plan, copied, FMSE) / "model.onnx").unlink()
    before = weights(plan, copied)
    summary, told = run(plan, copied)
    assert summary.made == [FMSE] and told.steps == 0
    assert weights(plan, copied) == before
    assert exported(plan, copied, FMSE).onnx_sha256 == file_sha256(folder(plan, copied, FMSE) / "model.onnx")


def test_another_opset_exports_everything_again_and_trains_nothing(plan: Plan, copied: Paths, tmp_path: Path) -> None:
    other = tiny_plan(tmp_path, ["bn"], ["base", "fmse"], export__opset=13)
    before = weights(plan, copied)
    summary, told = run(other, copied)
    assert summary.made == CELLS and told.steps == 0 and weights(other, copied) == before
    model = onnx.load(folder(other, copied, BASE) / "model.onnx")
    assert model.opset_import[0].version == 13 and stands(other, copied)


def test_deleted_weights_are_made_again_with_the_same_bits(plan: Plan, copied: Paths) -> None:
    before = weights(plan, copied)
    shutil.rmtree(folder(plan, copied, BASE))
    summary, _ = run(plan, copied)
    assert summary.made == [BASE]
    assert weights(plan, copied) == before


def test_another_learning_rate_for_students_makes_them_again_and_nothing_before_them(
    plan: Plan, copied: Paths, tmp_path: Path
) -> None:
    other = tiny_plan(tmp_path, ["bn"], ["base", "fmse"], profile__quick__student__lr=0.01)
    teacher = folder(plan, copied, TEACHER) / "weights.safetensors"
    kept = times([teacher, *stages(copied)])
    summary, told = run(other, copied)
    assert summary.made == told.cells == [BASE, FMSE]
    assert times([teacher, *stages(copied)]) == kept
    assert weights(other, copied)[BASE] != weights(plan, copied)[BASE]


def test_an_axis_of_the_recipe_makes_students_that_differ_in_it(plan: Plan, copied: Paths, tmp_path: Path) -> None:
    """Students whose batches differ do not train side by side, but share what they start from."""
    other = tiny_plan(tmp_path, ["bn"], ["base"], experiment__0__student={"batch_size": [25, 50], "lr": [0.01, 0.02]})
    before = stages(copied)
    summary, told = run(other, copied)
    assert not summary.failed and len(summary.made) == 4 and stages(copied) == before
    assert sum(stage.startswith("distillation") for stage in told.stages) == 2
    assert len({weights(other, copied)[one.id] for one in other.cells}) == 5
    assert {trained(other, copied, one.id).spec["recipe"]["batch_size"] for one in other.cells[1:]} == {25, 50}


def test_controlled_students_start_from_one_pruned_network(plan: Plan, copied: Paths, tmp_path: Path) -> None:
    controlled = tiny_plan(tmp_path, ["l1"], ["none", "scratch", "base", "gram", "logit_std"], "controlled")
    before = set(stages(copied))
    summary, _ = run(controlled, copied)
    assert not summary.failed and len(summary.made) == 5
    new = sorted(path.name.split("-")[0] for path in set(stages(copied)) - before)
    assert new == ["pruned", "sparse"]
    records = [trained(controlled, copied, one.id) for one in controlled.cells if not one.is_teacher]
    assert len({json.dumps(record.widths) for record in records}) == 1
    assert len({record.pruning.model_dump_json() for record in records if record.pruning}) == 1
    phases = {record.cell.split("-")[2]: [epoch.phase for epoch in record.epochs] for record in records}
    names = {"none": "labels", "scratch": "labels", "base": "joint", "gram": "joint", "logit_std": "logits"}
    assert phases == {kd: ["sparse", name, name] for kd, name in names.items()}
    models = [load_weights(folder(controlled, copied, record.cell) / "weights.safetensors")[0] for record in records]
    assert not any(same_weights(one, other) for one, other in combinations(models, 2))


def test_a_student_from_scratch_starts_from_new_weights_in_the_pruned_shape(
    plan: Plan, copied: Paths, tmp_path: Path
) -> None:
    still = tiny_plan(tmp_path, ["bn"], ["scratch", "none"], profile__quick__student__lr=1e-12)
    run(still, copied)
    scratch, none = (load_weights(copied.weights("quick", one))[0] for one in still.cells[1:])
    assert widths_of(scratch) == widths_of(none)
    difference = (scratch.get_parameter("conv1.weight") - none.get_parameter("conv1.weight")).abs().max()
    assert difference > 0.01


# --- What an intermediate was made from ------------------------------------------------------------------------------


def replace_teacher(plan: Plan, paths: Paths) -> None:
    """Another teacher under the same key, as `merge --replace` brings it: weights and record."""
    path = paths.weights(plan.profile, plan.teacher)
    model, metadata = load_weights(path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_weights(path, model, metadata)
    record = trained(plan, paths, TEACHER)
    save(paths.results, record.model_copy(update={"weights_sha256": file_sha256(path)}))
    (paths.model_file(plan.profile, plan.teacher)).unlink()


def test_after_the_teacher_was_replaced_nothing_of_the_old_one_is_used(plan: Plan, copied: Paths) -> None:
    old, old_stages = weights(plan, copied), {path: file_sha256(path) for path in stages(copied)}
    replace_teacher(plan, copied)
    assert cell_state(copied, plan, cell(plan, BASE)).training == "missing"
    summary, _ = run(plan, copied)
    assert sorted(summary.made) == sorted(CELLS) and stands(plan, copied)
    new = weights(plan, copied)
    assert all(new[name] != old[name] for name in CELLS)
    assert all(file_sha256(path) != before for path, before in old_stages.items())
    assert {trained(plan, copied, name).teacher_sha256 for name in (BASE, FMSE)} == {new[TEACHER]}
    # a network made from scratch from the new teacher is no other one
    for path in stages(copied):
        path.unlink()
    for name in (BASE, FMSE):
        shutil.rmtree(folder(plan, copied, name))
    run(plan, copied)
    assert weights(plan, copied) == new


def test_a_students_checkpoint_of_another_teacher_is_not_resumed(plan: Plan, copied: Paths, tmp_path: Path) -> None:
    for name in (BASE, FMSE):
        shutil.rmtree(folder(plan, copied, name))
    run(plan, copied, stop_after(3))
    checkpoint = folder(plan, copied, BASE) / "checkpoint.pt"
    origin = torch.load(checkpoint, weights_only=True)["origin"]
    spec = cell(plan, BASE).student
    assert origin["key"] == spec.key and origin["teacher_sha256"] == trained(plan, copied, TEACHER).weights_sha256
    assert {name: origin[name] for name in code_of(spec)} == code_of(spec)
    assert origin["pruned_sha256"] in {file_sha256(path) for path in stages(copied)}
    replace_teacher(plan, copied)
    summary, told = run(plan, copied)
    assert sorted(summary.made) == sorted(CELLS) and stands(plan, copied)
    assert told.epochs.count((BASE, 1, 1)) == 1 and told.steps == 4 + 4 + 4


def test_weights_that_are_not_those_on_the_teachers_record_are_refused(plan: Plan, copied: Paths) -> None:
    path = copied.weights("quick", plan.teacher)
    model, metadata = load_weights(path)
    save_weights(path, model, {**metadata, "changed": True})
    shutil.rmtree(folder(plan, copied, BASE))
    with pytest.raises(
        HarnessError, match=rf"{path}: is not the file that teacher-s0's record is of.*--redo teacher-s0"
    ):
        run(plan, copied)
    summary, _ = run(plan, copied, cells=[plan.teacher, cell(plan, BASE)], redo=[TEACHER])
    assert summary.made == [TEACHER, BASE] and stands(plan, copied)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("sparse", "parent_sha256"),
        ("sparse", "criterion bn"),
        ("pruned", "key"),
        ("pruned", "parent_sha256"),
        ("pruned", "criterion bn"),
        ("pruned", "none"),
        ("pruned", "torn"),
    ],
)
def test_a_stage_file_of_another_origin_is_made_again(
    plan: Plan, copied: Paths, made: Paths, kind: str, damage: str
) -> None:
    shutil.rmtree(folder(plan, copied, BASE))
    stage = next(one for one in cell(plan, BASE).spec.lineage if one.kind == kind)
    assert isinstance(stage, Sparse | Pruned)
    path = copied.artifacts / "quick" / "stages" / f"{kind}-{stage.key.partition('-')[2]}.safetensors"
    model, metadata = load_weights(path)
    assert metadata["origin"]["key"] == stage.key and metadata["origin"].items() >= code_of(stage).items()
    parent = stage.parent.kind
    assert metadata["origin"]["parent_sha256"] in (
        [weights(plan, made)[TEACHER]] if parent == "teacher" else [file_sha256(p) for p in stages(made)]
    )
    # a network that nobody trained, under a name that is right
    with torch.no_grad():
        model.get_parameter("conv1.weight").zero_()
    origin = None if damage == "none" else {**metadata["origin"], damage: "0"}
    save_weights(path, model, {**metadata, "origin": origin})
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:500])
    summary, told = run(plan, copied)
    assert summary.made == [BASE]
    assert any(stage.startswith("sparse") for stage in told.stages) == (kind == "sparse")
    assert weights(plan, copied) == weights(plan, made)
    assert read_metadata(path)["origin"] == metadata["origin"]


def test_what_stands_is_used_as_it_is(plan: Plan, copied: Paths, made: Paths) -> None:
    shutil.rmtree(folder(plan, copied, BASE))
    before = times(stages(copied))
    run(plan, copied)
    assert times(stages(copied)) == before and weights(plan, copied) == weights(plan, made)


# --- Made again on demand --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [BASE, TEACHER])
def test_a_cell_is_made_again_from_its_beginning_to_the_same_bits(
    plan: Plan, copied: Paths, made: Paths, name: str
) -> None:
    before = trained(plan, copied, name)
    # what a cell must not be resumed from: a checkpoint of its own that is one step from its end
    leftover = folder(plan, copied, name) / "checkpoint.pt"
    leftover.write_bytes(b"left over")
    summary, told = run(plan, copied, cells=[cell(plan, name)], redo=[name])
    assert summary.made == [name] == told.cells and told.steps == 4
    assert weights(plan, copied) == weights(plan, made) and stands(plan, copied)
    assert trained(plan, copied, name).epochs[-1].loss == before.epochs[-1].loss
    assert not leftover.exists()


def test_a_checkpoint_left_by_a_stopped_run_is_not_what_a_cell_is_made_again_from(
    plan: Plan, copied: Paths, made: Paths
) -> None:
    stopped, told = run(plan, copied, stop_after(2), cells=[cell(plan, BASE)], redo=[BASE])
    assert not stopped.complete and told.steps == 2
    assert (folder(plan, copied, BASE) / "checkpoint.pt").is_file()
    summary, told = run(plan, copied, cells=[cell(plan, BASE)], redo=[BASE])
    assert summary.made == [BASE] and told.steps == 4
    assert weights(plan, copied) == weights(plan, made)


def test_a_finished_cell_leaves_no_checkpoint_that_could_become_its_result(
    plan: Plan, copied: Paths, made: Paths
) -> None:
    """Stopped when one student has ended, its record and weights deleted: it is trained, not taken from a leftover."""
    for name in (BASE, FMSE):
        shutil.rmtree(folder(plan, copied, name))
    stopped, told = run(plan, copied, stop_after(6))
    assert told.cells == [BASE] and not stopped.complete
    assert not (folder(plan, copied, BASE) / "checkpoint.pt").exists()
    (folder(plan, copied, BASE) / "weights.safetensors").unlink()
    record_path(copied.results, "quick", "train", BASE).unlink()
    summary, told = run(plan, copied)
    assert (BASE, 1, 1) in told.epochs and sorted(summary.made) == [BASE, FMSE]
    assert weights(plan, copied) == weights(plan, made)


# --- What goes wrong -------------------------------------------------------------------------------------------------


def sick_phases(setup: Setup) -> list[Phase]:
    def loss(student: Any, _: Any, __: Tensor) -> Tensor:
        return student.logits.sum() * math.nan

    return [Phase("feature", 1, loss)]


def test_a_cell_that_diverges_is_on_record_and_the_others_are_unaffected(
    plan: Plan, copied: Paths, made: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (BASE, FMSE):
        shutil.rmtree(folder(plan, copied, name))
    with monkeypatch.context() as patch:
        patch.setattr(fmse, "METHOD", Method(sick_phases, fmse.kept))
        summary, _ = run(plan, copied)
    failure = trained(plan, copied, FMSE).failure
    assert failure and failure.kind == "diverged"
    assert summary == Summary([BASE], {FMSE: failure.message}, True)
    assert cell_state(copied, plan, cell(plan, FMSE)).reason == failure.message
    assert not (folder(plan, copied, FMSE) / "weights.safetensors").exists()
    assert not (folder(plan, copied, FMSE) / "checkpoint.pt").exists()
    again, _ = run(plan, copied)
    assert again == Summary([FMSE], {}, True)
    assert weights(plan, copied) == weights(plan, made)


def test_a_method_that_raises_before_training_fails_alone(
    plan: Plan, copied: Paths, made: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(setup: Setup) -> list[Phase]:
        raise ZeroDivisionError("no phases")

    for name in (BASE, FMSE):
        shutil.rmtree(folder(plan, copied, name))
    monkeypatch.setattr(fmse, "METHOD", Method(faulty, fmse.kept))
    summary, _ = run(plan, copied)
    assert summary.made == [BASE] and "ZeroDivisionError: no phases" in summary.failed[FMSE]
    assert "in faulty" in (folder(plan, copied, FMSE) / "failure.txt").read_text()


def test_a_teacher_that_diverges_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, ["bn"], ["base"], profile__quick__teacher__lr=1e30)
    summary, told = run(plan, below(tmp_path))
    assert list(summary.failed) == [TEACHER] and "lr" in summary.failed[TEACHER]
    assert summary.made == [] and told.cells == [TEACHER] and summary.complete


def test_where_sparse_training_diverges_its_students_fail_and_others_do_not(copied: Paths, tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, ["l1", "bn"], ["base"], profile__quick__pruning__sparse__lr=1e30)
    summary, _ = run(plan, copied)
    assert summary.complete and summary.made == ["p0.3-l1-base-s0"]
    assert "sparse training failed" in summary.failed[BASE] and "loss is" in summary.failed[BASE]
    assert trained(plan, copied, BASE).failure


def test_a_criterion_whose_regulariser_raises_fails_alone(
    copied: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: Any) -> None:
        raise ZeroDivisionError("no regulariser")

    monkeypatch.setattr(pipeline, "regulariser", faulty)
    plan = tiny_plan(tmp_path, ["l1", "gn"], ["base"])
    summary, _ = run(plan, copied)
    assert summary.complete and summary.made == ["p0.3-l1-base-s0"]
    assert "ZeroDivisionError: no regulariser" in summary.failed["p0.3-gn-base-s0"]


def test_where_nothing_can_be_pruned_the_cell_says_so(copied: Paths, tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, ["l1"], ["base"], pruning__round_to=512)
    summary, _ = run(plan, copied)
    (reason,) = summary.failed.values()
    assert "removed nothing" in reason and summary.complete


def test_a_model_that_fails_the_parity_gate_is_a_failed_cell(
    plan: Plan, copied: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise HarnessError("parity gate: differs")

    (folder(plan, copied, BASE) / "model.onnx").unlink()
    monkeypatch.setattr(finishing, "export", refuse)
    summary, _ = run(plan, copied, cells=[cell(plan, BASE)])
    failure = exported(plan, copied, BASE).failure
    assert failure and failure.kind == "parity"
    assert summary.failed == {BASE: "parity gate: differs"}
    monkeypatch.undo()
    again, reporter = run(plan, copied, cells=[cell(plan, BASE)])
    assert again.made == [BASE] and not reporter.stages, "a failed export costs no second training"


def test_a_fault_of_the_exporter_itself_leaves_its_traceback(
    plan: Plan, copied: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise TypeError("out of order")

    (folder(plan, copied, BASE) / "model.onnx").unlink()
    monkeypatch.setattr(finishing, "export", crash)
    summary, _ = run(plan, copied, cells=[cell(plan, BASE)])
    assert "TypeError: out of order" in summary.failed[BASE] and summary.complete
    assert "in crash" in (folder(plan, copied, BASE) / "failure.txt").read_text()
    assert str(copied.artifacts) not in summary.failed[BASE]


def test_two_runs_of_one_profile_do_not_meet(plan: Plan, copied: Paths) -> None:
    with (
        alone(copied, "quick"),
        pytest.raises(HarnessError, match=r"another run is training, measuring, merging or unpacking profile quick"),
    ):
        run(plan, copied)
    assert run(plan, copied)[0].complete


def test_a_folder_that_cannot_be_written_to_is_named(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file")
    with pytest.raises(HarnessError, match=rf"{tmp_path}/artifacts.*writable"):
        run(plan, below(tmp_path))


# --- Resuming --------------------------------------------------------------------------------------------------------


def test_stopped_again_and_again_it_ends_with_the_same_bits_in_as_many_steps(
    plan: Plan, whole: tuple[Paths, Summary, Told], tmp_path: Path
) -> None:
    paths = below(tmp_path)
    taken = 0
    for steps in STOPS:
        summary, told = run(plan, paths, stop_after(steps))
        assert not summary.complete and not summary.failed
        taken += told.steps
    summary, told = run(plan, paths)
    assert summary.complete and taken + told.steps == whole[2].steps
    assert weights(plan, paths) == weights(plan, whole[0])
    assert figures(plan, paths) == figures(plan, whole[0])
    assert [epoch.phase for epoch in trained(plan, paths, FMSE).epochs] == ["sparse", "feature", "base"]


# --- Streams and sizes -----------------------------------------------------------------------------------------------


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[Stream]:
    """The streams that are trained on."""
    seen: list[Stream] = []
    train = pipeline.train  # type: ignore[attr-defined]

    def remember(learners: Any, stream: Stream, *about: Any, **more: Any) -> bool:
        seen.append(stream)
        return train(learners, stream, *about, **more)

    monkeypatch.setattr(pipeline, "train", remember)
    return seen


def test_teacher_sparse_training_and_students_see_batches_of_their_own(
    plan: Plan, tmp_path: Path, streams: list[Stream]
) -> None:
    run(plan, below(tmp_path))
    assert [stream.stage for stream in streams] == ["teacher", "sparse", "student"]
    assert {(stream.seed, stream.batch_size) for stream in streams} == {(0, 50)}
    labels = [next(stream.batches(0))[1].tolist() for stream in streams]
    assert labels[0] != labels[1] != labels[2] != labels[0]


def calibrated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many images, and of what size, each calibration saw."""
    seen: list[tuple[int, int]] = []

    def remember(model: nn.Module, images: Tensor, batch_size: int, prepare: Callable[[Tensor], Tensor]) -> None:
        seen.append((len(images), prepare(images[:2]).shape[-1]))
        calibration.calibrate(model, images, batch_size, prepare)

    monkeypatch.setattr(pipeline, "calibrate", remember)
    return seen


@pytest.mark.parametrize(
    ("teacher", "student", "final"), [([8, 16], [8, 16], 0), ([16, 8], [16], 1), ([16], [16, 8], 1)]
)
def test_statistics_are_calibrated_at_the_end_only_where_the_last_size_is_not_the_exported_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: list[int], student: list[int], final: int
) -> None:
    changes: dict[str, Any] = {
        "profile__quick__teacher__image_sizes": teacher,
        "profile__quick__teacher__epochs": 2,
        "profile__quick__student__image_sizes": student,
        "profile__quick__student__epochs": 2,
        "profile__quick__data__train_images": 100,
        "pruning__calibration": {"images": 60, "batch_size": 50},
    }
    plan, paths, seen = tiny_plan(tmp_path, ["l1"], ["base"], **changes), below(tmp_path), calibrated(monkeypatch)
    summary, _ = run(plan, paths)
    assert not summary.failed and stands(plan, paths)
    assert seen == [(60, 16)] * (1 + final), "once after pruning, and where it is needed at the end"
    assert load_weights(paths.weights("quick", plan.teacher))[1]["image_size"] == 16


def test_a_phase_that_ends_in_the_midst_of_the_schedule_is_calibrated_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three epochs of a schedule of two: the last one is the first of the schedule once more."""

    def three(setup: Setup) -> list[Phase]:
        return [replace(phase, epochs=3) for phase in fmse.phases(setup)[1:]]

    monkeypatch.setattr(fmse, "METHOD", Method(three, fmse.kept))
    changes: dict[str, Any] = {
        "profile__quick__student__image_sizes": [8, 16],
        "profile__quick__student__epochs": 2,
        "profile__quick__data__train_images": 100,
    }
    plan, seen = tiny_plan(tmp_path, ["l1"], ["fmse", "base"], **changes), calibrated(monkeypatch)
    summary, _ = run(plan, below(tmp_path))
    assert not summary.failed and len(seen) == 2 + 1


def test_a_pruning_criterion_gets_labelled_batches_without_augmentation(plan: Plan, copied: Paths) -> None:
    maker = Maker(plan, copied, CPU, Told(), lambda: True)
    one, again, other = (list(maker._labelled(seed)) for seed in (0, 0, 1))
    assert [len(labels) for _, labels in one] == [64, 64, 64, 8]
    assert one[0][0].shape == (64, 3, 16, 16) and one[0][0].dtype == torch.float32 and one[0][1].dtype == torch.int64
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0][1], other[0][1])
    assert sorted(torch.cat([labels for _, labels in one]).tolist()) == sorted(maker.train_images.labels.tolist())


# --- A teacher from elsewhere ----------------------------------------------------------------------------------------


def given(folder: Path, model: nn.Module, **metadata: Any) -> Plan:
    save_weights(folder / "given.safetensors", model, metadata)
    checkpoint = str(folder / "given.safetensors")
    return tiny_plan(folder, ["l1"], ["base"], profile__quick__teacher__checkpoint=checkpoint, **RESNET50)


def test_a_given_teacher_is_used_as_it_is(tmp_path: Path) -> None:
    plan, paths = given(tmp_path, network(5), image_size=16), below(tmp_path)
    summary, _ = run(plan, paths, cells=[plan.teacher])
    assert summary.made == [TEACHER] and trained(plan, paths, TEACHER).epochs == []
    model, _ = load_weights(folder(plan, paths, TEACHER) / "weights.safetensors")
    assert same_weights(model, network(5))


def test_a_given_teacher_from_another_trainer_is_recognised(tmp_path: Path) -> None:
    torch.save({"net": {f"module.{name}": value for name, value in network(5).state_dict().items()}}, tmp_path / "w.pt")
    checkpoint = str(tmp_path / "w.pt")
    plan = tiny_plan(tmp_path, ["l1"], ["base"], profile__quick__teacher__checkpoint=checkpoint, **RESNET50)
    summary, _ = run(plan, below(tmp_path), cells=[plan.teacher])
    assert summary.made == [TEACHER]


@pytest.mark.parametrize(
    "other",
    [
        lambda: network(pruned=True),
        lambda: network(spec=thin(stem="imagenet")),
        lambda: network(spec=thin(width=0.125)),
        lambda: network(spec=thin("resnet18")),
        lambda: build(Network(Choice("resnet50"), 10, WIDTH, "cifar")),
    ],
    ids=["pruned", "stem", "width", "architecture", "classes"],
)
def test_a_given_teacher_of_another_network_is_refused(tmp_path: Path, other: Callable[[], nn.Module]) -> None:
    said = (
        r"given\.safetensors: another network \(.*\) than \[model\] asks for .*100 classes, width 0\.0625, stem cifar"
    )
    with pytest.raises(HarnessError, match=said):
        run(given(tmp_path, other()), below(tmp_path))


def test_a_given_teacher_for_another_size_of_images_is_refused_and_both_are_named(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"given\.safetensors: is for images of 32 px, and data\.image_size is 16"):
        run(given(tmp_path, network(5), image_size=32), below(tmp_path))
