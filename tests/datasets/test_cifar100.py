import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torchvision.datasets import CIFAR100

from harness.datasets import cifar100, load, provide
from harness.datasets.cifar100 import DATASET, MARKER, MEAN, OFFICIAL, STD
from harness.datasets.image_folder import _mean_and_deviation
from harness.errors import HarnessError
from harness.plan.settings import Settings
from tests.command import real_data
from tests.training_kit import tiny_settings

NONE: dict[str, Any] = {}
REAL = real_data()


def fake_file(count: int) -> bytes:
    pixels = np.arange(count * 3072, dtype=np.uint32).astype(np.uint8).reshape(count, 3072)
    return pickle.dumps({"data": pixels, "fine_labels": [n % 100 for n in range(count)]})


def write_fake(folder: Path) -> dict[str, bytes]:
    contents = {"train": fake_file(5), "test": fake_file(3), "meta": b"names"}
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return contents


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 5 training and 3 test images that counts as the official one."""
    contents = write_fake(tmp_path / MARKER)
    monkeypatch.setattr(
        cifar100, "OFFICIAL", {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    )
    return tmp_path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return tiny_settings(tmp_path / "matrix", ["l1"], ["base"])


# --- Finding ---------------------------------------------------------------------------------------------------------


def test_without_its_folder_the_data_set_is_not_there(tmp_path: Path) -> None:
    assert not DATASET.find(tmp_path, NONE)


def test_a_whole_data_set_is_found_and_nothing_is_downloaded(official: Path, settings: Settings) -> None:
    assert DATASET.find(official, NONE)
    assert provide(settings, official) == "cifar100"


@pytest.mark.parametrize("given_by", ["", "--data-dir x"])
@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_damaged_file_is_named_and_never_replaced_by_the_fallback(
    official: Path, settings: Settings, name: str, given_by: str
) -> None:
    path = official / MARKER / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(HarnessError, match=rf"{MARKER}/{name}: not the official file.*DATA_DIR") as caught:
        provide(settings, official, given_by)
    assert ("download failed" in str(caught.value)) == (given_by == "")


def test_a_file_that_is_damaged_after_it_was_verified_is_noticed(official: Path) -> None:
    assert DATASET.find(official, NONE)
    path = official / MARKER / "train"
    path.write_bytes(fake_file(6))
    with pytest.raises(HarnessError, match="not the official file"):
        DATASET.find(official, NONE)


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_missing_file_is_named(official: Path, name: str) -> None:
    (official / MARKER / name).unlink()
    with pytest.raises(HarnessError, match=rf"{MARKER}/{name}: missing"):
        DATASET.find(official, NONE)


def test_the_official_hashes_are_torchvisions() -> None:
    lists = [*CIFAR100.train_list, *CIFAR100.test_list, (CIFAR100.meta["filename"], CIFAR100.meta["md5"])]
    assert dict(lists) == OFFICIAL


# --- Downloading -----------------------------------------------------------------------------------------------------


def downloading(write: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo the fixture `offline`, and have torchvision's download write what the function writes."""
    monkeypatch.undo()
    monkeypatch.delenv("DATA_DIR", raising=False)

    def download(root: Path, download: bool) -> None:
        assert download
        write(Path(root) / MARKER)

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", download)


def test_a_download_ends_up_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloading(write_fake, monkeypatch)
    DATASET.fetch(tmp_path / "data", NONE)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [MARKER]
    assert {path.name for path in (tmp_path / "data" / MARKER).iterdir()} == set(OFFICIAL)


def test_an_interrupted_download_leaves_nothing_that_stands_in_the_way_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    def half(folder: Path) -> None:
        folder.mkdir()
        (folder / "train").write_bytes(b"cut sho")
        raise OSError("connection lost")

    downloading(half, monkeypatch)
    assert provide(settings, tmp_path / "data") == "stand_in"
    assert not DATASET.find(tmp_path / "data", NONE)
    assert list((tmp_path / "data").iterdir()) == []


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [cut_short, Path.unlink], ids=["cut short", "missing"])
@pytest.mark.parametrize("name", ["train", "meta"])
def test_a_download_that_is_not_whole_is_made_again(
    official: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[Path], None]
) -> None:
    whole = dict(cifar100.OFFICIAL)
    downloading(write_fake, monkeypatch)
    monkeypatch.setattr(cifar100, "OFFICIAL", whole)
    damage(official / MARKER / name)
    with pytest.raises(HarnessError, match=rf"{MARKER}/{name}: "):
        provide(settings, official, "--data-dir x")
    assert provide(settings, official) == "cifar100"
    assert DATASET.find(official, NONE)
    assert [path.name for path in official.iterdir() if path.name != "matrix"] == [MARKER]


# --- Loading ---------------------------------------------------------------------------------------------------------


def test_images_and_labels_are_those_of_the_file(official: Path) -> None:
    images = load("cifar100", NONE, official, train=True)
    assert images.pixels.shape == (5, 3, 32, 32) and images.pixels.dtype == torch.uint8
    assert images.pixels.flatten()[:300].tolist() == [n % 256 for n in range(300)]
    assert images.labels.tolist() == [0, 1, 2, 3, 4] and images.labels.dtype == torch.int64
    assert (images.mean, images.std) == (MEAN, STD)
    assert len(load("cifar100", NONE, official, train=False).labels) == 3


def test_loading_where_there_is_nothing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=rf"CIFAR-100 is not in {tmp_path}; give its folder with DATA_DIR"):
        load("cifar100", NONE, tmp_path, train=True)


class Bomb:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize("path", ["load", "dataset", "provide"])
def test_a_pickle_that_is_not_the_official_one_is_never_opened(
    official: Path, settings: Settings, tmp_path: Path, name: str, path: str
) -> None:
    trace = tmp_path / "trace"
    (official / MARKER / name).write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(HarnessError, match="not the official file"):
        if path == "load":
            load("cifar100", NONE, official, train=name == "train")
        elif path == "dataset":
            DATASET.load(official, NONE, train=name == "train")
        else:
            provide(settings, official)
    assert not trace.exists()
    pickle.loads((official / MARKER / name).read_bytes())
    assert trace.exists(), "opened, it would have run code"


@pytest.mark.skipif(REAL is None, reason="CIFAR-100 is not here (DATA_DIR): the real data set is not looked at")
def test_the_real_data_set_is_whole() -> None:
    assert REAL is not None
    assert DATASET.find(REAL, NONE)
    test = load("cifar100", NONE, REAL, train=False)
    assert test.pixels.shape == (10_000, 3, 32, 32)
    assert test.labels.bincount().tolist() == [100] * 100
    train = load("cifar100", NONE, REAL, train=True)
    assert train.labels.bincount().tolist() == [500] * 100
    mean, deviation = _mean_and_deviation(train.pixels.numpy())
    assert mean == pytest.approx(MEAN, abs=1e-4) and deviation == pytest.approx(STD, abs=1e-4)


@pytest.mark.skipif(REAL is None, reason="CIFAR-100 is not here (DATA_DIR): its ten classes are not looked at")
def test_ten_classes_are_the_first_of_the_hundred() -> None:
    assert REAL is not None
    whole, ten = (load(name, NONE, REAL, train=False) for name in ("cifar100", "cifar100_ten"))
    assert ten.labels.bincount().tolist() == [100] * 10
    assert torch.equal(ten.pixels, whole.pixels[whole.labels < 10])
    assert len(load("cifar100_ten", NONE, REAL, train=True).labels) == 5_000
