from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.planning import Plan
from harness.store.paths import Paths, answers_file
from harness.transfer.manifest import MANIFEST, read_manifest
from harness.transfer.packing import MIB, chosen, pack, size_mib
from tests.transfer.machines import PART_MIB, STUDENT, TEACHER, cell, no_file_beyond, record, weights


def test_a_pack_is_parts_below_the_limit_and_a_manifest_of_their_hashes(
    plan: Plan, made: Paths, tmp_path: Path
) -> None:
    folder = pack(plan, made, cell(plan), tmp_path, PART_MIB)
    manifest = read_manifest(folder / MANIFEST)
    assert (manifest.cell, manifest.key, manifest.dtype) == (STUDENT, cell(plan).trained.key, "float32")
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
    assert not (folder / "weights.safetensors.001").exists(), "no part of the earlier pack stays behind"


def test_weights_that_are_not_those_on_record_are_not_packed(plan: Plan, trainer: Paths, tmp_path: Path) -> None:
    weights(plan, trainer).write_bytes(b"torn")
    with pytest.raises(HarnessError, match=r"weights\.safetensors: sha256 is .* the record says"):
        pack(plan, trainer, cell(plan), tmp_path / "packs", PART_MIB)
    weights(plan, trainer).unlink()
    with pytest.raises(HarnessError, match="not on this machine"):
        pack(plan, trainer, cell(plan), tmp_path / "packs", PART_MIB)
    assert not list(tmp_path.rglob(MANIFEST))


def test_answers_that_are_not_those_on_record_are_not_packed(plan: Plan, trainer: Paths, tmp_path: Path) -> None:
    answers_file(weights(plan, trainer).parent).write_bytes(b"torn")
    with pytest.raises(HarnessError, match=r"answers\.npy: sha256 is .* the record says"):
        pack(plan, trainer, cell(plan), tmp_path / "packs", PART_MIB)
    answers_file(weights(plan, trainer).parent).unlink()
    pack(plan, trainer, cell(plan), tmp_path / "packs", PART_MIB)


def test_a_full_disk_is_an_error_in_one_line_and_leaves_the_earlier_pack(
    plan: Plan, made: Paths, tmp_path: Path
) -> None:
    folder = pack(plan, made, cell(plan), tmp_path, PART_MIB)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(HarnessError, match=r"cannot be written \(File too large\)"), no_file_beyond(50_000):
        pack(plan, made, cell(plan), tmp_path, 1.0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(folder.parent.iterdir()) == [folder]


def test_an_onnx_file_is_packed_only_where_its_record_stands(plan: Plan, trainer: Paths, tmp_path: Path) -> None:
    (trainer.results / "quick/export" / f"{STUDENT}.json").unlink()
    with pytest.raises(HarnessError, match="no export record of these weights"):
        pack(plan, trainer, cell(plan), tmp_path / "packs", PART_MIB, onnx=True)


def test_cells_go_by_id_or_as_teacher_best_and_all(plan: Plan, made: Paths, bencher: Paths) -> None:
    def ids(paths: Paths, *names: str) -> list[str]:
        return [one.id for one in chosen(plan, paths, names)]

    assert ids(made) == ids(made, "all") == [TEACHER, STUDENT]
    assert ids(made, "best") == ids(made, STUDENT) == [STUDENT]
    assert ids(made, "best", "teacher", STUDENT) == [STUDENT, TEACHER]
    with pytest.raises(HarnessError, match="has no cell 'none'"):
        ids(made, "none")
    with pytest.raises(HarnessError, match="no trained weights here to pack as 'all'"):
        ids(bencher)
