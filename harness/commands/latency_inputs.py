"""The inputs that any ONNX files are fed: every dimension a number, and what random numbers are drawn from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.bench.feeds import FEWEST
from harness.bench.job import DrawnInput
from harness.errors import HarnessError
from harness.host.memory_limit import total_bytes
from harness.model_files.onnx_file import OnnxFacts, Tensor


@dataclass(frozen=True)
class Wanted:
    """What the user has said about inputs.

    `batch` is for the first dimension of every input that leaves it open. `dims` are numbers for the names of other
    dimensions, or for INPUT.AXIS where a dimension has no name. `ranges` are the least and the largest number that is
    drawn for an input.
    """

    batch: int | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def drawn_inputs(files: Sequence[OnnxFacts], wanted: Wanted) -> list[list[DrawnInput]]:
    """The inputs of each file. HarnessError where a dimension has no number, or `wanted` names what is not there."""
    found = [[_drawn(file, tensor, wanted) for tensor in file.inputs] for file in files]
    _require_known(files, wanted)
    for file, inputs in zip(files, found, strict=True):
        size = FEWEST * sum(math.prod(one.shape) * np.dtype(one.dtype).itemsize for one in inputs)
        if size > total_bytes() / 2:
            raise HarnessError(
                f"{file.path}: {FEWEST} sets of its inputs take {size / 2**30:,.0f} GiB, over half of the memory here"
            )
    return found


def _drawn(file: OnnxFacts, tensor: Tensor, wanted: Wanted) -> DrawnInput:
    shape = [_size(file, tensor, axis, wanted) for axis in range(len(tensor.shape))]
    low, high = wanted.ranges.get(tensor.name, (None, None))
    if low is not None and high is not None:
        _require_range(file, tensor, low, high)
    return DrawnInput(name=tensor.name, dtype=tensor.dtype, shape=shape, low=low, high=high)


def _size(file: OnnxFacts, tensor: Tensor, axis: int, wanted: Wanted) -> int:
    given, place = tensor.shape[axis], f"{tensor.name}.{axis}"
    if isinstance(given, int):
        if axis == 0 and wanted.batch not in (None, given) and not _has_batch(file):
            raise HarnessError(
                f"{file.path}: input {tensor.name!r} has a fixed first dimension of {given}, so --batch {wanted.batch} "
                "cannot be had; export it with an open one"
            )
        return given
    for name in (given, place):
        if name in wanted.dims:
            return wanted.dims[name]
    if axis == 0 or (given and given in _batch_names(file)):
        return wanted.batch or 1
    raise HarnessError(
        f"{file.path}: dimension {given or axis!r} of input {tensor.name!r} has no value; "
        f"give it one: --dim {given or place}=128"
    )


def _batch_names(file: OnnxFacts) -> set[int | str]:
    """What a file calls its batch dimension: the names of first dimensions."""
    return {tensor.shape[0] for tensor in file.inputs if tensor.shape and isinstance(tensor.shape[0], str)}


def _has_batch(file: OnnxFacts) -> bool:
    return bool(_batch_names(file))


def _require_range(file: OnnxFacts, tensor: Tensor, low: float, high: float) -> None:
    kind, given = np.dtype(tensor.dtype), f"--range {tensor.name}={low:g}:{high:g}"
    if kind.kind == "b":
        raise HarnessError(f"{file.path}: {given}: the input is of truth values, which have no range")
    limits = np.iinfo(kind) if kind.kind in "iu" else np.finfo(kind)
    if not limits.min <= low <= high <= limits.max or (kind.kind in "iu" and (low % 1 or high % 1)):
        raise HarnessError(f"{file.path}: {given} is no range of {tensor.dtype}")


def _require_known(files: Sequence[OnnxFacts], wanted: Wanted) -> None:
    """HarnessError where a name of `wanted` is in none of the files: a typo would go unseen."""
    tensors = [tensor for file in files for tensor in file.inputs]
    names = {one for tensor in tensors for one in tensor.shape if isinstance(one, str) and one}
    places = {
        f"{tensor.name}.{axis}"
        for tensor in tensors
        for axis, one in enumerate(tensor.shape)
        if not isinstance(one, int)
    }
    for option, given, known in (
        ("--dim", wanted.dims, names or places),
        ("--range", wanted.ranges, {tensor.name for tensor in tensors}),
    ):
        if unknown := sorted(set(given) - known - (places if option == "--dim" else set())):
            allowed = ", ".join(sorted(known)) or "none, all dimensions are fixed"
            raise HarnessError(f"{option} {unknown[0]}: no file has it; there is {allowed}")
