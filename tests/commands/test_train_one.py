import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from harness.architectures.resnet import full_widths, load_weights, save_weights, widths_of
from harness.commands import train_one as single
from harness.commands.train_one import Request, export_one, train_one
from harness.errors import HarnessError
from harness.files import file_sha256
from tests.documents import as_toml
from tests.training_kit import CPU, Told, network, patience, pruned_widths, same_weights, tiny_document

STUDENT = Request(None, 0.3, "l1", "base", 0, "study", None, None)
TITLE = "P(0.3_L1)_KD(0)_SEED(0)"

Train = Callable[..., Path | None]

pytestmark = pytest.mark.usefixtures("few_images")


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """`train_one` with a tiny matrix, into `tmp_path`/out."""
    monkeypatch.setattr(single, "choose_device", lambda precision: CPU)
    matrix = tmp_path / "matrix.toml"
    matrix.write_text(as_toml(tiny_document()), encoding="utf-8")

    def train(request: Request, keep_going: Callable[[], bool] = lambda: True, profile: str = "quick") -> Path | None:
        return train_one(request, matrix, profile, tmp_path / "out", tmp_path / "data", Told(), keep_going)

    return train


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    path = tmp_path / "teacher.safetensors"
    save_weights(path, network(5), {})
    return path


# --- Training --------------------------------------------------------------------------------------------------------


def test_without_a_teacher_it_is_the_teacher_that_is_trained(train: Train, tmp_path: Path) -> None:
    assert train(replace(STUDENT, seed=3)) == tmp_path / "out" / "ResNet50.safetensors"
    model, metadata = load_weights(tmp_path / "out" / "ResNet50.safetensors")
    assert widths_of(model) == full_widths(0.0625) and metadata["cell"] == "teacher-s3"


def test_a_student_is_saved_under_its_title(train: Train, teacher: Path, tmp_path: Path) -> None:
    made = train(replace(STUDENT, teacher=teacher))
    assert made == tmp_path / "out" / f"{TITLE}.safetensors"
    model, _ = load_weights(made)
    assert sum(widths_of(model).values()) < sum(full_widths(0.0625).values())


def test_the_width_and_the_stem_are_the_checkpoints(train: Train, tmp_path: Path) -> None:
    save_weights(tmp_path / "wide.safetensors", network(widths=full_widths(0.125), stem="imagenet"), {})
    made = train(replace(STUDENT, teacher=tmp_path / "wide.safetensors", kd_method="fmse"))
    assert made
    model, _ = load_weights(made)
    assert (model.conv1.out_channels, model.stem) == (8, "imagenet")


def test_epochs_and_batch_size_take_the_place_of_the_profiles(train: Train, tmp_path: Path, teacher: Path) -> None:
    train(replace(STUDENT, teacher=teacher, epochs=2, batch_size=100))
    record = json.loads((tmp_path / "out/run/results/quick/train/p0.3-l1-base-s0.json").read_text())
    recipe = record["settings"]["recipe"]
    assert (recipe["epochs"], recipe["batch_size"], len(record["epochs"])) == (2, 100, 2)


def test_a_stop_saves_nothing_under_the_title_and_the_same_call_goes_on(
    train: Train, teacher: Path, tmp_path: Path
) -> None:
    request = replace(STUDENT, teacher=teacher)
    assert train(request, patience(2)) is None
    assert not list((tmp_path / "out").glob("*.safetensors"))
    assert train(request) == tmp_path / "out" / f"{TITLE}.safetensors"


def refused(train: Train, request: Request, profile: str = "quick") -> str:
    with pytest.raises(HarnessError) as caught:
        train(request, profile=profile)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_pruned_teacher_is_refused(train: Train, tmp_path: Path) -> None:
    save_weights(tmp_path / "pruned.safetensors", network(widths=pruned_widths()), {})
    message = refused(train, replace(STUDENT, teacher=tmp_path / "pruned.safetensors"))
    assert "pruned.safetensors: is already pruned" in message


def test_a_missing_teacher_is_named(train: Train, tmp_path: Path) -> None:
    assert "no.pt: no such checkpoint" in refused(train, replace(STUDENT, teacher=tmp_path / "no.pt"))


@pytest.mark.parametrize(
    ("change", "named", "allowed"),
    [
        ({"prune_method": "xy"}, "prune_method", "allowed: bn, gn, l1"),
        ({"kd_method": "xy"}, "kd_method", "base, fmse, gram"),
        ({"protocol": "xy"}, "xy", "study, controlled"),
        ({"prune_amount": 0.0}, "prune_amount", "greater than 0"),
        ({"prune_amount": 1.0}, "prune_amount", "less than 1"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"epochs": 0}, "epochs", "greater than or equal to 1"),
        ({"batch_size": 0}, "batch_size", "greater than or equal to 1"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(
    train: Train, tmp_path: Path, change: dict[str, object], named: str, allowed: str
) -> None:
    message = refused(train, replace(STUDENT, **change))  # type: ignore[arg-type]
    assert named in message and allowed in message
    assert not (tmp_path / "out").exists()


def test_only_the_quick_profile_makes_do_with_the_stand_in(train: Train, tmp_path: Path) -> None:
    assert "DATA_DIR" in refused(train, STUDENT, profile="lite")
    assert not (tmp_path / "out").exists()


def test_what_fails_in_training_is_an_error(train: Train, tmp_path: Path) -> None:
    model = network()
    torch.nn.init.constant_(model.fc.bias, float("nan"))
    save_weights(tmp_path / "nan.safetensors", model, {})
    assert "parity gate" in refused(train, replace(STUDENT, teacher=tmp_path / "nan.safetensors"))


# --- Export ----------------------------------------------------------------------------------------------------------


def said(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_a_stored_model_is_exported_with_what_it_says_about_itself(tmp_path: Path) -> None:
    path = tmp_path / "P.safetensors"
    save_weights(path, network(), {"cell": "c", "key": "k" * 16, "image_size": 16})
    done = export_one(path, tmp_path / "p.onnx")
    assert done.onnx_sha256 == file_sha256(tmp_path / "p.onnx")
    wanted = {"cell": "c", "key": "k" * 16, "title": "P", "image_size": "16", "data": "stand-in"}
    assert {**said(tmp_path / "p.onnx"), **wanted, "weights_sha256": file_sha256(path)} == said(tmp_path / "p.onnx")


def test_a_state_dict_from_elsewhere_goes_by_its_files_name_and_hash(tmp_path: Path) -> None:
    model = network(widths=pruned_widths())
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    export_one(tmp_path / "mine.pt", tmp_path / "mine.onnx")
    found = said(tmp_path / "mine.onnx")
    assert (found["cell"], found["title"], found["image_size"]) == ("mine", "mine", "32")
    assert len(found["key"]) == 16
    assert same_weights(load_weights(tmp_path / "mine.pt")[0], model)


def test_a_missing_model_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no such checkpoint"):
        export_one(tmp_path / "no.pt", tmp_path / "no.onnx")
    assert list(tmp_path.iterdir()) == []
