import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.architectures.resnet import load_weights, save_weights
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.planning import Cell, DataName, Plan
from harness.store.chain import cell_state
from harness.store.paths import Paths, answers_file
from harness.store.records import ExportRecord, TrainRecord, load, record_path, save
from harness.training import data
from harness.training.data import Images, draw_stand_in
from harness.training.loop import answers
from harness.training.pipeline import make_cells
from harness.transfer.half_precision import judged, pack_half
from harness.transfer.manifest import MANIFEST, Manifest, manifests, read_manifest
from harness.transfer.merging import merge
from harness.transfer.packing import MIB, chosen, pack, size_mib, unpack
from tests.training_kit import CPU, Told, below, tiny_plan

TEACHER, STUDENT = "teacher-s0", "p0.3-l1-base-s0"
# So small that these small networks come in several parts.
PART_MIB = 0.1


@pytest.fixture(scope="module", autouse=True)
def few_images() -> Iterator[None]:
    sets = {True: draw_stand_in(200, seed=1), False: draw_stand_in(300, seed=2)}

    def few(name: DataName, root: Path, train: bool) -> Images:
        return sets[train]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", few)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return tiny_plan(tmp_path_factory.mktemp("matrix"), ["l1"], ["base"])


@pytest.fixture(scope="module")
def made(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """The machine that trained: a teacher and a student. For reading only."""
    paths = below(tmp_path_factory.mktemp("there"))
    assert make_cells(plan, paths, CPU, Told()).made == [TEACHER, STUDENT]
    return paths


@pytest.fixture
def there(made: Paths, tmp_path: Path) -> Paths:
    """The machine that trained, the test's own to change."""
    for folder in (made.results, made.artifacts):
        shutil.copytree(folder, tmp_path / "there" / folder.name)
    return below(tmp_path / "there")


@pytest.fixture
def here(plan: Plan, made: Paths, tmp_path: Path) -> Paths:
    """The machine that is to measure: it has the records, and nothing else."""
    paths = below(tmp_path / "here")
    assert not merge(plan, paths, [made.results / "quick"]).left
    return paths


def cell(plan: Plan, name: str = STUDENT) -> Cell:
    return next(found for found in plan.cells if found.id == name)


def weights(plan: Plan, paths: Paths, name: str = STUDENT) -> Path:
    return cell(plan, name).artifacts(paths.artifacts, plan.profile) / "weights.safetensors"


def record(plan: Plan, paths: Paths, name: str = STUDENT) -> TrainRecord:
    return load(record_path(paths.results, plan.profile, "train", name), TrainRecord)


def training(plan: Plan, paths: Paths, name: str = STUDENT) -> str:
    return cell_state(paths, plan, cell(plan, name)).training


# --- There and back --------------------------------------------------------------------------------------------------


def test_a_pack_is_parts_below_the_limit_and_a_manifest_of_their_hashes(
    plan: Plan, made: Paths, tmp_path: Path
) -> None:
    folder = pack(plan, made, cell(plan), tmp_path, PART_MIB)
    manifest = read_manifest(folder / MANIFEST)
    assert (manifest.cell, manifest.key, manifest.dtype) == (STUDENT, cell(plan).key, "float32")
    assert manifest.weights_sha256 == record(plan, made).weights_sha256
    assert [file.name for file in manifest.files] == ["weights.safetensors", "answers.npy"]
    assert len(manifest.files[0].parts) > 2
    for file in manifest.files:
        for part in file.parts:
            assert (folder / part.name).stat().st_size == part.bytes <= PART_MIB * MIB
            assert file_sha256(folder / part.name) == part.sha256
        assert sum(part.bytes for part in file.parts) == file.bytes
    assert {path.name for path in folder.iterdir()} == {
        MANIFEST,
        *(part.name for file in manifest.files for part in file.parts),
    }
    assert size_mib(folder) * MIB > manifest.files[0].bytes
    assert [path for path in folder.parent.iterdir() if path != folder] == []


def test_packing_again_leaves_a_whole_pack_alone_and_mends_a_damaged_one(
    plan: Plan, made: Paths, tmp_path: Path
) -> None:
    folder = pack(plan, made, cell(plan), tmp_path, PART_MIB)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert pack(plan, made, cell(plan), tmp_path, PART_MIB) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (folder / "weights.safetensors.001").write_bytes(b"torn")
    pack(plan, made, cell(plan), tmp_path, PART_MIB)
    assert (folder / "weights.safetensors.001").stat().st_size > 4
    pack(plan, made, cell(plan), tmp_path, 1.0)
    assert not (folder / "weights.safetensors.001").exists(), "nothing of other parts stays behind"


def test_unpacked_weights_are_bit_for_bit_the_trained_ones_and_only_the_export_is_left_to_do(
    plan: Plan, made: Paths, here: Paths, tmp_path: Path
) -> None:
    assert training(plan, here) == "recorded"
    for name in (TEACHER, STUDENT):
        done = unpack(plan, here, pack(plan, made, cell(plan, name), tmp_path, PART_MIB) / MANIFEST)
        assert (done.cell, done.placed) == (name, ["weights.safetensors", "answers.npy"])
        assert weights(plan, here, name).read_bytes() == weights(plan, made, name).read_bytes()
        assert answers_file(weights(plan, here, name).parent).is_file()
        assert training(plan, here, name) == "trained"
    told = Told()
    summary = make_cells(plan, here, CPU, told)
    assert sorted(summary.made) == sorted([TEACHER, STUDENT]) and told.steps == 0
    assert training(plan, here) == "done"


def test_with_its_onnx_file_a_cell_is_ready_for_the_bench(plan: Plan, made: Paths, here: Paths, tmp_path: Path) -> None:
    manifest = pack(plan, made, cell(plan), tmp_path, PART_MIB, onnx=True) / MANIFEST
    assert "model.onnx" in unpack(plan, here, manifest).placed
    assert training(plan, here) == "done"
    again = unpack(plan, here, manifest)
    assert again.placed == [] and again.there == ["weights.safetensors", "answers.npy", "model.onnx"]


def test_an_onnx_file_that_is_not_on_record_here_is_left(plan: Plan, made: Paths, here: Paths, tmp_path: Path) -> None:
    manifest = pack(plan, made, cell(plan), tmp_path, PART_MIB, onnx=True) / MANIFEST
    path = record_path(here.results, plan.profile, "export", STUDENT)
    save(here.results, load(path, ExportRecord).model_copy(update={"onnx_sha256": "0" * 64}))
    done = unpack(plan, here, manifest)
    assert "model.onnx" not in done.placed and "to be exported again" in done.notes[0]
    assert training(plan, here) == "trained"


def test_damaged_weights_here_are_put_anew(plan: Plan, made: Paths, there: Paths, tmp_path: Path) -> None:
    manifest = pack(plan, made, cell(plan), tmp_path, PART_MIB) / MANIFEST
    weights(plan, there).write_bytes(b"torn")
    assert unpack(plan, there, manifest).placed == ["weights.safetensors"]
    assert file_sha256(weights(plan, there)) == record(plan, there).weights_sha256


# --- What is refused -------------------------------------------------------------------------------------------------


def tamper(folder: Path, **changes: object) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**document, **changes}))


def without_a_part(folder: Path, here: Path) -> None:
    (folder / "weights.safetensors.001").unlink()


def one_bit(folder: Path, here: Path) -> None:
    part = folder / "weights.safetensors.001"
    content = bytearray(part.read_bytes())
    content[7] ^= 1
    part.write_bytes(content)


def parts_in_another_order(folder: Path, here: Path) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    document["files"][0]["parts"].reverse()
    (folder / MANIFEST).write_text(json.dumps(document))


def outside(folder: Path, here: Path) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    document["files"][0]["name"] = "../../weights.safetensors"
    (folder / MANIFEST).write_text(json.dumps(document))


REFUSED: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "a part is missing": (without_a_part, r"weights\.safetensors\.001: missing; carry all parts"),
    "one bit differs": (one_bit, r"weights\.safetensors\.001: damaged"),
    "the parts are in another order": (parts_in_another_order, r"do not make the file that it names"),
    "the manifest is cut short": (lambda folder, _: (folder / MANIFEST).write_text("{"), r"not a pack's manifest"),
    "a file would leave the cell's folder": (outside, r"not a pack's manifest: files\.0\.name"),
    "another key": (lambda folder, _: tamper(folder, key="0" * 16), r"key 0000000000000000; here key"),
    "another profile": (lambda folder, _: tamper(folder, profile="full"), r"of profile full"),
    "other weights than the record's": (
        lambda folder, _: tamper(folder, weights_sha256="0" * 64),
        r"merge the records that belong to the pack",
    ),
    "no record here": (lambda _, here: shutil.rmtree(here / "results"), r"merge the records first: harness merge"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_pack_with_a_fault_is_refused_and_nothing_is_put_in_place(
    plan: Plan, made: Paths, here: Paths, tmp_path: Path, name: str
) -> None:
    damage, reason = REFUSED[name]
    folder = pack(plan, made, cell(plan), tmp_path / "packs", PART_MIB)
    damage(folder, here.results.parent)
    with pytest.raises(HarnessError, match=reason):
        unpack(plan, here, folder / MANIFEST)
    assert not weights(plan, here).exists()


def test_weights_that_are_not_those_on_record_are_not_packed(plan: Plan, there: Paths, tmp_path: Path) -> None:
    weights(plan, there).write_bytes(b"torn")
    with pytest.raises(HarnessError, match=r"weights\.safetensors: sha256 is .* the record says"):
        pack(plan, there, cell(plan), tmp_path, PART_MIB)
    weights(plan, there).unlink()
    with pytest.raises(HarnessError, match="not on this machine"):
        pack(plan, there, cell(plan), tmp_path, PART_MIB)
    assert not [path for path in tmp_path.rglob("*") if path.name == MANIFEST]


def test_a_folder_without_a_pack_is_named(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"no pack here \(no manifest\.json\)"):
        manifests([tmp_path])


# --- Which cells -----------------------------------------------------------------------------------------------------


def test_cells_go_by_id_or_as_teacher_best_and_all(plan: Plan, made: Paths, here: Paths) -> None:
    def ids(paths: Paths, *names: str) -> list[str]:
        return [one.id for one in chosen(plan, paths, names)]

    assert ids(made) == ids(made, "all") == [TEACHER, STUDENT]
    assert ids(made, "best") == ids(made, STUDENT) == [STUDENT]
    assert ids(made, "best", "teacher", STUDENT) == [STUDENT, TEACHER]
    with pytest.raises(HarnessError, match="has no cell 'none'"):
        ids(made, "none")
    with pytest.raises(HarnessError, match="no trained weights here to pack as 'all'"):
        ids(here)


# --- Half precision --------------------------------------------------------------------------------------------------


def test_half_precision_halves_the_weights_and_measures_what_that_does(plan: Plan, made: Paths, tmp_path: Path) -> None:
    whole = read_manifest(pack(plan, made, cell(plan), tmp_path / "whole", PART_MIB) / MANIFEST)
    half = read_manifest(pack_half(plan, made, cell(plan), tmp_path / "half", PART_MIB, CPU) / MANIFEST)
    assert (half.dtype, half.weights_sha256) == ("float16", whole.weights_sha256)
    assert half.files[0].bytes < 0.65 * whole.files[0].bytes
    assert half.half and half.half.weights_sha256 != half.weights_sha256
    assert half.half.accuracy_before_pct == pytest.approx(record(plan, made).accuracy_pct)
    assert abs(half.half.accuracy_pct - half.half.accuracy_before_pct) <= 0.05


def rounded(plan: Plan, made: Paths, here: Paths, folder: Path) -> Manifest:
    path = pack_half(plan, made, cell(plan), folder, PART_MIB, CPU) / MANIFEST
    unpack(plan, here, path)
    return read_manifest(path)


def test_unpacked_half_precision_is_another_model_on_record_and_the_chain_holds(
    plan: Plan, made: Paths, here: Paths, tmp_path: Path
) -> None:
    before = record(plan, here)
    manifest = rounded(plan, made, here, tmp_path)
    after = record(plan, here)
    assert manifest.half and after.rounded_from
    assert after.weights_sha256 == manifest.half.weights_sha256 == file_sha256(weights(plan, here))
    assert after.weights_sha256 != before.weights_sha256 == after.rounded_from.weights_sha256
    assert after.rounded_from.accuracy_pct == before.accuracy_pct
    assert (after.key, after.settings, after.epochs) == (before.key, before.settings, before.epochs)
    model, metadata = load_weights(weights(plan, here))
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert metadata["key"] == cell(plan).key and metadata["image_size"] == 16
    exact = load_weights(weights(plan, made))[0].state_dict()
    for name, value in model.state_dict().items():
        expected = exact[name].half().float() if exact[name].dim() > 1 else exact[name]
        assert torch.equal(value, expected), name
    # what was exported from the unrounded weights is out of date, and is made again
    assert training(plan, here) == "trained"
    assert make_cells(plan, here, CPU, Told(), cells=[cell(plan)]).made == [STUDENT]
    export = load(record_path(here.results, plan.profile, "export", STUDENT), ExportRecord)
    assert export.weights_sha256 == after.weights_sha256
    answered = np.load(answers_file(weights(plan, here).parent))
    correct = 100 * float((answered == data.load("stand-in", here.data, train=False).labels.numpy()).mean())
    assert correct == pytest.approx(after.accuracy_pct)


def test_unpacking_half_precision_again_changes_nothing(plan: Plan, made: Paths, here: Paths, tmp_path: Path) -> None:
    rounded(plan, made, here, tmp_path)
    before = record(plan, here)
    path = pack_half(plan, made, cell(plan), tmp_path, PART_MIB, CPU) / MANIFEST
    assert unpack(plan, here, path).placed == []
    assert record(plan, here) == before


def test_where_the_trained_weights_are_here_their_rounded_copy_is_left(
    plan: Plan, there: Paths, tmp_path: Path
) -> None:
    path = pack_half(plan, there, cell(plan), tmp_path, PART_MIB, CPU) / MANIFEST
    assert unpack(plan, there, path).placed == []
    assert record(plan, there).rounded_from is None


def test_rounded_weights_of_other_weights_are_refused(plan: Plan, made: Paths, here: Paths, tmp_path: Path) -> None:
    path = pack_half(plan, made, cell(plan), tmp_path, PART_MIB, CPU) / MANIFEST
    save(here.results, record(plan, here).model_copy(update={"weights_sha256": "0" * 64}))
    with pytest.raises(HarnessError, match="rounded from weights"):
        unpack(plan, here, path)


def test_rounded_weights_are_not_rounded_again(plan: Plan, made: Paths, here: Paths, tmp_path: Path) -> None:
    rounded(plan, made, here, tmp_path)
    with pytest.raises(HarnessError, match="came in half precision already"):
        pack_half(plan, here, cell(plan), tmp_path, PART_MIB, CPU)


@pytest.mark.parametrize(
    ("before", "after", "allowed"), [(75.0, 74.95, True), (75.0, 74.94, False), (75, 75.06, False)]
)
def test_accuracy_may_move_by_a_twentieth_of_a_point(plan: Plan, before: float, after: float, allowed: bool) -> None:
    if allowed:
        assert judged(cell(plan), before, after, "a" * 64).accuracy_pct == after
    else:
        with pytest.raises(HarnessError, match=r"in half precision, .* before; more than 0.05 points"):
            judged(cell(plan), before, after, "a" * 64)


def test_weights_that_half_precision_cannot_hold_are_refused_by_their_accuracy(
    plan: Plan, there: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = weights(plan, there)
    model, metadata = load_weights(path)
    # A classifier of weights that float16, which ends at 6e-8, has no numbers for; and labels that it gets all right.
    with torch.no_grad():
        model.fc.bias.zero_()
        model.fc.weight.copy_(torch.randn(model.fc.weight.shape, generator=torch.Generator().manual_seed(1)) * 1e-9)
    pixels = draw_stand_in(300, seed=2).pixels
    right = answers(model, Images(pixels, torch.zeros(300)), 16, CPU)
    assert (right != 0).any(), "class 0 is what is left of it after rounding"
    monkeypatch.setattr(data, "load", lambda *_, **__: Images(pixels, right))
    save_weights(path, model, {name: value for name, value in metadata.items() if name not in ("widths", "stem")})
    save(there.results, record(plan, there).model_copy(update={"weights_sha256": file_sha256(path)}))
    with pytest.raises(HarnessError, match="Pack it without --half"):
        pack_half(plan, there, cell(plan), tmp_path, PART_MIB, CPU)
    assert not list(tmp_path.rglob(MANIFEST))
