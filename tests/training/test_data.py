import hashlib
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import CIFAR100

from harness.errors import HarnessError
from harness.store.paths import data_root
from harness.training import data
from harness.training.data import OFFICIAL, Images, Stream, draw_stand_in, find, load, provide, save_testset

REAL = data_root() if os.environ.get("DATA_DIR") else None
FOLDER = "cifar-100-python"


def fake_file(count: int) -> bytes:
    pixels = np.arange(count * 3072, dtype=np.uint32).astype(np.uint8).reshape(count, 3072)
    return pickle.dumps({"data": pixels, "fine_labels": [n % 100 for n in range(count)]})


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 5 + 3 images that counts as the official one."""
    contents = {"train": fake_file(5), "test": fake_file(3), "meta": b"names"}
    (tmp_path / FOLDER).mkdir()
    for name, content in contents.items():
        (tmp_path / FOLDER / name).write_bytes(content)
    monkeypatch.setattr(
        data, "OFFICIAL", {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    )
    return tmp_path


# --- Finding and providing -------------------------------------------------------------------------------------------


def test_where_there_is_no_folder_there_is_no_data(tmp_path: Path) -> None:
    assert not find(tmp_path)


def test_a_whole_data_set_is_found_and_nothing_is_downloaded(official: Path) -> None:
    assert find(official)
    assert provide(official, allow_stand_in=False) == "cifar100"


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_damaged_file_is_named_and_never_replaced_by_the_stand_in(official: Path, name: str) -> None:
    path = official / FOLDER / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(HarnessError, match=rf"{FOLDER}/{name}: not the official file.*DATA_DIR"):
        provide(official, allow_stand_in=True)


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_missing_file_is_named(official: Path, name: str) -> None:
    (official / FOLDER / name).unlink()
    with pytest.raises(HarnessError, match=rf"{FOLDER}/{name}: missing"):
        find(official)


def test_where_a_download_fails_the_stand_in_serves_those_who_allow_it(tmp_path: Path) -> None:
    assert provide(tmp_path, allow_stand_in=True) == "stand-in"


def test_where_a_download_fails_the_others_are_told_why_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"download failed: no network in tests.*DATA_DIR="):
        provide(tmp_path, allow_stand_in=False)


def test_a_failed_download_leaves_the_sockets_patience_as_it_was(tmp_path: Path) -> None:
    before = socket.getdefaulttimeout()
    provide(tmp_path, allow_stand_in=True)
    assert socket.getdefaulttimeout() == before


def test_the_official_files_are_torchvisions() -> None:
    lists = [*CIFAR100.train_list, *CIFAR100.test_list, (CIFAR100.meta["filename"], CIFAR100.meta["md5"])]
    assert dict(lists) == OFFICIAL


def test_training_starts_without_torchvision() -> None:
    code = "import sys, harness.training.pipeline; sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def unwanted(_: Path) -> None:
    raise AssertionError("nothing is to be downloaded")


@pytest.mark.parametrize("allow", [True, False])
def test_no_download_where_none_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allow: bool) -> None:
    monkeypatch.setattr(data, "_download", unwanted)
    if allow:
        assert provide(tmp_path, allow_stand_in=True, download=False) == "stand-in"
    else:
        with pytest.raises(HarnessError, match="not downloaded"):
            provide(tmp_path, allow_stand_in=False, download=False)


@pytest.mark.parametrize("allow", [True, False])
def test_a_data_dir_without_data_is_not_downloaded_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allow: bool
) -> None:
    monkeypatch.setattr(data, "_download", unwanted)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    if allow:
        assert provide(tmp_path, allow_stand_in=True) == "stand-in"
    else:
        with pytest.raises(HarnessError, match=f"DATA_DIR={tmp_path}: no {FOLDER} in it"):
            provide(tmp_path, allow_stand_in=False)


# --- Loading ---------------------------------------------------------------------------------------------------------


def test_images_and_labels_are_as_in_the_file(official: Path) -> None:
    images = load("cifar100", official, train=True)
    assert images.pixels.shape == (5, 3, 32, 32) and images.pixels.dtype == torch.uint8
    assert images.pixels.flatten()[:300].tolist() == [n % 256 for n in range(300)]
    assert images.labels.tolist() == [0, 1, 2, 3, 4] and images.labels.dtype == torch.int64
    assert len(load("cifar100", official, train=False).labels) == 3


def test_a_truncated_file_is_an_error_that_names_it(official: Path) -> None:
    path = official / FOLDER / "test"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(HarnessError, match=f"{path}: not a CIFAR-100 file"):
        load("cifar100", official, train=False)


def test_a_file_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=f"{FOLDER}/train: missing"):
        load("cifar100", tmp_path, train=True)


@pytest.mark.skipif(REAL is None, reason="DATA_DIR is not set: the real CIFAR-100 is not looked at")
def test_the_real_data_set_is_whole() -> None:
    assert REAL is not None
    if not find(REAL):
        pytest.skip(f"DATA_DIR is set, but there is no {FOLDER} in {REAL}")
    test = load("cifar100", REAL, train=False)
    assert test.pixels.shape == (10_000, 3, 32, 32)
    assert test.labels.bincount().tolist() == [100] * 100
    train = load("cifar100", REAL, train=True)
    assert train.labels.bincount().tolist() == [500] * 100


# --- The stand-in ----------------------------------------------------------------------------------------------------


def test_the_stand_ins_classes_are_balanced(images: Images) -> None:
    assert images.pixels.shape == (300, 3, 32, 32) and images.pixels.dtype == torch.uint8
    assert images.labels.bincount().tolist() == [3] * 100


def test_the_stand_in_is_the_same_every_time_and_another_for_another_seed() -> None:
    once, again, other = (draw_stand_in(100, seed) for seed in (1, 1, 2))
    assert torch.equal(once.pixels, again.pixels) and torch.equal(once.labels, again.labels)
    assert not torch.equal(once.labels, other.labels)
    assert not torch.equal(once.pixels[once.labels.argsort()], other.pixels[other.labels.argsort()])


def test_the_stand_ins_training_and_test_images_differ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: dict[int, int] = {}
    monkeypatch.setattr(data, "draw_stand_in", lambda count, seed: drawn.update({seed: count}))
    load("stand-in", tmp_path, train=True)
    load("stand-in", tmp_path, train=False)
    assert sorted(drawn.values()) == [5_000, 10_000]


def test_the_stand_in_can_be_learned(images: Images) -> None:
    """A nearest neighbour in the spectrum of its colours is right far more often than one in a hundred."""

    def look(seen: Images) -> torch.Tensor:
        spectrum = torch.fft.rfft2(seen.pixels.float()).abs()
        spectrum[:, :, 0, 0] *= 4
        return spectrum.flatten(1) / spectrum.flatten(1).norm(dim=1, keepdim=True)

    known = draw_stand_in(1000, seed=8)
    nearest = (look(images) @ look(known).T).argmax(1)
    assert (known.labels[nearest] == images.labels).float().mean() > 0.3


def test_the_test_set_comes_back_from_its_file(tmp_path: Path, images: Images) -> None:
    save_testset(tmp_path / "new" / "testset.npz", images)
    with np.load(tmp_path / "new" / "testset.npz") as file:
        pixels, labels = file["images"], file["labels"]
    assert pixels.shape == (300, 32, 32, 3) and pixels.dtype == np.uint8 and labels.dtype == np.int64
    assert np.array_equal(pixels.transpose(0, 3, 1, 2), images.pixels.numpy())
    assert np.array_equal(labels, images.labels.numpy())


# --- Batches ---------------------------------------------------------------------------------------------------------


def numbered(count: int) -> Images:
    """Images whose label is their number."""
    return Images(torch.zeros(count, 3, 8, 8, dtype=torch.uint8), torch.arange(count))


@pytest.mark.parametrize("augmentations", [("crop", "flip", "cutout"), ("study",)])
def test_a_batch_is_the_same_whatever_the_step_one_starts_from(images: Images, augmentations: tuple[str, ...]) -> None:
    stream = Stream(images.first(40), 8, 16, augmentations, seed=1)
    whole = list(stream.batches(2))
    assert len(whole) == stream.steps == 5
    for first in range(6):
        rest = list(stream.batches(2, first))
        assert len(rest) == 5 - first
        for (pixels, labels), (others, other_labels) in zip(rest, whole[first:], strict=True):
            assert torch.equal(pixels, others) and torch.equal(labels, other_labels)


def test_epochs_and_seeds_have_batches_of_their_own(images: Images) -> None:
    firsts = [
        next(iter(Stream(images, 8, 16, ("crop",), seed).batches(epoch)))[0] for seed in (0, 1) for epoch in (0, 1)
    ]
    assert len(torch.stack(firsts).unique(dim=0)) == 4


def test_the_same_image_is_augmented_anew_in_each_epoch(images: Images) -> None:
    stream = Stream(images.first(1), 1, 32, ("crop",), seed=0)
    seen = torch.cat([pixels for epoch in range(5) for pixels, _ in stream.batches(epoch)])
    assert len(seen.unique(dim=0)) > 1


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 3), st.integers(0, 2**31))
def test_every_image_comes_at_most_once_an_epoch(count: int, batch_size: int, epoch: int, seed: int) -> None:
    stream = Stream(numbered(count), batch_size, 8, (), seed)
    batches = [labels.tolist() for _, labels in stream.batches(epoch)]
    seen = [label for labels in batches for label in labels]
    assert len(set(seen)) == len(seen) == (count if count < batch_size else count // batch_size * batch_size)
    assert len(batches) == stream.steps


def test_every_epoch_has_an_order_of_its_own() -> None:
    stream = Stream(numbered(20), 20, 8, (), seed=0)
    orders = {tuple(labels.tolist()) for epoch in range(3) for _, labels in stream.batches(epoch)}
    assert len(orders) == 3


def test_batches_are_normalised_floats_of_the_size_asked_for(images: Images) -> None:
    pixels, labels = next(iter(Stream(images, 100, 24, ("crop", "flip"), seed=0).batches(0)))
    assert pixels.shape == (100, 3, 24, 24) and pixels.dtype == torch.float32 and labels.shape == (100,)
    assert pixels.min() < -0.5 and pixels.max() > 0.5
