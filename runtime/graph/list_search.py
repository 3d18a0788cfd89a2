"""Search in inverted lists as ONNX nodes, for one text at a time.

The query is rounded to 8 bits once. It is compared with the centres of all lists, then with the keys of the nearest
lists. Most of the time goes into these keys. So each list is stored as a matrix [d, places], and the product of a query
of unsigned integers and matrices of signed integers has no zero points: ONNX Runtime then multiplies the gathered
bytes as they are, where every other product copies them into another order first. The zero point of the query is
in its last components instead (`ListKeys.keys`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...kb.index.lists import Lists
from .builder import MICROSOFT, Array, Graph

_NEVER = np.int8(-128)  # component of an empty place: its product with a query is negative
_FAR = np.float32(1e30)  # scale of an empty place, so that it is below every similarity
_BLOCK = 256  # lists whose keys are converted together
_STEP = 4  # components that are multiplied together


class ListKeys(NamedTuple):
    """The keys of lists, and what their products with a query are multiplied with.

    Attributes:
        keys: int8 [lists, d + r, room]. The last r components of a key sum to minus the sum of the others: a query
            whose last components are its zero point is thus multiplied as if it had none. -128 in empty places.
        scales: float32 [lists, 1, room], 1 / length of the key; 0 for a key of length 0, and 1e30 in empty places.
        rows: int64 [lists, room]; 0 in empty places.
        centres: int8 [lists, d], of the whole range.
        centre_scales: float32 [lists], 1 / length of the centre.
    """

    keys: NDArray[np.int8]
    scales: NDArray[np.float32]
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
    sums = keys.sum(axis=1, dtype=np.int32)
    more = -(-int(np.abs(sums).max()) // 127)
    more += -(ndim + more) % _STEP
    ordered = np.full((len(table), ndim + more, table.shape[1]), _NEVER)
    scales, means = np.full(table.shape, _FAR), np.empty((len(table), ndim), np.float32)
    for start in range(0, len(table), _BLOCK):
        block = slice(start, start + _BLOCK)
        numbers, here = table[block], used[block]
        some = keys[numbers] * here[:, :, np.newaxis]
        lengths = inverse_lengths(some.reshape(-1, ndim)).reshape(here.shape)
        means[block] = np.einsum("lrd,lr->ld", some.astype(np.float32), lengths)
        parts = -sums[numbers][:, :, np.newaxis] + np.arange(more)  # floor((s + i) / r), i = 0 .. r - 1, sum to s
        long = np.concatenate([some, (parts // max(more, 1)).astype(np.int8)], axis=2)
        np.copyto(ordered[block], long.transpose(0, 2, 1), where=here[:, np.newaxis])
        np.copyto(scales[block], lengths, where=here)
    largest = np.abs(means).max(axis=1, keepdims=True)
    whole = np.rint(np.divide(127 * means, largest, out=np.zeros_like(means), where=largest > 0)).astype(np.int8)
    rows = np.where(used, table, 0).astype(np.int64)
    return ListKeys(ordered, scales[:, np.newaxis], rows, whole, inverse_lengths(whole))


def add_list_search(
    graph: Graph, keys: Array, lists: Lists, k: int, tau: float, saturates: bool = False
) -> tuple[str, str]:
    """Add the search for one text.

    Args:
        graph: the graph to extend; its input ``embedding`` is [1, d].
        keys: [n, d].
        lists: their lists.
        k: number of neighbours, at most n.
        tau: what the similarities are divided by.
        saturates: whether products of unsigned and signed integers overflow on this processor
            (`runtime.inference.session.saturation`). The keys are then unsigned, around a zero point, which is slower.

    Returns:
        The names of the similarities, divided by tau, float32 [1, k], best first, and the rows, int64 [1, k].
    """
    parts, probes = list_keys(keys.astype(np.int8, copy=False), lists), lists.enough(k)
    query, scale, zero = graph.add_several("DynamicQuantizeLinear", "embedding", out=["query", "scale", "zero"])
    stored, by = graph.constant("centres", parts.centres.T), graph.constant("centre_scales", parts.centre_scales)
    near = graph.add("MatMulIntegerToFloat", query, stored, scale, by, zero, domain=MICROSOFT)
    number = graph.constant("probes", np.array([probes]))
    _, nearest = graph.add_several("TopK", near, number, out=["nearness", "lists"], axis=-1)

    def gathered(name: str, table: Array) -> str:
        return graph.add("Gather", graph.array(f"list_{name}", table), nearest, axis=0)

    ends = graph.constant("ends_of_query", np.array([0, 0, 0, parts.keys.shape[1] - keys.shape[1]]))
    long = graph.add("Pad", query, ends, zero)
    if saturates:
        middle = np.array(128, np.uint8)
        some = gathered("keys", parts.keys.view(np.uint8) ^ middle)
        products = graph.add("MatMulInteger", long, some, "", graph.constant("middle", middle))
    else:
        products = graph.add("MatMulInteger", long, gathered("keys", parts.keys))
    scaled = graph.add("Mul", graph.cast(products), gathered("scales", parts.scales / np.float32(tau)))
    flat = graph.constant("flat", np.array([1, -1]))
    number, names = graph.constant("k", np.array([k])), ["nearest_products", "places"]
    best, places = graph.add_several("TopK", graph.add("Reshape", scaled, flat), number, out=names, axis=-1)
    found = graph.add("Mul", best, scale, out="scaled_similarities")
    rows = graph.add("Reshape", gathered("rows", parts.rows), flat)
    return found, graph.add("GatherElements", rows, places, out="rows", axis=1)


def inverse_lengths(keys: Array) -> NDArray[np.float32]:
    """1 / length of each key; 0 for a key that rounding to the stored type made 0."""
    wide = keys.astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide, dtype=np.float64))
    inverse: NDArray[np.float64] = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return inverse.astype(np.float32)
