import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import datasets
from harness.architectures import build, parameter_count, widths_of
from harness.datasets import Images, cifar100, stand_in
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.model_files.weights import load_weights, save_weights
from harness.plan.planning import Plan, make_plan
from harness.store.paths import Paths, answers_file
from harness.store.records import ExportRecord, Rounded, TrainRecord, identity, load, now, record_path, save
from harness.training.loop import answers
from harness.training.pipeline import make_cells
from harness.transfer.half_precision import require_harmless
from harness.transfer.manifest import MANIFEST, Half, Manifest, read_manifest, split
from harness.transfer.packing import pack, pack_half
from harness.transfer.unpacking import unpack
from tests.training_kit import CPU, Told, below, scatter, tiny_settings
from tests.transfer.machines import PART_MIB, STUDENT, TEACHER, cell, record, training, weights


def packed(plan: Plan, paths: Paths, folder: Path) -> Path:
    """The manifest of the student's pack in half precision."""
    return pack_half(plan, paths, cell(plan), folder, PART_MIB, CPU) / MANIFEST


def test_half_precision_halves_the_weights_and_measures_what_that_does(plan: Plan, made: Paths, tmp_path: Path) -> None:
    whole = read_manifest(pack(plan, made, cell(plan), tmp_path / "whole", PART_MIB) / MANIFEST)
    half = read_manifest(packed(plan, made, tmp_path / "half"))
    assert (half.dtype, half.weights_sha256) == ("float16", whole.weights_sha256)
    assert half.files[0].bytes < 0.65 * whole.files[0].bytes
    assert half.half and half.half.weights_sha256 != half.weights_sha256
    assert half.half.accuracy_before_pct == pytest.approx(record(plan, made).accuracy_pct)
    assert abs(half.half.accuracy_pct - half.half.accuracy_before_pct) <= 0.05


def test_packing_again_gives_the_same_pack(plan: Plan, made: Paths, tmp_path: Path) -> None:
    path = packed(plan, made, tmp_path)
    before = {one: one.stat().st_mtime_ns for one in path.parent.iterdir()}
    assert packed(plan, made, tmp_path) == path
    assert {one: one.stat().st_mtime_ns for one in path.parent.iterdir()} == before


def unpacked(plan: Plan, made: Paths, here: Paths, folder: Path) -> Manifest:
    path = packed(plan, made, folder)
    unpack(plan, here, path)
    return read_manifest(path)


def test_unpacked_half_precision_is_another_model_on_record_and_the_chain_holds(
    plan: Plan, made: Paths, bencher: Paths, tmp_path: Path
) -> None:
    before = record(plan, bencher)
    manifest = unpacked(plan, made, bencher, tmp_path)
    after = record(plan, bencher)
    assert manifest.half and after.rounded_from
    assert after.weights_sha256 == manifest.half.weights_sha256 == file_sha256(weights(plan, bencher))
    assert after.weights_sha256 != before.weights_sha256 == after.rounded_from.weights_sha256
    assert after.rounded_from.accuracy_pct == before.accuracy_pct
    assert (after.key, after.spec, after.epochs) == (before.key, before.spec, before.epochs)
    model, metadata = load_weights(weights(plan, bencher))
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    exact, original = load_weights(weights(plan, made))
    assert metadata == original and metadata["key"] == cell(plan).trained.key
    for name, value in model.state_dict().items():
        whole = exact.state_dict()[name]
        expected = whole.half().float() if whole.dim() > 1 else whole
        assert torch.equal(value, expected), name
    # what was exported from the unrounded weights is out of date, and is made again
    assert training(plan, bencher) == "trained"
    assert make_cells(plan, bencher, CPU, Told(), cells=[cell(plan)]).made == [STUDENT]
    export = load(record_path(bencher.results, plan.profile, "export", STUDENT), ExportRecord)
    assert export.weights_sha256 == after.weights_sha256
    answered = np.load(answers_file(weights(plan, bencher).parent))
    assert after.answers_sha256 == file_sha256(answers_file(weights(plan, bencher).parent))
    labels = datasets.load("stand_in", {"test_images": 300}, bencher.data, train=False).labels.numpy()
    assert 100 * float((answered == labels).mean()) == pytest.approx(after.accuracy_pct)


def test_unpacking_half_precision_again_changes_nothing(
    plan: Plan, made: Paths, bencher: Paths, tmp_path: Path
) -> None:
    unpacked(plan, made, bencher, tmp_path)
    before = record(plan, bencher)
    assert unpack(plan, bencher, packed(plan, made, tmp_path)).placed == []
    assert record(plan, bencher) == before


def test_unpacking_that_was_interrupted_before_the_record_was_written_is_completed(
    plan: Plan, made: Paths, bencher: Paths, tmp_path: Path
) -> None:
    before = record(plan, bencher)
    unpacked(plan, made, bencher, tmp_path)
    after = record(plan, bencher)
    save(bencher.results, before)
    assert unpack(plan, bencher, packed(plan, made, tmp_path)).placed
    assert record(plan, bencher) == after


def test_weights_rounded_otherwise_before_keep_the_accuracy_of_the_trained_ones_on_record(
    plan: Plan, made: Paths, bencher: Paths, tmp_path: Path
) -> None:
    before = record(plan, bencher)
    assert before.weights_sha256 and before.accuracy_pct is not None
    rounded = Rounded(dtype="float16", weights_sha256=before.weights_sha256, accuracy_pct=before.accuracy_pct)
    changes = {"weights_sha256": "f" * 64, "accuracy_pct": 0.0, "rounded_from": rounded}
    save(bencher.results, before.model_copy(update=changes))
    manifest = unpacked(plan, made, bencher, tmp_path)
    assert manifest.half and record(plan, bencher).weights_sha256 == manifest.half.weights_sha256
    assert record(plan, bencher).rounded_from == rounded


def test_where_the_trained_weights_are_here_their_rounded_copy_is_left(
    plan: Plan, trainer: Paths, tmp_path: Path
) -> None:
    assert unpack(plan, trainer, packed(plan, trainer, tmp_path / "packs")).placed == []
    assert record(plan, trainer).rounded_from is None


def test_rounded_weights_of_other_weights_are_refused(plan: Plan, made: Paths, bencher: Paths, tmp_path: Path) -> None:
    path = packed(plan, made, tmp_path)
    save(bencher.results, record(plan, bencher).model_copy(update={"weights_sha256": "0" * 64}))
    with pytest.raises(HarnessError, match="rounded from weights"):
        unpack(plan, bencher, path)


def test_rounded_weights_are_not_rounded_again(plan: Plan, made: Paths, bencher: Paths, tmp_path: Path) -> None:
    unpacked(plan, made, bencher, tmp_path)
    with pytest.raises(HarnessError, match="came in half precision already"):
        pack_half(plan, bencher, cell(plan), tmp_path, PART_MIB, CPU)


# --- A pack that is not what it says ---------------------------------------------------------------------------------


def forge(path: Path, source: Path, **changes: Any) -> None:
    """Put another file into a pack, every hash in the manifest made to match it."""
    document = json.loads(path.read_text())
    for part in path.parent.glob(f"{source.name}.*"):
        part.unlink()
    forged = split(source, path.parent, 10**9).model_dump()
    others = [file for file in document["files"] if file["name"] != source.name]
    path.write_text(json.dumps({**document, "files": [forged, *others], **changes}))


def test_rounded_weights_of_another_cell_are_refused(plan: Plan, made: Paths, bencher: Paths, tmp_path: Path) -> None:
    """No record has the hash of rounded weights, so what network they are of is compared with what is on record."""
    path = packed(plan, made, tmp_path)
    forge(path, weights(plan, made, TEACHER))
    with pytest.raises(HarnessError, match=f"not weights of {STUDENT} under its present key"):
        unpack(plan, bencher, path)
    assert not weights(plan, bencher).exists()


def test_a_network_of_other_widths_under_the_cells_name_is_refused(
    plan: Plan, made: Paths, bencher: Paths, tmp_path: Path
) -> None:
    path = packed(plan, made, tmp_path / "packs")
    _, metadata = load_weights(weights(plan, made))
    save_weights(tmp_path / "weights.safetensors", build(cell(plan).teacher.network), metadata)
    forge(path, tmp_path / "weights.safetensors")
    with pytest.raises(HarnessError, match="not the network that the train record"):
        unpack(plan, bencher, path)
    assert not weights(plan, bencher).exists()


def test_metadata_that_ask_for_a_huge_network_are_refused_before_it_is_built(
    plan: Plan, made: Paths, bencher: Paths, tmp_path: Path
) -> None:
    path = packed(plan, made, tmp_path / "packs")
    model, metadata = load_weights(weights(plan, made))
    huge = {**metadata, "network": {**metadata["network"], "width": 10_000.0}}
    save_weights(tmp_path / "weights.safetensors", model, huge)
    forge(path, tmp_path / "weights.safetensors")
    with pytest.raises(HarnessError, match="not weights of"):
        unpack(plan, bencher, path)


def test_weights_that_come_out_otherwise_than_the_manifest_says_are_not_put_in_place(
    plan: Plan, made: Paths, bencher: Paths, tmp_path: Path
) -> None:
    path = packed(plan, made, tmp_path)
    before = record(plan, bencher)
    half = json.loads(path.read_text())["half"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "half": {**half, "weights_sha256": "0" * 64}}))
    with pytest.raises(HarnessError, match="the rounded weights are not those that the manifest names"):
        unpack(plan, bencher, path)
    assert not weights(plan, bencher).exists() and record(plan, bencher) == before


def test_a_pack_in_half_precision_holds_no_onnx_file(plan: Plan, made: Paths, bencher: Paths, tmp_path: Path) -> None:
    path = packed(plan, made, tmp_path)
    forge(path, made.model_file(plan.profile, cell(plan)))
    with pytest.raises(HarnessError, match="and no ONNX file"):
        unpack(plan, bencher, path)


# --- What half precision may do --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "allowed"), [(75.0, 74.95, True), (75.0, 74.94, False), (75.0, 75.06, False)]
)
def test_accuracy_may_move_by_a_twentieth_of_a_point(before: float, after: float, allowed: bool) -> None:
    half = Half(accuracy_pct=after, accuracy_before_pct=before, weights_sha256="a" * 64)
    if allowed:
        require_harmless("a-cell", half)
    else:
        with pytest.raises(HarnessError, match=r"a-cell: .* in half precision, .* before; more than 0.05 points"):
            require_harmless("a-cell", half)


def test_weights_that_half_precision_cannot_hold_are_refused_by_their_accuracy(
    plan: Plan, trainer: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = weights(plan, trainer)
    model, metadata = load_weights(path)
    # A classifier of weights that float16, which ends at 6e-8, has no numbers for; and labels that it gets all right.
    classifier = model.get_submodule("fc")
    assert isinstance(classifier, torch.nn.Linear)
    with torch.no_grad():
        classifier.bias.zero_()
        drawn = torch.randn(classifier.weight.shape, generator=torch.Generator().manual_seed(1))
        classifier.weight.copy_(drawn * 1e-9)
    images = stand_in.draw(300, seed=2)
    right = answers(model, images, 16, CPU)
    assert (right != 0).any(), "class 0 is what is left of it after rounding"
    labelled = Images(images.pixels, right, images.mean, images.std)
    monkeypatch.setattr(stand_in.StandIn, "load", lambda *_, **__: labelled)
    save_weights(path, model, metadata)
    save(trainer.results, record(plan, trainer).model_copy(update={"weights_sha256": file_sha256(path)}))
    with pytest.raises(HarnessError, match="Pack it without --half"):
        pack_half(plan, trainer, cell(plan), tmp_path / "packs", PART_MIB, CPU)
    assert not list(tmp_path.rglob(MANIFEST))


# --- The data that it is measured on ---------------------------------------------------------------------------------


class Hostile:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("unpickled", "w")


@pytest.mark.parametrize("replaced", ["train", "test", "meta"])
def test_images_that_are_not_the_official_ones_are_refused_before_they_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: str
) -> None:
    plan = make_plan(tiny_settings(tmp_path, ["l1"], ["base"]), "quick", "cifar100", ["prune-0.3"])
    paths, teacher = below(tmp_path), plan.teacher
    model = scatter(build(teacher.teacher.network))
    about = {"cell": teacher.model_id, "key": teacher.trained.key}
    save_weights(paths.weights(plan.profile, teacher), model, about)
    save(
        paths.results,
        TrainRecord(
            **identity(plan.profile, teacher.model_id, teacher.title, teacher.trained),
            status="done",
            finished_at=now(),
            seconds=1.0,
            environment={},
            weights_sha256=file_sha256(paths.weights(plan.profile, teacher)),
            accuracy_pct=1.0,
            params=parameter_count(model),
            widths=widths_of(model),
        ),
    )
    for name in cifar100.OFFICIAL:
        file = paths.data / cifar100.MARKER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(Hostile()))
        if name != replaced:
            monkeypatch.setitem(cifar100.OFFICIAL, name, hashlib.md5(file.read_bytes()).hexdigest())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HarnessError, match=rf"{replaced}: not the official file"):
        pack_half(plan, paths, teacher, tmp_path / "packs", PART_MIB, CPU)
    assert not (tmp_path / "unpickled").exists()
