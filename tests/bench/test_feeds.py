from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench.feeds import DISTINCT, FEWEST, MOST_BYTES, distinct, drawn, feeds
from harness.bench.job import Assignment, DrawnInput, ModelInput, OnnxFile
from harness.plan.bench_settings import Bench
from tests.bench_kit import SETTINGS, Workshop

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def one(name: str = "x", dtype: str = "float32", shape: tuple[int, ...] = (2, 3), **more: Any) -> DrawnInput:
    return DrawnInput(name=name, dtype=dtype, shape=list(shape), **more)


inputs = st.builds(
    one,
    st.sampled_from("abc"),
    st.sampled_from([*FLOATS, *INTEGERS, "bool"]),
    st.lists(st.integers(1, 4), max_size=4).map(tuple),
)


@given(inputs, st.integers(0, 9), st.integers(0, 9))
def test_what_is_drawn_has_the_type_and_shape_of_the_input(wanted: DrawnInput, seed: int, block: int) -> None:
    for feed in drawn([wanted], seed, block)[:3]:
        (value,) = feed.values()
        assert value.dtype == np.dtype(wanted.dtype)
        assert value.shape == tuple(wanted.shape)
        assert np.isfinite(value).all()


@given(inputs, st.lists(inputs, max_size=3), st.integers(0, 5))
def test_an_input_gets_the_same_values_beside_any_others(
    wanted: DrawnInput, others: list[DrawnInput], seed: int
) -> None:
    others = [other for other in others if other.name != wanted.name]
    alone, together = drawn([wanted], seed, 0), drawn([*others, wanted], seed, 0)
    for left, right in zip(alone[:3], together[:3], strict=True):
        np.testing.assert_array_equal(left[wanted.name], right[wanted.name])


def test_other_seeds_and_blocks_give_other_values() -> None:
    firsts = [drawn([one()], seed, block)[0]["x"].tobytes() for seed in range(3) for block in range(3)]
    assert len(set(firsts)) == 9


def test_there_are_many_distinct_feeds_and_of_large_inputs_fewer() -> None:
    assert distinct(drawn([one()], 0, 0)) == DISTINCT
    large = one(shape=(MOST_BYTES // 4 // 10,))
    assert distinct(drawn([large], 0, 0)) == 10
    assert len(drawn([one(shape=(MOST_BYTES,), dtype="int8")], 0, 0)) == FEWEST


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint16"])
def test_wide_integers_are_zero_or_one_so_that_they_index_any_table(dtype: str) -> None:
    assert set(np.unique(drawn([one(dtype=dtype, shape=(50,))], 0, 0)[0]["x"])) == {0, 1}


@pytest.mark.parametrize(("dtype", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255)])
def test_bytes_have_their_whole_range(dtype: str, low: int, high: int) -> None:
    values = drawn([one(dtype=dtype, shape=(5000,))], 0, 0)[0]["x"]
    assert (values.min(), values.max()) == (low, high)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_a_range_that_is_given_is_kept_to_its_ends(dtype: str) -> None:
    values = drawn([one(dtype=dtype, shape=(2000,), low=3.0, high=9.0)], 0, 0)[0]["x"]
    assert 3 <= values.min() < 3.1 or values.min() == 3
    assert 8.9 < values.max() <= 9


def test_floating_point_numbers_are_normal() -> None:
    values = np.concatenate([feed["x"].ravel() for feed in drawn([one(shape=(100,))], 0, 0)])
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02


@pytest.mark.parametrize(("batch", "channels_last"), [(None, False), (4, False), (300, False), (2, True)])
def test_images_come_in_the_batches_and_the_layout_of_the_model(
    workshop: Workshop, batch: int | None, channels_last: bool
) -> None:
    wanted = ModelInput(
        size=6,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        name="images",
        dtype="float16",
        channels_last=channels_last,
        batch=batch,
    )
    assignment = Assignment(
        model=OnnxFile(cell="a", title="a", onnx=Path("a.onnx"), onnx_sha256="0" * 64),
        input=wanted,
        testset=workshop.testset(120),
        settings=Bench.model_validate(SETTINGS),
        harness_revision="unknown",
        engine="onnxruntime-current",
        threads=1,
        cpus=[0],
        failure=Path("x"),
    )
    found = feeds(assignment)
    shape = (batch or 1, *((6, 6, 3) if channels_last else (3, 6, 6)))
    assert {(feed["images"].shape, feed["images"].dtype) for feed in found} == {(shape, np.dtype("float16"))}
    assert len(found) >= FEWEST
    # of 120 images
    assert distinct(found) >= min(len(found), 120 // (batch or 1))
