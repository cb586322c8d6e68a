"""How many parameters an ONNX file holds, whatever their type and wherever the file keeps them."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

# Operators of quantised networks, and which of their inputs, counted from 0, are operands. The others are scales and
# zero points, which say how to read an operand and are no parameters.
OPERANDS = {
    "QuantizeLinear": (0,),
    "DequantizeLinear": (0,),
    "QLinearConv": (0, 3, 8),
    "QLinearMatMul": (0, 3),
    "QLinearAdd": (0, 3),
    "QLinearMul": (0, 3),
    "QGemm": (0, 3, 6),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
}
# The other element types are integers, strings and booleans.
FLOATING = ("FLOAT", "BFLOAT", "DOUBLE", "COMPLEX")


@dataclass(frozen=True)
class Constant:
    """A tensor that is part of a file, by its shape."""

    name: str
    dims: tuple[int, ...]
    floating: bool


def onnx_parameter_count(model: ModelProto) -> int:
    """The numbers that a network computes with: floats of any width, and integers that stand for floats.

    They count alike as initializers, sparse or not, and as constants; each counts once, however often it is used.
    Shapes and indices are no parameters, nor are scales, zero points and numbers without a dimension (bounds,
    exponents). Only the headers of tensors are read, so weights that are kept in another file need not be here.
    """
    functions = sum(_count([], function.node) for function in model.functions)
    return functions + _count([model.graph], model.graph.node)


def _count(graphs: Iterable[GraphProto], nodes: Iterable[NodeProto]) -> int:
    """The parameters of nodes that share their names: those of a model or of a function, and of loops in them."""
    nodes = list(_with_bodies(nodes))
    graphs = [*graphs, *(body for node in nodes for body in _bodies(node))]
    known = {one.name: one for one in (*_initializers(graphs), *_constants(nodes)) if one.dims}

    def is_parameter(node: NodeProto, place: int, name: str) -> bool:
        operands = OPERANDS.get(node.op_type)
        return name in known and (known[name].floating if operands is None else place in operands)

    used = {name for node in nodes for place, name in enumerate(node.input) if is_parameter(node, place, name)}
    return sum(math.prod(known[name].dims) for name in used)


def _with_bodies(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the graphs inside them (branches, bodies of loops)."""
    for node in nodes:
        yield node
        for body in _bodies(node):
            yield from _with_bodies(body.node)


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        yield from (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)


def _initializers(graphs: Iterable[GraphProto]) -> Iterator[Constant]:
    for graph in graphs:
        for tensor in graph.initializer:
            yield Constant(tensor.name, tuple(tensor.dims), _floating(tensor))
        for sparse in graph.sparse_initializer:
            yield Constant(sparse.values.name, tuple(sparse.dims), _floating(sparse.values))


def _constants(nodes: Iterable[NodeProto]) -> Iterator[Constant]:
    for node in nodes:
        for attribute in node.attribute if node.op_type == "Constant" else []:
            (name,) = node.output
            if attribute.name == "value":
                yield Constant(name, tuple(attribute.t.dims), _floating(attribute.t))
            elif attribute.name == "sparse_value":
                yield Constant(name, tuple(attribute.sparse_tensor.dims), _floating(attribute.sparse_tensor.values))
            elif attribute.name == "value_floats":
                yield Constant(name, (len(attribute.floats),), floating=True)


def _floating(tensor: TensorProto) -> bool:
    return TensorProto.DataType.Name(tensor.data_type).startswith(FLOATING)
