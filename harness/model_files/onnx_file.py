"""What any ONNX file says of itself: inputs, outputs, parameters, size.

It may come from anywhere, so nothing is taken at its word. A tensor that claims to be larger than what is there is
refused before memory is given to it, and external data is read from the file's own folder alone.
"""

import hashlib
import math
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from harness.bench.model_input import metadata_of, text
from harness.errors import HarnessError
from harness.files import file_sha256, is_file
from harness.model_files.parameters import onnx_parameter_count

# protobuf's own limit, of which the file's header is a part
MOST_BYTES = 2**31 - 1
# numpy's names of the types that an engine can be fed from numpy
FED: Mapping[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.BOOL: "bool",
}
# bits of an element, by the name of its type; of what is not here (8-bit floats) 8
BITS = {"DOUBLE": 64, "INT64": 64, "UINT64": 64, "COMPLEX64": 64, "COMPLEX128": 128}
BITS |= {"FLOAT": 32, "INT32": 32, "UINT32": 32, "FLOAT16": 16, "BFLOAT16": 16, "INT16": 16, "UINT16": 16}
BITS |= {"INT8": 8, "UINT8": 8, "BOOL": 8, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
# the fields of a tensor that hold one number each
NUMBERS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


@dataclass(frozen=True)
class Tensor:
    """An input or output. A dimension is a number, a name, or "" where the file says nothing."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join(str(one or '?') for one in self.shape)}]"


@dataclass(frozen=True)
class OnnxFacts:
    """What is known of a file before anything runs it. `size_bytes` has its external data in it."""

    path: Path
    sha256: str
    external_sha256: Mapping[str, str]
    size_bytes: int
    params: int
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_facts(path: Path) -> OnnxFacts:
    """Read an ONNX file without running it; HarnessError says why it cannot be one that is measured."""
    data = _bytes(path)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's decoding errors have no public class
        raise HarnessError(
            f"{path}: not a readable ONNX file ({' '.join(str(error).split())}); it may be cut short: export it again"
        ) from error
    if not model.HasField("graph") or not model.graph.node:
        raise HarnessError(f"{path}: not an ONNX model: there is no graph in it")
    external = dict(_external_files(model, path))
    _require_sizes(model, path, {name: size for name, (_, size) in external.items()})
    # Up to version 3 of the format weights are inputs as well.
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_tensor(path, "input", one) for one in model.graph.input if one.name not in weights)
    if not inputs:
        raise HarnessError(f"{path}: the model has no inputs, so it has nothing to compute that is worth timing")
    if not model.graph.output:
        raise HarnessError(f"{path}: the model has no outputs")
    versions = {one.domain: one.version for one in model.opset_import}
    return OnnxFacts(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        external_sha256={name: file_sha256(beside) for name, (beside, _) in external.items()},
        size_bytes=len(data) + sum(size for _, size in external.values()),
        params=onnx_parameter_count(model),
        opset=versions.get("", versions.get("ai.onnx", 0)),
        inputs=inputs,
        outputs=tuple(_tensor(path, "output", one, strict=False) for one in model.graph.output),
        metadata=metadata_of(model),
    )


def _bytes(path: Path) -> bytes:
    """A regular file's content; HarnessError on anything else, without opening it."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
            kind = kinds.get(stat.S_IFMT(found.st_mode), "a device")
            raise HarnessError(f"{path}: is {kind}, not an ONNX file")
        if found.st_size > MOST_BYTES:
            raise HarnessError(
                f"{path}: {found.st_size / 2**30:.1f} GiB is more than protobuf can read (2 GiB); save the model with "
                "its weights as external data"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise HarnessError(f"{path}: no such file") from None
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from error


def _tensor(path: Path, what: str, value: ValueInfoProto, strict: bool = True) -> Tensor:
    """An input or output as the file declares it. Where it is `strict`, it must be a tensor that can be fed."""
    kind = value.type.tensor_type if value.type.HasField("tensor_type") else None
    number = kind.elem_type if kind else 0
    if number and number not in TensorProto.DataType.values():
        raise HarnessError(f"{path}: {what} {value.name!r} is of the unknown data type {number}")
    if strict and number not in FED:
        name = TensorProto.DataType.Name(number) if kind and number else "no tensor type"
        raise HarnessError(f"{path}: {what} {value.name!r} is of {name}, which cannot be made from random numbers")
    shape = tuple(_dimension(path, what, value.name, one) for one in kind.shape.dim) if kind else ()
    if strict and kind and not kind.HasField("shape"):
        raise HarnessError(f"{path}: {what} {value.name!r} does not say how many dimensions it has; export it again")
    return Tensor(text(value.name), FED.get(number, "other"), shape)


def _dimension(path: Path, what: str, name: str, one: onnx.TensorShapeProto.Dimension) -> int | str:
    if one.WhichOneof("value") != "dim_value":
        return text(one.dim_param)
    if one.dim_value == 0:
        raise HarnessError(f"{path}: {what} {name!r} has a dimension of 0")
    # some exporters write -1 for what they do not know
    return int(one.dim_value) if one.dim_value > 0 else ""


# --- Weights: what is there, against what is claimed -----------------------------------------------------------------


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that a model holds, those in the bodies of its nodes and functions included."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
        if attribute.HasField("sparse_tensor"):
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _of_graph(body)


def _is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


def _place(tensor: TensorProto) -> dict[str, str]:
    return {text(entry.key): text(entry.value) for entry in tensor.external_data}


def _external_files(model: ModelProto, path: Path) -> Iterator[tuple[str, tuple[Path, int]]]:
    """The files of external data by their path in the model's folder, each with where it is and its size in bytes."""
    folder = path.parent.resolve()
    for name in sorted({_place(one).get("location", "") for one in tensors(model) if _is_external(one)}):
        beside = path.parent / name
        named = bool(name) and "\0" not in name and not Path(name).is_absolute()
        inside = named and beside.resolve().is_relative_to(folder)
        if not inside:
            raise HarnessError(f"{path}: its external data {name!r} is not in its own folder, where alone it is read")
        if not is_file(beside):
            raise HarnessError(f"{path}: its external data {name!r} is not beside it; copy it there")
        yield name, (beside, beside.stat().st_size)


def _require_sizes(model: ModelProto, path: Path, external: Mapping[str, int]) -> None:
    """HarnessError unless every tensor has as much data as its shape and type claim."""
    for tensor in tensors(model):
        what = f"{path}: tensor {tensor.name!r}"
        if tensor.data_type not in TensorProto.DataType.values() or not tensor.data_type:
            raise HarnessError(f"{what} is of the unknown data type {tensor.data_type}")
        kind = TensorProto.DataType.Name(tensor.data_type)
        if min(tensor.dims, default=0) < 0:
            raise HarnessError(f"{what} has a negative dimension")
        if kind == "STRING":
            continue
        elements, bits = math.prod(tensor.dims), BITS.get(kind, 8)
        claimed = math.ceil(elements * bits / 8)
        if _is_external(tensor):
            place = _place(tensor)
            offset, length = _number(what, place, "offset"), _number(what, place, "length")
            there = min(length or claimed, max(0, external[place["location"]] - offset))
        elif tensor.HasField("raw_data"):
            there = len(tensor.raw_data)
        else:
            # Complex numbers are two numbers each, and several of the smallest integers share one.
            wanted = 2 * elements if kind.startswith("COMPLEX") else math.ceil(elements * min(bits, 8) / 8)
            numbers = sum(len(getattr(tensor, name)) for name in NUMBERS)
            there = claimed if numbers >= wanted else claimed * numbers // wanted
        if there < claimed:
            shape = " x ".join(map(str, tensor.dims))
            raise HarnessError(f"{what} claims {shape} {kind} ({claimed:,} bytes), and {there:,} are there")


def _number(what: str, place: Mapping[str, str], key: str) -> int:
    text = place.get(key) or "0"
    if not text.isdecimal():
        raise HarnessError(f"{what}: {key} {text!r} of its external data is no number")
    return int(text)
