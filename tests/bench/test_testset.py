from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.bench.job import ModelInput
from harness.bench.testset import load_testset, preprocess, resize_matrix
from harness.errors import HarnessError
from tests.bench_kit import Workshop

sides = st.integers(1, 40)


@given(old_rows=sides, old_columns=sides, new=sides, seed=st.integers(0, 9))
def test_preprocessing_equals_torch(old_rows: int, old_columns: int, new: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (2, old_rows, old_columns, 3), dtype=np.uint8)
    mean, std = (0.5, 0.48, 0.44), (0.26, 0.25, 0.27)
    ours = preprocess(images, ModelInput(size=new, mean=mean, std=std))
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = torch.nn.functional.interpolate(x, size=(new, new), mode="bilinear", align_corners=False)
    theirs = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert ours.dtype == np.float32
    assert ours.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-5)


@given(old=sides, new=sides)
def test_interpolation_weights_sum_to_one(old: int, new: int) -> None:
    matrix = resize_matrix(old, new)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    assert matrix.min() >= 0
    if old == new:
        np.testing.assert_array_equal(matrix, np.eye(old))


def test_a_test_set_is_read_as_written(workshop: Workshop) -> None:
    found = load_testset(workshop.testset(count=7))
    assert found.images.shape == (7, 8, 8, 3)
    assert found.labels.shape == (7,)


@pytest.mark.parametrize("keep", [0, 10, 2000, -1, -30])
def test_a_truncated_test_set_is_named(workshop: Workshop, keep: int) -> None:
    path = workshop.testset()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(HarnessError, match=r"testset-stand-in\.npz: not a readable test set"):
        load_testset(path)


def test_flipped_bytes_in_a_test_set_are_noticed(workshop: Workshop) -> None:
    path = workshop.testset()
    data = bytearray(path.read_bytes())
    data[5000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(HarnessError, match="not a readable test set"):
        load_testset(path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, "labels"),
        ({"images": np.zeros((2, 3, 4, 4), np.uint8), "labels": np.zeros(2, np.int64)}, "images are uint8"),
        ({"images": np.zeros((2, 4, 4, 3)), "labels": np.zeros(2, np.int64)}, "images are float64"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8), "labels": np.zeros(0, np.int64)}, "images are"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.zeros(3, np.int64)}, "labels are"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.full(2, -1)}, "labels are"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.array([None, {}])}, "not a readable"),
    ],
)
def test_a_foreign_test_set_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    path = tmp_path / "testset.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(HarnessError, match=said):
        load_testset(path)


def test_a_missing_test_set_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="run the export first"):
        load_testset(tmp_path / "none.npz")
