"""One new file a kind, put to use by matrix.toml alone, and walked to model files with records that stand."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from harness.architectures import architecture_of
from harness.files import file_sha256
from harness.model_files.weights import load_weights
from harness.plan.planning import kd_label
from harness.plan.registry import Kind, find
from harness.store.chain import Chain
from harness.store.records import TrainRecord, load, record_path
from harness.training.pipeline import make_cells
from tests import drop_in
from tests.documents import ROOT
from tests.drop_in import ARCHITECTURE, CRITERION, DATASET, KINDS, METHOD, DropIn, Made, imported, make, plan_of, walk
from tests.training_kit import CPU, Told, below, same_weights, stop_after

pytestmark = pytest.mark.usefixtures("few_images")


def record(made: Made, cell: str) -> TrainRecord:
    return load(record_path(made.paths.results, "quick", "train", cell), TrainRecord)


@pytest.mark.parametrize("kind", KINDS)
def test_an_addition_takes_one_file_and_ends_in_records_that_stand(kind: Kind, tmp_path: Path) -> None:
    assert walk(kind, tmp_path) == 1


@pytest.fixture(scope="module")
def architecture(tmp_path_factory: pytest.TempPathFactory, few_images: None) -> Made:
    return make(ARCHITECTURE, tmp_path_factory.mktemp("architecture"))


def test_a_network_shows_its_title_and_is_pruned_distilled_and_exported(architecture: Made) -> None:
    plan, paths = architecture.plan, architecture.paths
    assert plan.teacher.title == "Small" and len(architecture.summary.made) == 5
    with imported(paths.results.parent):
        assert architecture_of(plan.teacher.teacher.network).classifier == "head"
        for cell in plan.cells[1:]:
            student = record(architecture, cell.id)
            assert student.pruning and student.pruning.params_after < student.pruning.params_before
            assert student.pruning.ranked_after < student.pruning.ranked_before
            model, _ = load_weights(paths.weights("quick", cell))
            assert model.get_parameter("depthwise.weight").shape[0] == model.get_parameter("stem.weight").shape[0] < 16
            graph = onnx.load(paths.model_file("quick", cell))
            assert "LayerNormalization" in {node.op_type for node in graph.graph.node}


def test_a_criterion_with_gradients_has_its_parameter_as_an_axis(tmp_path: Path) -> None:
    made = make(CRITERION, tmp_path)
    assert sorted(made.summary.made) == sorted(cell.id for cell in made.plan.cells) and len(made.plan.cells) == 4
    few, many = (cell for cell in made.plan.cells if cell.prune_method == CRITERION.name)
    assert [cell.point[f"criterion.{CRITERION.name}.batches"] for cell in (few, many)] == [1, 2]
    assert "TAYLOR" in few.title and few.id != many.id
    with imported(tmp_path):
        assert find("criterion", CRITERION.name).title == "Taylor"
        pruned = [load_weights(made.paths.weights("quick", cell))[0] for cell in (few, many)]
    assert not same_weights(*pruned)
    assert few.student.start.seed == 0 and record(made, few.id).pruning
    assert f"criterion {CRITERION.name}" in record(made, few.id).code


def test_a_data_set_brings_its_classes_and_statistics(tmp_path: Path) -> None:
    made = make(DATASET, tmp_path)
    with imported(tmp_path):
        assert find("dataset", DATASET.name).title == "stripes"
        model, metadata = load_weights(made.paths.weights("quick", made.plan.teacher))
        assert made.paths.testset("quick", DATASET.name).name == "testset-stripes.npz"
    assert model.get_parameter("fc.weight").shape[0] == 4 and metadata["dataset"] == DATASET.name
    graph = onnx.load(made.paths.model_file("quick", made.plan.teacher))
    said = {entry.key: entry.value for entry in graph.metadata_props}
    assert said["mean"] == "[0.3, 0.3, 0.3]" and said["data"] == DATASET.name


# --- A method with modules of its own --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory, few_images: None) -> Made:
    return make(METHOD, tmp_path_factory.mktemp("method"))


def test_a_method_declares_its_own_phases_and_has_its_parameter_as_an_axis(method: Made) -> None:
    plan = method.plan
    hints = [cell for cell in plan.cells if cell.kd_method == METHOD.name]
    assert [cell.point[f"method.{METHOD.name}.weight"] for cell in hints] == [0.1, 0.5] and len(plan.cells) == 4
    with imported(method.paths.results.parent):
        assert kd_label(METHOD.name) == "Hint"
    for cell in hints:
        assert [epoch.phase for epoch in record(method, cell.id).epochs] == ["hint", "labels"]
    assert len({record(method, cell.id).weights_sha256 for cell in hints}) == 2


def test_its_regressor_is_no_part_of_the_exported_model(method: Made) -> None:
    with imported(method.paths.results.parent):
        for cell in method.plan.cells:
            model, _ = load_weights(method.paths.weights("quick", cell))
            assert not any("regressor" in name for name in model.state_dict())
            graph = onnx.load(method.paths.model_file("quick", cell)).graph
            assert not any("regressor" in tensor.name for tensor in graph.initializer)
            convolutions = sum(node.op_type == "Conv" for node in graph.node)
            assert convolutions == sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())


def test_its_regressor_is_checkpointed_and_resumed_to_the_same_bits(method: Made, tmp_path: Path) -> None:
    """Stopped after the teacher's four steps and five of the students', in their second epoch."""
    with imported(method.paths.results.parent):
        paths = below(tmp_path)
        stopped = make_cells(method.plan, paths, CPU, Told(), stop_after(9))
        assert not stopped.complete and not stopped.failed
        hint = next(cell for cell in method.plan.cells if cell.kd_method == METHOD.name)
        state = torch.load(paths.folder("quick", hint) / "checkpoint.pt", weights_only=True)
        assert set(state["modules"]) == {"regressor.weight", "regressor.bias"}
        assert make_cells(method.plan, paths, CPU, Told()).complete
        for cell in method.plan.cells:
            assert file_sha256(paths.weights("quick", cell)) == file_sha256(method.paths.weights("quick", cell))


# --- Edited code -----------------------------------------------------------------------------------------------------


def edited(added: DropIn, before: str, after: str) -> DropIn:
    assert before in added.source
    return replace(added, source=added.source.replace(before, after))


def test_a_network_pruned_by_code_that_was_edited_since_is_made_again(tmp_path: Path) -> None:
    plain = replace(CRITERION, criteria=(CRITERION.name,), settings={})
    made = make(plain, tmp_path)
    (cell,) = made.plan.cells[1:]
    first = file_sha256(made.paths.weights("quick", cell))
    (stage,) = (made.paths.artifacts / "quick" / "stages").iterdir()
    pruned = file_sha256(stage)
    edited(plain, 'normalizer="mean"', 'normalizer="max"').write(tmp_path)
    with imported(tmp_path):
        plan = plan_of(plain, tmp_path)
        assert plan.cells[1].trained.key == cell.trained.key, "the code is on record, not in the key"
        changed = Chain(plan, made.paths.results).train(plan.cells[1])
        assert changed.standing and changed.changed == (f"criterion {CRITERION.name}",)
        record_path(made.paths.results, "quick", "train", cell.id).unlink()
        assert make_cells(plan, made.paths, CPU, Told()).made == [cell.id]
        assert Chain(plan, made.paths.results).train(plan.cells[1]).changed == ()
    assert file_sha256(stage) != pruned and file_sha256(made.paths.weights("quick", cell)) != first


def test_a_checkpoint_of_a_method_whose_code_was_edited_since_is_not_resumed(tmp_path: Path) -> None:
    plain = replace(METHOD, methods=(METHOD.name,), settings={})
    plain.write(tmp_path)
    paths = below(tmp_path)
    with imported(tmp_path):
        plan = plan_of(plain, tmp_path)
        assert not make_cells(plan, paths, CPU, Told(), stop_after(7)).complete
    edited(plain, "* F.mse_loss", "* 10 * F.mse_loss").write(tmp_path)
    with imported(tmp_path):
        told = Told()
        assert make_cells(plan, paths, CPU, told).complete
        (cell,) = plan.cells[1:]
        assert told.epochs[0] == (cell.id, 1, 2) and told.steps == 8, "the student starts at its beginning"


# --- In the package --------------------------------------------------------------------------------------------------

FOLDERS: dict[Kind, str] = {
    "architecture": "harness/architectures",
    "dataset": "harness/datasets",
    "criterion": "harness/compression/pruning",
    "method": "harness/compression/distillation",
}
SCRIPT = """
import sys
from pathlib import Path
from harness.plan import registry
from harness.plan.planning import make_plan
from harness.store.states import states
from harness.training.pipeline import make_cells
from tests.training_kit import CPU, Told, below, tiny_settings

for kind in ("architecture", "dataset", "criterion", "method"):
    assert "added" in registry.names(kind), kind
folder = Path(sys.argv[1])
settings = tiny_settings(folder, ["added"], ["added"], **{
    "profile__quick__model__architecture": "added", "profile__quick__model__width": 1.0,
    "profile__quick__data": {"dataset": "added", "train_images": 100, "image_size": 8}, "pruning__round_to": 2,
})
plan = make_plan(settings, "quick", None, ["prune-0.3"])
summary = make_cells(plan, below(folder), CPU, Told())
assert summary.complete and not summary.failed, summary
assert [state.training for state in states(below(folder), plan)] == ["done", "done"]
print(*summary.made)
"""


def test_files_dropped_into_the_packages_folders_are_plug_ins_by_their_names(tmp_path: Path) -> None:
    """All four kinds at once, in a copy of the package; the method reads no features, since the network has no taps."""
    checkout = tmp_path / "checkout"
    for folder in ("harness", "tests"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "matrix.toml", checkout)
    without_hints = "def by_labels(setup):\n    return [Phase('labels', setup.epochs, cross_entropy)]\n"
    sources = {
        kind: added.source.replace(f"\n{added.attribute} = ", f"\n{kind.upper()} = ") for kind, added in KINDS.items()
    }
    sources["method"] = sources["method"].replace("\n\nMETHOD = Method(phases, modules=modules)", without_hints)
    sources["method"] += "\nMETHOD = Method(by_labels)\n"
    for kind, folder in FOLDERS.items():
        (checkout / folder / "added.py").write_text(sources[kind])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run")], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["teacher-s0", "p0.3-added-added-s0"]


def test_the_helper_says_when_a_model_was_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(METHOD, source=METHOD.source.replace("return [taught(", "return 1 / 0 or [taught("))
    monkeypatch.setattr(drop_in, "KINDS", {"method": broken})
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        walk("method", tmp_path)
