"""Search in inverted lists as ONNX nodes, for one text at a time.

The query is rounded to 8 bits once. It is compared with the centres of all lists, then with the keys of the nearest
lists. These are gathered as unsigned integers around 128, because no processor lacks such products. An empty place has
a similarity far below every other, and enough lists are searched that none is among the neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...kb.index.lists import Lists
from .builder import MICROSOFT, Array, Graph

_ZERO = np.uint8(128)
_NEVER = np.float32(-1e30)
_BLOCK = 256  # lists whose keys are converted together


class ListKeys(NamedTuple):
    """The keys of lists, and what their products with a query are multiplied with and added to.

    Attributes:
        keys: uint8 [lists, room, d], 128 + the stored key; 128 in empty places.
        scales: float32 [lists, room, 1], 1 / length of the key; 0 for a key of length 0.
        added: float32 [lists, room, 1]: 0, and a very negative number in empty places.
        rows: int64 [lists, room]; 0 in empty places.
        centres: int8 [lists, d], of the whole range.
        centre_scales: float32 [lists], 1 / length of the centre.
    """

    keys: NDArray[np.uint8]
    scales: NDArray[np.float32]
    added: NDArray[np.float32]
    rows: NDArray[np.int64]
    centres: NDArray[np.int8]
    centre_scales: NDArray[np.float32]


def list_keys(keys: NDArray[np.int8], lists: Lists) -> ListKeys:
    """The keys in the order of lists.

    Args:
        keys: [n, d].
        lists: their lists.
    """
    table, ndim = lists.table, keys.shape[1]
    used = table >= 0
    ordered = np.empty((*table.shape, ndim), np.uint8)
    scales, means = np.empty((*table.shape, 1), np.float32), np.empty((len(table), ndim), np.float32)
    for start in range(0, len(table), _BLOCK):
        block = slice(start, start + _BLOCK)
        some = keys[table[block]] * used[block, :, np.newaxis]
        ordered[block] = some.view(np.uint8) ^ _ZERO
        scales[block, :, 0] = inverse_lengths(some.reshape(-1, ndim)).reshape(some.shape[:2])
        means[block] = np.einsum("lrd,lr->ld", some.astype(np.float32), scales[block, :, 0])
    largest = np.abs(means).max(axis=1, keepdims=True)
    whole = np.rint(np.divide(127 * means, largest, out=np.zeros_like(means), where=largest > 0)).astype(np.int8)
    added = np.where(used, np.float32(0), _NEVER)[:, :, np.newaxis]
    return ListKeys(ordered, scales, added, np.where(used, table, 0).astype(np.int64), whole, inverse_lengths(whole))


def add_list_search(graph: Graph, keys: Array, lists: Lists, k: int, tau: float) -> tuple[str, str]:
    """Add the search for one text.

    Args:
        graph: the graph to extend; its input ``embedding`` is [1, d].
        keys: [n, d].
        lists: their lists.
        k: number of neighbours, at most n.
        tau: what the similarities are divided by.

    Returns:
        The names of the similarities, divided by tau, float32 [1, k], best first, and the rows, int64 [1, k].
    """
    parts, probes = list_keys(keys.astype(np.int8, copy=False), lists), lists.enough(k)
    query, scale, zero = graph.add_several("DynamicQuantizeLinear", "embedding", out=["query", "scale", "zero"])
    column = graph.add("Reshape", query, graph.constant("column", np.array([-1, 1])))
    stored, by = graph.constant("centres", parts.centres.T), graph.constant("centre_scales", parts.centre_scales)
    near = graph.add("MatMulIntegerToFloat", query, stored, scale, by, zero, domain=MICROSOFT)
    number = graph.constant("probes", np.array([probes]))
    _, nearest = graph.add_several("TopK", near, number, out=["nearness", "lists"], axis=-1)

    def gathered(name: str, table: Array) -> str:
        return graph.add("Gather", graph.array(f"list_{name}", table), nearest, axis=0)

    one, middle = graph.number("key_unit", 1.0), graph.constant("middle", np.array(_ZERO))
    some = gathered("keys", parts.keys)
    products = graph.add("MatMulIntegerToFloat", some, column, one, scale, middle, zero, domain=MICROSOFT)
    scaled = graph.add("Mul", products, gathered("scales", parts.scales / np.float32(tau)))
    scaled = graph.add("Add", scaled, gathered("added", parts.added))
    flat = graph.constant("flat", np.array([1, -1]))
    number, names = graph.constant("k", np.array([k])), ["scaled_similarities", "places"]
    found, places = graph.add_several("TopK", graph.add("Reshape", scaled, flat), number, out=names, axis=-1)
    rows = graph.add("Reshape", gathered("rows", parts.rows), flat)
    return found, graph.add("GatherElements", rows, places, out="rows", axis=1)


def inverse_lengths(keys: Array) -> NDArray[np.float32]:
    """1 / length of each key; 0 for a key that rounding to the stored type made 0."""
    wide = keys.astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide, dtype=np.float64))
    inverse: NDArray[np.float64] = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return inverse.astype(np.float32)
