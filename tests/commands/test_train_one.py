import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from harness.architectures import build, network_of, widths_of
from harness.commands import train_one as one_model
from harness.commands.train_one import OneModel, export_one, train_one
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.model_files.weights import load_weights, save_weights
from harness.plan import registry
from tests.documents import as_toml, put
from tests.training_kit import CPU, Told, network, same_weights, stop_after, thin, tiny_document

STUDENT = OneModel(None, 0.3, "l1", "base", 0, "study", None, None)
TITLE = "P(0.3_L1)_KD(0)_SEED(0)"
THIN = thin("resnet18")

Train = Callable[..., Path | None]

pytestmark = pytest.mark.usefixtures("few_images", "offline")


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    """A tiny matrix whose quick profile trains on drawn images; its lite profile wants CIFAR-100."""
    document = tiny_document()
    put(document, "profile.quick.model.architecture", "resnet18")
    put(document, "profile.quick.data.dataset", "stand_in")
    path = tmp_path / "matrix.toml"
    path.write_text(as_toml(document), encoding="utf-8")
    return path


@pytest.fixture
def train(tmp_path: Path, matrix: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """`train_one` with a tiny matrix, into `tmp_path`/out."""
    monkeypatch.setattr(one_model, "choose_device", lambda precision: CPU)

    def train(request: OneModel, keep_going: Callable[[], bool] = lambda: True, profile: str = "quick") -> Path | None:
        return train_one(request, matrix, profile, tmp_path / "out", tmp_path / "data", Told(), keep_going)

    return train


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    path = tmp_path / "teacher.safetensors"
    save_weights(path, network(5, spec=THIN), {"image_size": 16})
    return path


# --- Training --------------------------------------------------------------------------------------------------------


def test_without_a_teacher_it_is_the_teacher_that_is_trained(train: Train, tmp_path: Path) -> None:
    assert train(replace(STUDENT, seed=3)) == tmp_path / "out" / "ResNet18.safetensors"
    model, metadata = load_weights(tmp_path / "out" / "ResNet18.safetensors")
    assert widths_of(model) == widths_of(build(THIN)) and metadata["cell"] == "teacher-s3"


def test_a_student_is_saved_under_its_title(train: Train, teacher: Path, tmp_path: Path) -> None:
    made = train(replace(STUDENT, teacher=teacher))
    assert made == tmp_path / "out" / f"{TITLE}.safetensors"
    model, _ = load_weights(made)
    assert sum(widths_of(model).values()) < sum(widths_of(build(THIN)).values())


@pytest.mark.parametrize("architecture", ["resnet50", "resnet18"])
def test_the_network_is_the_checkpoints(train: Train, tmp_path: Path, architecture: str) -> None:
    spec = thin(architecture, stem="imagenet", width=0.125)
    save_weights(tmp_path / "wide.safetensors", network(spec=spec), {"image_size": 32})
    made = train(replace(STUDENT, teacher=tmp_path / "wide.safetensors", kd_method="fmse"))
    assert made
    model, metadata = load_weights(made)
    assert network_of(model) == spec and metadata["image_size"] == 32


def test_the_size_of_images_is_the_checkpoints(train: Train, tmp_path: Path) -> None:
    save_weights(tmp_path / "small.safetensors", network(), {"image_size": 8})
    made = train(replace(STUDENT, teacher=tmp_path / "small.safetensors"))
    assert made and load_weights(made)[1]["image_size"] == 8


def test_another_size_than_the_checkpoints_is_refused(train: Train, teacher: Path) -> None:
    message = refused(train, replace(STUDENT, teacher=teacher, image_size=32))
    assert "is for images of 16 px, and data.image_size is 32" in message


def test_epochs_and_batch_size_take_the_place_of_the_profiles(train: Train, tmp_path: Path, teacher: Path) -> None:
    train(replace(STUDENT, teacher=teacher, epochs=2, batch_size=100))
    record = json.loads((tmp_path / "out/run/results/quick/train/p0.3-l1-base-s0.json").read_text())
    recipe = record["spec"]["recipe"]
    assert (recipe["epochs"], recipe["batch_size"], len(record["epochs"])) == (2, 100, 2)


def test_a_stop_saves_nothing_under_the_title_and_the_same_call_resumes(
    train: Train, teacher: Path, tmp_path: Path
) -> None:
    request = replace(STUDENT, teacher=teacher)
    assert train(request, stop_after(2)) is None
    assert not list((tmp_path / "out").glob("*.safetensors"))
    assert train(request) == tmp_path / "out" / f"{TITLE}.safetensors"


def test_a_model_that_is_there_is_not_trained_again(train: Train, teacher: Path) -> None:
    request = replace(STUDENT, teacher=teacher)
    made = train(request)
    assert made
    before = made.stat().st_mtime_ns, file_sha256(made)
    assert train(request, keep_going=lambda: pytest.fail("a step was taken")) == made
    assert file_sha256(made) == before[1]


def test_a_model_is_found_by_its_key_whatever_was_trained_after_it(train: Train, teacher: Path, tmp_path: Path) -> None:
    first = train(replace(STUDENT, teacher=teacher))
    assert first
    kept = first.rename(tmp_path / "kept.safetensors")
    assert train(replace(STUDENT, teacher=teacher, epochs=2)) == first, "another model under the same title"
    kept.rename(first)
    assert train(replace(STUDENT, teacher=teacher), keep_going=lambda: pytest.fail("a step was taken")) == first


@pytest.mark.parametrize("content", ["foreign weights", "no weights", "folder"])
def test_what_somebody_else_has_put_there_is_not_overwritten(
    train: Train, teacher: Path, tmp_path: Path, content: str
) -> None:
    place = tmp_path / "out" / f"{TITLE}.safetensors"
    place.parent.mkdir()
    if content == "folder":
        place.mkdir()
    elif content == "no weights":
        place.write_text("my notes")
    else:
        save_file({"weight": torch.zeros(2)}, place)
    before = None if place.is_dir() else place.read_bytes()
    assert "is there already" in refused(train, replace(STUDENT, teacher=teacher))
    assert place.is_dir() if before is None else place.read_bytes() == before


@pytest.mark.parametrize("change", [{"epochs": 2}, {"batch_size": 100}])
def test_a_model_made_with_other_options_is_not_overwritten(
    train: Train, teacher: Path, change: dict[str, int]
) -> None:
    made = train(replace(STUDENT, teacher=teacher))
    assert made
    before = file_sha256(made)
    message = refused(train, replace(STUDENT, teacher=teacher, **change))  # type: ignore[arg-type]
    assert "made with other options" in message and "--outp-dir" in message
    assert file_sha256(made) == before


def refused(train: Train, request: OneModel, profile: str = "quick") -> str:
    with pytest.raises(HarnessError) as caught:
        train(request, profile=profile)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_pruned_teacher_is_refused(train: Train, tmp_path: Path) -> None:
    save_weights(tmp_path / "pruned.safetensors", network(pruned=True), {})
    message = refused(train, replace(STUDENT, teacher=tmp_path / "pruned.safetensors"))
    assert "pruned.safetensors: is already pruned" in message


def test_a_missing_teacher_is_named(train: Train, tmp_path: Path) -> None:
    assert "no.pt: no such checkpoint" in refused(train, replace(STUDENT, teacher=tmp_path / "no.pt"))


@pytest.mark.parametrize(
    ("change", "named", "allowed"),
    [
        ({"prune_method": "xy"}, "prune_method", "allowed: bn, gn, l1, random"),
        ({"kd_method": "xy"}, "kd_method", "base, fmse, gram"),
        ({"protocol": "xy"}, "xy", "study, controlled"),
        ({"prune_amount": 0.0}, "prune_amount", "greater than 0"),
        ({"prune_amount": 1.0}, "prune_amount", "less than 1"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"epochs": 0}, "epochs", "greater than or equal to 1"),
        ({"batch_size": 0}, "batch_size", "greater than or equal to 1"),
        ({"image_size": 4}, "image_size", "greater than or equal to 8"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(
    train: Train, tmp_path: Path, change: dict[str, object], named: str, allowed: str
) -> None:
    message = refused(train, replace(STUDENT, **change))  # type: ignore[arg-type]
    assert named in message and allowed in message
    assert not (tmp_path / "out").exists()


def test_a_profile_without_a_fallback_needs_its_data(train: Train, tmp_path: Path) -> None:
    assert "DATA_DIR" in refused(train, STUDENT, profile="lite")
    assert not (tmp_path / "out").exists()


def test_a_named_folder_without_the_data_is_an_error(matrix: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=rf"--data-dir {tmp_path}: CIFAR-100 is not in it"):
        train_one(STUDENT, matrix, "lite", tmp_path / "out", tmp_path, Told(), lambda: True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("trained_on", ["cifar100", "image_folder"])
def test_a_teacher_of_another_data_set_is_refused(train: Train, tmp_path: Path, trained_on: str) -> None:
    """A student of CIFAR-100's teacher would be distilled on drawn images, and nothing would say so."""
    path = tmp_path / "teacher.safetensors"
    save_weights(path, network(5, spec=THIN), {"image_size": 16, "dataset": trained_on})
    title = registry.find("dataset", trained_on).title
    message = refused(train, replace(STUDENT, teacher=path))
    assert f"was trained on {title}, and the data set here is stand-in images" in message and "DATA_DIR" in message


def test_training_says_what_it_trains_on(matrix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_model, "choose_device", lambda precision: CPU)
    told = Told()
    train_one(STUDENT, matrix, "quick", tmp_path / "out", None, told, stop_after(1))
    assert "ResNet18: trained on stand-in images" in told.stages
    document = tiny_document()
    put(document, "profile.quick.data.dataset", "cifar100")
    put(document, "profile.quick.data.fallback", "stand_in")
    matrix.write_text(as_toml(document), encoding="utf-8")
    train_one(STUDENT, matrix, "quick", tmp_path / "out", None, told, stop_after(1))
    said = "trained on stand-in images, in place of CIFAR-100, which can neither be found nor downloaded"
    assert any(said in stage for stage in told.stages)


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0.25), (2, 0.5), (3, 2)])
def test_a_warm_up_that_epochs_leave_no_room_for_keeps_its_share(
    matrix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, warmup: float
) -> None:
    monkeypatch.setattr(one_model, "choose_device", lambda precision: CPU)
    document = tiny_document()
    put(document, "profile.quick.model.architecture", "resnet18")
    put(document, "profile.quick.data.dataset", "stand_in")
    put(document, "profile.quick.teacher.epochs", 8)
    put(document, "profile.quick.teacher.warmup_epochs", 2)
    matrix.write_text(as_toml(document), encoding="utf-8")
    told = Told()
    made = train_one(replace(STUDENT, epochs=epochs), matrix, "quick", tmp_path / "out", None, told, lambda: True)
    assert made
    record = json.loads((tmp_path / "out/run/results/quick/train/teacher-s0.json").read_text())
    assert record["spec"]["recipe"]["warmup_epochs"] == warmup
    said = f"warm-up: {warmup:g} of {epochs} epochs, the same share as 2 of the profile's 8"
    assert (said in told.stages) == (epochs < 3)


def test_what_fails_in_training_is_an_error(train: Train, tmp_path: Path) -> None:
    model = network()
    torch.nn.init.constant_(model.get_submodule("fc").bias, float("nan"))  # type: ignore[arg-type]
    save_weights(tmp_path / "nan.safetensors", model, {"image_size": 16})
    assert "parity gate" in refused(train, replace(STUDENT, teacher=tmp_path / "nan.safetensors"))


# --- Export ----------------------------------------------------------------------------------------------------------


def said(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_a_stored_model_is_exported_with_what_it_says_about_itself(matrix: Path, tmp_path: Path) -> None:
    path = tmp_path / "P.safetensors"
    save_weights(path, network(), {"cell": "c", "key": "k" * 16, "image_size": 16, "dataset": "stand_in"})
    left = tmp_path / ".p.onnx.abcd_123.onnx"
    left.write_bytes(b"what a killed export has left")
    made = export_one(path, tmp_path / "p.onnx", matrix, "lite", None)
    assert made.done.onnx_sha256 == file_sha256(tmp_path / "p.onnx") and not left.exists()
    assert (made.compared_on, made.trained_on_it, made.images) == ("stand-in images", True, 256)
    assert made.runtime == f"onnxruntime {onnxruntime.__version__}"
    wanted = {"cell": "c", "key": "k" * 16, "title": "P", "image_size": "16", "data": "stand_in"}
    assert {**said(tmp_path / "p.onnx"), **wanted, "weights_sha256": file_sha256(path)} == said(tmp_path / "p.onnx")


def test_a_model_is_not_compared_with_torch_on_other_images_than_it_was_trained_on(
    matrix: Path, tmp_path: Path
) -> None:
    path = tmp_path / "P.safetensors"
    save_weights(path, network(), {"dataset": "cifar100"})
    with pytest.raises(HarnessError, match="CIFAR-100 is not in"):
        export_one(path, tmp_path / "p.onnx", matrix, "quick", tmp_path / "data")
    assert not (tmp_path / "p.onnx").exists()


def test_a_state_dict_from_elsewhere_goes_by_its_files_name_and_hash(matrix: Path, tmp_path: Path) -> None:
    model = network(pruned=True)
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    made = export_one(tmp_path / "mine.pt", tmp_path / "mine.onnx", matrix, "quick", None)
    found = said(tmp_path / "mine.onnx")
    assert not made.trained_on_it and "data" not in found, "nobody knows what it was trained on"
    assert (found["cell"], found["title"], found["image_size"]) == ("mine", "mine", "16")
    assert len(found["key"]) == 16
    assert same_weights(load_weights(tmp_path / "mine.pt")[0], model)


def test_a_missing_model_leaves_nothing(matrix: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(HarnessError, match="no such checkpoint"):
        export_one(tmp_path / "no.pt", tmp_path / "no.onnx", matrix, "quick", None)
    assert sorted(tmp_path.iterdir()) == before
