"""The table of token embeddings in 4 bits: the largest part of a small student, in half of the bytes of int8.

Each block of 64 components has its own scale. A byte holds a component of the block's first half in its upper four bits
and one of the second half in its lower four. The first half is read as the whole byte, so its lower bits, which belong
to the other half, are within the rounding error; a shift by four bits gives the second half. These are standard
operators that any ONNX runtime has. ONNX Runtime's own ``GatherBlockQuantized`` does the same in one node, but divides
several times for each component: at 14 tokens a 3-layer student takes 2 to 4 % longer with it, and as long as with int8
with these nodes (docs/explanation/lab-book.md).
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

_BLOCK, _SMALLEST_BLOCK = 64, 16
_LEVELS = 16  # of 4 bits
_MIDDLE = 128  # the byte that stands for zero
_PREFIX = "tokens/"


def pack_token_table(model: onnx.ModelProto) -> list[str]:
    """Store the model's largest table that is looked up (``Gather``) in 4 bits.

    Args:
        model: a float32 model, which is changed.

    Returns:
        The names of the new look-ups, which must not be quantized again. Empty if there is no table in float32 whose
        width is a multiple of 16: nothing is changed then.
    """
    graph = model.graph
    tables = {item.name: item for item in graph.initializer if len(item.dims) == 2}
    uses = [name for node in graph.node for name in node.input]
    lookups = [node for node in graph.node if _looks_up(node) and node.input[0] in tables]
    gather = max(lookups, key=lambda node: math.prod(tables[node.input[0]].dims), default=None)
    if gather is None:
        return []
    table = tables[gather.input[0]]
    block = math.gcd(table.dims[1], _BLOCK)
    if block < _SMALLEST_BLOCK or table.data_type != TensorProto.FLOAT or uses.count(table.name) > 1:
        return []
    packed, scales = pack(numpy_helper.to_array(table), block)
    graph.initializer.remove(table)
    nodes = _nodes(gather, {"packed": packed, "scales": scales, "width": np.array([0, 0, table.dims[1]])}, graph)
    position = list(graph.node).index(gather)
    graph.node.remove(gather)
    for number, node in enumerate(nodes):
        graph.node.insert(position + number, node)
    return [node.name for node in nodes if node.op_type == "Gather"]


def pack(table: NDArray[np.float32], block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Round a table to 4 bits.

    Args:
        table: [n, d].
        block: components of a block, even; d is a multiple of it.

    Returns:
        The bytes [n, d / block, block / 2] and the scales [n, d / block, 1]. A component of a block's first half is
        scale * (byte - 128), one of the second half is scale * (16 * (byte mod 16) - 128).
    """
    blocks = table.reshape(len(table), -1, block)
    # The component of the largest magnitude gets the level furthest from zero, -8.
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[..., None], axis=2)
    scales = (-largest / _MIDDLE).astype(np.float32)
    steps = blocks / np.where(scales == 0, 1, scales)
    first, second = np.split(steps + _MIDDLE, 2, axis=2)
    low = np.clip(np.rint(second / _LEVELS), 0, _LEVELS - 1)
    high = np.clip(np.rint((first - low) / _LEVELS), 0, _LEVELS - 1)
    return (_LEVELS * high + low).astype(np.uint8), scales


def _looks_up(node: NodeProto) -> bool:
    return node.op_type == "Gather" and all(item.i == 0 for item in node.attribute if item.name == "axis")


def _nodes(gather: NodeProto, arrays: dict[str, NDArray[np.generic]], graph: onnx.GraphProto) -> list[NodeProto]:
    """Make the nodes that look up and unpack, and add their constants: the bytes [b, t, blocks, block / 2], both halves
    beside each other, numbers, components [b, t, d].
    """
    arrays |= {"bits": np.array(4, np.uint8), "one": np.array(1, np.float32), "middle": np.array(_MIDDLE, np.uint8)}
    graph.initializer.extend(numpy_helper.from_array(value, _PREFIX + name) for name, value in arrays.items())
    ids, out = gather.input[1], gather.output[0]
    steps: list[tuple[str, tuple[str, ...], str, dict[str, int | str]]] = [
        ("Gather", ("packed", ids), "bytes", {"axis": 0}),
        ("BitShift", ("bytes", "bits"), "second", {"direction": "LEFT"}),
        ("Concat", ("bytes", "second"), "halves", {"axis": -1}),
        ("DequantizeLinear", ("halves", "one", "middle"), "numbers", {}),
        ("Gather", ("scales", ids), "scale", {"axis": 0}),
        ("Mul", ("numbers", "scale"), "components", {}),
        ("Reshape", ("components", "width"), out, {}),
    ]

    def full(name: str) -> str:
        return name if name in (ids, out) else _PREFIX + name

    return [
        helper.make_node(op, [full(name) for name in inputs], [full(made)], name=_PREFIX + made, **attributes)
        for op, inputs, made, attributes in steps
    ]
