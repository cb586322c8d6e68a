import hashlib
import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.planning import Plan
from harness.store.paths import Paths, answers_file
from harness.store.records import ExportRecord, load, record_path, save
from harness.training.pipeline import make_cells
from harness.transfer.manifest import MANIFEST
from harness.transfer.packing import pack
from harness.transfer.unpacking import unpack
from tests.training_kit import CPU, Told
from tests.transfer.machines import PART_MIB, STUDENT, TEACHER, cell, no_file_beyond, record, training, weights

# --- There and back --------------------------------------------------------------------------------------------------


def test_unpacked_weights_are_bit_for_bit_the_trained_ones_and_only_the_export_is_left_to_do(
    plan: Plan, made: Paths, bencher: Paths, tmp_path: Path
) -> None:
    assert training(plan, bencher) == "recorded"
    for name in (TEACHER, STUDENT):
        done = unpack(plan, bencher, pack(plan, made, cell(plan, name), tmp_path, PART_MIB) / MANIFEST)
        assert (done.cell, done.placed) == (name, ["weights.safetensors", "answers.npy"])
        assert weights(plan, bencher, name).read_bytes() == weights(plan, made, name).read_bytes()
        assert answers_file(weights(plan, bencher, name).parent).is_file()
        assert training(plan, bencher, name) == "trained"
    told = Told()
    summary = make_cells(plan, bencher, CPU, told)
    assert sorted(summary.made) == sorted([TEACHER, STUDENT]) and told.steps == 0
    assert training(plan, bencher) == "done"


def test_with_its_onnx_file_a_cell_is_ready_for_the_bench(
    plan: Plan, made: Paths, bencher: Paths, tmp_path: Path
) -> None:
    manifest = pack(plan, made, cell(plan), tmp_path, PART_MIB, onnx=True) / MANIFEST
    assert "model.onnx" in unpack(plan, bencher, manifest).placed
    assert training(plan, bencher) == "done"
    again = unpack(plan, bencher, manifest)
    assert again.placed == [] and again.there == ["weights.safetensors", "answers.npy", "model.onnx"]


def test_an_onnx_file_that_is_not_on_record_here_is_left(
    plan: Plan, made: Paths, bencher: Paths, tmp_path: Path
) -> None:
    manifest = pack(plan, made, cell(plan), tmp_path, PART_MIB, onnx=True) / MANIFEST
    path = record_path(bencher.results, plan.profile, "export", STUDENT)
    save(bencher.results, load(path, ExportRecord).model_copy(update={"onnx_sha256": "0" * 64}))
    done = unpack(plan, bencher, manifest)
    assert "model.onnx" not in done.placed and "to be exported again" in done.notes[0]
    assert training(plan, bencher) == "trained"


def test_answers_that_a_record_does_not_name_yet_are_put_in_place(
    plan: Plan, made: Paths, bencher: Paths, tmp_path: Path
) -> None:
    """A record from before torch's answers were hashed."""
    save(bencher.results, record(plan, bencher).model_copy(update={"answers_sha256": None}))
    done = unpack(plan, bencher, pack(plan, made, cell(plan), tmp_path, PART_MIB) / MANIFEST)
    assert "answers.npy" in done.placed


def test_damaged_answers_here_are_replaced(plan: Plan, made: Paths, trainer: Paths, tmp_path: Path) -> None:
    manifest = pack(plan, made, cell(plan), tmp_path / "packs", PART_MIB) / MANIFEST
    answers = answers_file(weights(plan, trainer).parent)
    answers.write_bytes(b"torn")
    assert unpack(plan, trainer, manifest).placed == ["answers.npy"]
    assert file_sha256(answers) == record(plan, trainer).answers_sha256


def test_damaged_weights_here_are_replaced(plan: Plan, made: Paths, trainer: Paths, tmp_path: Path) -> None:
    manifest = pack(plan, made, cell(plan), tmp_path / "packs", PART_MIB) / MANIFEST
    weights(plan, trainer).write_bytes(b"torn")
    assert unpack(plan, trainer, manifest).placed == ["weights.safetensors"]
    assert file_sha256(weights(plan, trainer)) == record(plan, trainer).weights_sha256


def test_a_full_disk_is_an_error_in_one_line_and_leaves_what_was_there(
    plan: Plan, made: Paths, trainer: Paths, tmp_path: Path
) -> None:
    manifest = pack(plan, made, cell(plan), tmp_path / "packs", PART_MIB) / MANIFEST
    weights(plan, trainer).write_bytes(b"torn")
    before = {path: path.read_bytes() for path in weights(plan, trainer).parent.iterdir()}
    with (
        pytest.raises(HarnessError, match=r"weights\.safetensors: cannot be written \(File too large\)"),
        no_file_beyond(50_000),
    ):
        unpack(plan, trainer, manifest)
    assert {path: path.read_bytes() for path in weights(plan, trainer).parent.iterdir()} == before


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


def holding(name: str, content: bytes) -> Callable[[Path, Path], None]:
    """Puts a file of this content into a pack, every hash in the manifest made to match it."""

    def forge(folder: Path, here: Path) -> None:
        document = json.loads((folder / MANIFEST).read_text())
        (folder / f"{name}.000").write_bytes(content)
        about = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        forged = {"name": name, **about, "parts": [{"name": f"{name}.000", **about}]}
        others = [file for file in document["files"] if file["name"] != name]
        (folder / MANIFEST).write_text(json.dumps({**document, "files": [forged, *others]}))

    return forge


def part_behind_a_link(folder: Path, here: Path) -> None:
    part = folder / "weights.safetensors.001"
    part.symlink_to(part.rename(folder.parents[2] / "outside"))


def array(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, **options)
    return file.getvalue()


class Hostile:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("unpickled", "w")


def of_a_huge_array() -> bytes:
    """The header of an array of a terabyte, and nothing of it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (2**40,)})
    return file.getvalue()


NO_ARRAY = r"answers\.npy is no array of class numbers"
REFUSED: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "a part is missing": (without_a_part, r"weights\.safetensors\.001: missing; copy all parts"),
    "one bit differs": (one_bit, r"weights\.safetensors\.001: damaged"),
    "the parts are in another order": (parts_in_another_order, r"do not make the file that it names"),
    "a part lies behind a link": (part_behind_a_link, r"weights\.safetensors\.001: a link leads out of"),
    "the manifest is cut short": (lambda folder, _: (folder / MANIFEST).write_text("{"), r"not a pack's manifest"),
    "another key": (lambda folder, _: tamper(folder, key="v2-0000000000000000"), r"key v2-0000000000000000; here key"),
    "another profile": (lambda folder, _: tamper(folder, profile="long"), r"of profile long"),
    "another cell": (lambda folder, _: tamper(folder, cell="p0.9-l1-base-s0"), r"here not in this matrix\.toml"),
    "other weights than the record's": (
        lambda folder, _: tamper(folder, weights_sha256="0" * 64),
        r"merge the records that belong to the pack",
    ),
    "other weights under the right name": (
        holding("weights.safetensors", b"other weights"),
        r"weights\.safetensors has SHA-256 .*, the train record here names",
    ),
    "a checkpoint": (holding("checkpoint.pt", b"a pickle"), r"holds checkpoint\.pt, which is no file of a model"),
    "a file of external data": (holding("model.onnx.data", b"data"), r"holds model\.onnx\.data, which is no file"),
    "a stage's network": (holding("pruned-0123.safetensors", b""), r"which is no file of a model"),
    "other answers than the record's": (
        holding("answers.npy", array(np.zeros(300, dtype=np.uint8))),
        r"answers\.npy has SHA-256 .*, the train record here names",
    ),
    "answers that are a pickle": (holding("answers.npy", pickle.dumps(Hostile())), NO_ARRAY),
    "answers that hold a pickle": (holding("answers.npy", array(np.array([Hostile()], dtype=object))), NO_ARRAY),
    "answers that are text": (holding("answers.npy", b"0 1 2 3"), NO_ARRAY),
    "answers that are nothing": (holding("answers.npy", b""), NO_ARRAY),
    "answers to no image": (holding("answers.npy", array(np.zeros(0, dtype=np.uint8))), NO_ARRAY),
    "answers in two dimensions": (holding("answers.npy", array(np.zeros((3, 3), dtype=np.uint8))), NO_ARRAY),
    "answers that are no whole numbers": (holding("answers.npy", array(np.zeros(3))), NO_ARRAY),
    "a class that there is not": (holding("answers.npy", array(np.array([5, 100], dtype=np.uint8))), NO_ARRAY),
    "a negative class": (holding("answers.npy", array(np.array([5, -1], dtype=np.int32))), NO_ARRAY),
    "several arrays": (holding("answers.npy", b"PK\x05\x06" + bytes(18)), NO_ARRAY),
    "a terabyte of answers": (holding("answers.npy", of_a_huge_array()), NO_ARRAY),
    "no record here": (lambda _, here: shutil.rmtree(here / "results"), r"merge the records first: harness merge"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_pack_with_a_fault_is_refused_and_nothing_is_put_in_place(
    plan: Plan, made: Paths, bencher: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    damage, reason = REFUSED[name]
    folder = pack(plan, made, cell(plan), tmp_path / "packs", PART_MIB)
    damage(folder, bencher.results.parent)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HarnessError, match=reason):
        unpack(plan, bencher, folder / MANIFEST)
    assert not weights(plan, bencher).parent.exists()
    assert not (tmp_path / "unpickled").exists()
