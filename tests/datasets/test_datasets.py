"""What holds for every data set: how it is provided, cut, resized, normalised and handed to the bench."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.datasets import Dataset, Images, cifar100, load, normalise, provide, provide_for, resize, save_testset
from harness.errors import HarnessError
from harness.plan import registry
from harness.plan.planning import teacher_cell
from harness.plan.settings import Settings
from harness.store.paths import Paths
from harness.store.records import TrainRecord, identity, now, save
from tests.drop_in import DATASET, imported
from tests.training_kit import tiny_settings

NO_FALLBACK = {"profile__quick__data": {"train_images": 200, "image_size": 16}}


def settings(folder: Path, **changes: Any) -> Settings:
    return tiny_settings(folder / "matrix", ["l1"], ["base"], **changes)


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_every_file_defines_a_data_set(name: str) -> None:
    assert isinstance(registry.load("dataset", name), Dataset)
    plugin = registry.find("dataset", name)
    assert "CLASSES" in plugin.constants and plugin.title != plugin.label.upper()


# --- Providing -------------------------------------------------------------------------------------------------------


def test_where_a_download_fails_the_fallback_of_the_settings_is_used(tmp_path: Path) -> None:
    assert provide(settings(tmp_path), tmp_path) == "stand_in"


def test_where_a_download_fails_and_there_is_no_fallback_the_reason_and_the_remedy_are_named(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"CIFAR-100 is not in .*download failed: no network in tests.*DATA_DIR="):
        provide(settings(tmp_path, **NO_FALLBACK), tmp_path)


@pytest.mark.parametrize("option", [True, False], ids=["--data-dir", "DATA_DIR"])
@pytest.mark.parametrize("changes", [{}, NO_FALLBACK], ids=["fallback", "no fallback"])
def test_a_named_folder_without_the_data_is_an_error_and_never_a_reason_for_the_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], option: bool
) -> None:
    monkeypatch.setattr(cifar100.Cifar100, "fetch", unwanted)
    if not option:
        monkeypatch.setenv("DATA_DIR", str(tmp_path))
    given_by = f"--data-dir {tmp_path}" if option else ""
    with pytest.raises(HarnessError, match=f"{given_by or 'DATA_DIR=' + str(tmp_path)}: CIFAR-100 is not in it"):
        provide(settings(tmp_path, **changes), tmp_path, given_by)


def unwanted(*_: Any) -> None:
    raise AssertionError("nothing is to be downloaded")


def test_no_fallback_takes_the_place_of_what_models_on_record_were_trained_on(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "results", tmp_path / "artifacts", tmp_path / "data")
    tiny = settings(tmp_path)
    assert provide_for(paths, tiny, "quick") == "stand_in"
    for dataset in ("stand_in", "cifar100"):
        teacher = teacher_cell(tiny, dataset)
        about = identity("quick", teacher.id, teacher.title, teacher.trained)
        record = TrainRecord(status="done", finished_at=now(), seconds=0.0, environment={}, **about)
        save(paths.results, record)
        if dataset == "stand_in":
            assert provide_for(paths, tiny, "quick") == "stand_in"
        else:
            said = (
                r"CIFAR-100 is not in .*DATA_DIR=.*; the models of profile quick that are on record were trained on it"
            )
            with pytest.raises(HarnessError, match=said):
                provide_for(paths, tiny, "quick")


def test_a_failed_download_leaves_the_sockets_time_limit_unchanged(tmp_path: Path) -> None:
    before = socket.getdefaulttimeout()
    provide(settings(tmp_path), tmp_path)
    assert socket.getdefaulttimeout() == before


def test_training_starts_without_torchvision() -> None:
    code = "import sys, harness.training.pipeline; sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_data_set_from_outside_the_package_gets_its_own_parameters(tmp_path: Path) -> None:
    DATASET.write(tmp_path)
    with imported(tmp_path):
        calm, noisy = (load(DATASET.name, {"noise": noise}, tmp_path, train=True) for noise in (1, 50))
        assert provide(settings(tmp_path, **DATASET.settings), tmp_path) == DATASET.name
    assert calm.pixels.shape == (120, 3, 8, 8) and calm.mean == (0.3, 0.3, 0.3)
    assert (noisy.pixels.int() - calm.pixels.int()).abs().max() > 20


def test_a_module_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no_data_set.py").write_text("NAME = {}\n")
    with imported(tmp_path), pytest.raises(HarnessError, match=r"no_data_set:NAME.*is no Dataset"):
        load("no_data_set:NAME", {}, tmp_path, train=True)


# --- Images ----------------------------------------------------------------------------------------------------------


def test_the_first_images_keep_their_labels_and_statistics(images: Images) -> None:
    few = images.first(7)
    assert torch.equal(few.pixels, images.pixels[:7]) and torch.equal(few.labels, images.labels[:7])
    assert (few.mean, few.std) == (images.mean, images.std)


def test_more_images_than_there_are_is_an_error_that_names_the_setting(images: Images) -> None:
    assert len(images.first(300).labels) == 300
    with pytest.raises(HarnessError, match=r"data\.train_images: the data set has 300 training images, not 301"):
        images.first(301)


def test_the_right_size_is_left_alone(images: Images) -> None:
    assert resize(images.pixels, 32) is images.pixels


@pytest.mark.parametrize("size", [16, 40])
def test_another_size_is_bilinear_on_the_unit_scale(size: int, images: Images) -> None:
    pixels = images.pixels[:24]
    scaled = pixels.float() / 255
    expected = F.interpolate(scaled, size=(size, size), mode="bilinear", align_corners=False)
    assert torch.equal(resize(pixels, size), expected)
    assert torch.equal(resize(scaled, size), expected)


def test_normalised_values_are_those_computed_by_hand(images: Images) -> None:
    mean, std = images.mean, images.std
    white = normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), mean, std).flatten().tolist()
    assert white == pytest.approx([(1 - m) / s for m, s in zip(mean, std, strict=True)], rel=1e-6)
    assert normalise(torch.tensor(mean).view(1, 3, 1, 1), mean, std).abs().max() == 0


def test_bytes_and_the_unit_scale_are_normalised_alike(images: Images) -> None:
    pixels = images.pixels[:24]
    found = normalise(pixels, images.mean, images.std)
    assert torch.equal(found, normalise(pixels.float() / 255, images.mean, images.std))
    assert found.dtype == torch.float32


def test_the_test_set_is_read_back_from_its_file(tmp_path: Path, images: Images) -> None:
    save_testset(tmp_path / "new" / "testset.npz", images)
    with np.load(tmp_path / "new" / "testset.npz") as file:
        pixels, labels = file["images"], file["labels"]
    assert pixels.shape == (300, 32, 32, 3) and pixels.dtype == np.uint8 and labels.dtype == np.int64
    assert np.array_equal(pixels.transpose(0, 3, 1, 2), images.pixels.numpy())
    assert np.array_equal(labels, images.labels.numpy())
