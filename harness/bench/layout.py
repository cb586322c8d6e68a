"""How many of a model's convolutions the runtime computes in NCHWc, its fast layout, as its optimised graph says.

Where channel counts do not fit the CPU's vector width the runtime falls back on plain NCHW, which can cost more than
the pruned channels save. The optimised graph is an ONNX file; the few fields needed are read off its wire format, since
the bench's environment has no onnx package.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnxruntime

NCHWC = "com.microsoft.nchwc"
CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv")
# protobuf fields of onnx.proto: ModelProto.graph, GraphProto.node, NodeProto.op_type and .domain
GRAPH, NODE, OP_TYPE, DOMAIN = 7, 1, 4, 7
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def convolutions(data: bytes, options: onnxruntime.SessionOptions) -> tuple[int, int]:
    """Convolutions of the model in all, and those of them in NCHWc, when it is opened with these options."""
    with tempfile.TemporaryDirectory(prefix="harness-layout-") as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        # the runtime warns that such a file fits this machine only, which is the point
        options.log_severity_level = 3
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        nodes = list(_nodes(path.read_bytes()))
    found = [domain for op_type, domain in nodes if op_type in CONVOLUTIONS]
    return len(found), sum(domain == NCHWC for domain in found)


def _nodes(model: bytes) -> Iterator[tuple[str, str]]:
    """Operator and domain of every node of a serialised ModelProto."""
    for graph in _fields(memoryview(model), GRAPH):
        for node in _fields(graph, NODE):
            op_type, domain = (b"".join(map(bytes, _fields(node, field))).decode() for field in (OP_TYPE, DOMAIN))
            yield op_type, domain


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The length-delimited values of one field of a protobuf message."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == BYTES:
            length, place = _varint(message, place)
            if tag >> 3 == wanted:
                yield message[place : place + length]
            place += length
        elif kind == VARINT:
            _, place = _varint(message, place)
        elif kind in (FIXED64, FIXED32):
            place += 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {place}: not an ONNX file")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
