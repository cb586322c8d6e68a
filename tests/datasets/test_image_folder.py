import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness.datasets import Images, load, provide
from harness.datasets.image_folder import DATASET
from harness.errors import HarnessError
from harness.plan.planning import make_plan
from tests.training_kit import CPU, Told, below, tiny_settings

CLASSES = ["cat", "dog", "owl"]


def picture(number: int, size: tuple[int, int] = (10, 8)) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four training images and two test images of each of three classes."""
    for part, count in (("train", 4), ("test", 2)):
        for place, name in enumerate(CLASSES):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture(100 * count + 10 * place + number).save(folder / f"{number}.png")
    return tmp_path / "images"


def parameters(root: Path, **changes: Any) -> dict[str, Any]:
    """What matrix.toml has to say, read off the message of a first attempt."""
    with pytest.raises(HarnessError) as caught:
        DATASET.find(root, {"classes": 0, "size": 8, "sha256": ""})
    found = re.search(r'classes = (\d+), sha256 = "([0-9a-f]{64})"', str(caught.value))
    assert found
    return {"classes": int(found[1]), "size": 8, "sha256": found[2], **changes}


def loaded(root: Path, train: bool = True, **changes: Any) -> Images:
    return load("image_folder", parameters(root, **changes), root, train)


# --- Which images they are -------------------------------------------------------------------------------------------


def test_without_a_folder_train_the_data_set_is_not_there(tmp_path: Path) -> None:
    assert not DATASET.find(tmp_path, {"classes": 3, "size": 8, "sha256": ""})


def test_the_first_attempt_says_what_to_write_and_with_that_it_is_found(root: Path) -> None:
    written = parameters(root)
    assert written["classes"] == 3
    assert DATASET.find(root, written)


@pytest.mark.parametrize("change", ["content", "new", "removed", "renamed", "moved to another class"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_folder_that_has_changed_is_refused(root: Path, part: str, change: str) -> None:
    written = parameters(root)
    one = root / part / "cat" / "0.png"
    if change == "content":
        picture(7).save(one)
    elif change == "new":
        picture(7).save(one.with_name("new.png"))
    elif change == "removed":
        one.unlink()
    elif change == "renamed":
        one.rename(one.with_name("other.png"))
    else:
        one.rename(root / part / "dog" / "00.png")
    with pytest.raises(HarnessError, match=r"not those that matrix\.toml names; for these write \[dataset"):
        DATASET.find(root, written)


def test_what_is_no_image_of_a_class_does_not_count(root: Path) -> None:
    written = parameters(root)
    (root / "train" / "cat" / "notes.txt").write_text("text")
    (root / "train" / "cat" / "._0.png").write_bytes(b"left by a file manager")
    (root / "train" / "stray.png").write_bytes(b"in no class")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    assert DATASET.find(root, written)


def test_links_out_of_the_folder_are_ignored(root: Path, tmp_path: Path) -> None:
    written = parameters(root)
    outside = tmp_path / "outside"
    outside.mkdir()
    picture(1).save(outside / "secret.png")
    (root / "train" / "cat" / "link.png").symlink_to(outside / "secret.png")
    (root / "train" / "fox").symlink_to(outside)
    assert DATASET.find(root, written)
    assert len(load("image_folder", written, root, train=True).labels) == 12


def test_links_inside_the_folder_count(root: Path) -> None:
    (root / "train" / "cat" / "again.png").symlink_to(root / "train" / "cat" / "0.png")
    assert len(loaded(root).labels) == 13


def test_the_classes_of_training_and_test_images_have_to_be_the_same(root: Path) -> None:
    (root / "test" / "cat").rename(root / "test" / "fox")
    with pytest.raises(HarnessError, match="train and test do not have the same class folders"):
        DATASET.find(root, {"classes": 3, "size": 8, "sha256": ""})


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_without_images_is_named(root: Path, part: str) -> None:
    for path in (root / part).rglob("*.png"):
        path.unlink()
    with pytest.raises(HarnessError, match=rf"{part}: no images in class folders \(\.bmp"):
        DATASET.find(root, {"classes": 3, "size": 8, "sha256": ""})


def test_a_missing_test_folder_is_named(root: Path) -> None:
    (root / "test").rename(root / "validation")
    with pytest.raises(HarnessError, match=r"has a folder train and no folder test; give the folder.*DATA_DIR"):
        DATASET.find(root, {"classes": 3, "size": 8, "sha256": ""})


# --- Their content ---------------------------------------------------------------------------------------------------


def test_images_are_scaled_and_labelled_by_their_class_in_alphabetical_order(root: Path) -> None:
    train, test = loaded(root), loaded(root, train=False)
    assert train.pixels.shape == (12, 3, 8, 8) and train.pixels.dtype == torch.uint8
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 and test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    with Image.open(root / "train" / "dog" / "1.png") as image:
        expected = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(train.pixels[5].numpy(), expected)


def test_mean_and_deviation_are_those_of_the_training_images(root: Path) -> None:
    train, test = loaded(root), loaded(root, train=False)
    scaled = train.pixels.double() / 255
    assert train.mean == pytest.approx(scaled.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert train.std == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist(), rel=1e-12)
    assert (test.mean, test.std) == (train.mean, train.std)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_images_of_any_mode_become_rgb(root: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    picture(1).convert(mode).save(root / "train" / "cat" / f"x.{suffix}")
    assert loaded(root).pixels.shape == (13, 3, 8, 8)


@pytest.mark.parametrize("content", [b"", b"not an image", None], ids=["empty", "text", "cut short"])
def test_an_unreadable_image_is_named(root: Path, content: bytes | None) -> None:
    path = root / "train" / "owl" / "2.png"
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(HarnessError, match=rf"{path}: not a readable image"):
        loaded(root)


def test_a_plan_over_the_folder_has_its_classes_and_its_hash_in_every_key(root: Path, tmp_path: Path) -> None:
    from harness.training.pipeline import make_cells

    changes = {
        "profile__quick__data": {"dataset": "image_folder", "train_images": 10, "image_size": 8},
        "dataset": {"image_folder": parameters(root)},
        "profile__quick__teacher__batch_size": 5,
    }
    settings = tiny_settings(tmp_path, ["l1"], ["base"], **changes)
    assert provide(settings, root) == "image_folder"
    plan = make_plan(settings, "quick")
    assert plan.teacher.teacher.network.classes == 3
    changes["dataset"] = {"image_folder": {**parameters(root), "sha256": "0" * 64}}
    other = make_plan(tiny_settings(tmp_path, ["l1"], ["base"], **changes), "quick")
    assert other.teacher.trained.key != plan.teacher.trained.key
    paths = below(tmp_path)
    summary = make_cells(plan, type(paths)(paths.results, paths.artifacts, root), CPU, Told(), cells=[plan.teacher])
    assert summary.made == [plan.teacher.id]
    assert paths.testset("quick", "image_folder").is_file()
