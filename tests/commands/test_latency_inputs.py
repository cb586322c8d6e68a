from pathlib import Path
from typing import Any

import pytest

from harness.commands import latency_inputs
from harness.commands.latency_inputs import Wanted, drawn_inputs
from harness.errors import HarnessError
from harness.model_files.onnx_file import OnnxFacts, Tensor


def file(*tensors: tuple[str, str, tuple[int | str, ...]], name: str = "a.onnx") -> OnnxFacts:
    inputs = tuple(Tensor(*one) for one in tensors)
    return OnnxFacts(Path(name), "0" * 64, {}, 1, 1, 17, inputs, ())


IMAGES = file(("images", "float32", ("n", 3, 8, 8)))
FIXED = file(("images", "float32", (4, 3, 8, 8)))
TOKENS = file(("ids", "int64", ("batch", "sequence")), ("mask", "int64", ("batch", "sequence")), ("flag", "bool", ()))
UNNAMED = file(("x", "float32", ("", 3, "", 8)))


def shapes(given: OnnxFacts, **wanted: Any) -> list[list[int]]:
    return [one.shape for one in drawn_inputs([given], Wanted(**wanted))[0]]


def test_an_open_first_dimension_is_the_batch_which_is_one_unless_it_is_given() -> None:
    assert shapes(IMAGES) == [[1, 3, 8, 8]]
    assert shapes(IMAGES, batch=8) == [[8, 3, 8, 8]]
    assert shapes(TOKENS, batch=2, dims={"sequence": 5}) == [[2, 5], [2, 5], []]
    assert shapes(IMAGES, dims={"n": 3}) == [[3, 3, 8, 8]]


def test_the_name_of_the_batch_is_the_batch_wherever_it_stands() -> None:
    both = file(("a", "float32", ("n", 2)), ("b", "float32", (5, "n")))
    assert shapes(both, batch=3) == [[3, 2], [5, 3]]


def test_a_fixed_batch_stays_and_another_one_is_refused() -> None:
    assert shapes(FIXED) == shapes(FIXED, batch=4) == [[4, 3, 8, 8]]
    with pytest.raises(HarnessError, match=r"a\.onnx: input 'images' has a fixed first dimension of 4, so --batch 8"):
        shapes(FIXED, batch=8)


def test_a_dimension_without_a_value_is_named_with_the_option_that_gives_it_one() -> None:
    with pytest.raises(HarnessError, match=r"a\.onnx: dimension 'sequence' of input 'ids' has no .*--dim sequence=128"):
        shapes(TOKENS)
    with pytest.raises(HarnessError, match=r"dimension 2 of input 'x' has no value; give it one: --dim x\.2=128"):
        shapes(UNNAMED)
    assert shapes(UNNAMED, dims={"x.2": 5}) == [[1, 3, 5, 8]]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"dims": {"sequense": 5, "sequence": 5}}, r"--dim sequense: no file has it; there is batch, sequence"),
        ({"dims": {"sequence": 5}, "ranges": {"id": (0, 9)}}, r"--range id: no file has it; there is flag, ids, mask"),
        ({"dims": {"sequence": 5}, "ranges": {"flag": (0, 1)}}, "truth values, which have no range"),
        ({"dims": {"sequence": 5}, "ranges": {"ids": (0.5, 9)}}, r"--range ids=0\.5:9 is no range of int64"),
        ({"dims": {"sequence": 5}, "ranges": {"ids": (9, 0)}}, "is no range of int64"),
        ({"dims": {"sequence": 5}, "ranges": {"ids": (0, 1e30)}}, "is no range of int64"),
        ({"dims": {"sequence": 5}, "ranges": {"ids": (float("nan"), 1)}}, "is no range of int64"),
    ],
)
def test_what_fits_no_input_is_refused(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(HarnessError, match=said):
        shapes(TOKENS, **wanted)


def test_a_range_goes_to_the_input_of_its_name() -> None:
    (found,) = drawn_inputs([TOKENS], Wanted(dims={"sequence": 5}, ranges={"ids": (0, 29999)}))
    assert [(one.low, one.high) for one in found] == [(0, 29999), (None, None), (None, None)]


def test_a_name_has_to_be_in_one_file_only() -> None:
    found = drawn_inputs([IMAGES, TOKENS], Wanted(dims={"sequence": 5}))
    assert [[one.shape for one in inputs] for inputs in found] == [[[1, 3, 8, 8]], [[1, 5], [1, 5], []]]


def test_inputs_that_memory_has_no_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HarnessError, match=r"a\.onnx: 4 sets of its inputs take 16,.* GiB, over half of the memory"):
        shapes(file(("x", "float32", (2**20, 2**20))))
    monkeypatch.setattr(latency_inputs, "total_bytes", lambda: 1000)
    with pytest.raises(HarnessError, match="over half of the memory"):
        shapes(IMAGES)
