"""Exact nearest-neighbour search, and the choice of ``ef_search`` for a graph by its recall.

Recall is the mean share of a query's true neighbours that a search finds. The mean hides queries that fail completely:
in a sparse graph over crowded keys a walk can end in the wrong cluster. On banking77 (8,995 keys of i8, 8 edges, k 32)
``ef_search`` 32 had a recall of 97.1 %, but missed all neighbours of five of 3,080 texts, which cost 7 % of the gain of
retrieval; 128 missed none. The choice is therefore the least value whose recall is almost that of the largest value,
not the least value above a floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .shards import Index

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

EF_SEARCH_GRID = (2, 3, 4, 6, 8, 12, 16)
"""Values of ``ef_search`` to try, as multiples of k; each at least `LEAST_EF_SEARCH`."""

LEAST_EF_SEARCH = 64

SLACK = 0.001
"""Allowed loss of recall against the largest value: one of a thousand queries may fail completely."""

_BLOCK = 256  # queries compared with all keys in one product


@dataclass(frozen=True)
class EfSearchChoice:
    """A value of ``ef_search`` with its recall and cost.

    Attributes:
        expansion_search: the value (HNSW's ef).
        recall: mean share of the k true neighbours that a query finds, 0 to 1.
        compared: mean number of keys that a query is compared with, a cost that does not depend on the machine.
    """

    expansion_search: int
    recall: float
    compared: float


def exact_search(keys: Floats, queries: Floats, k: int) -> tuple[Ints, Floats]:
    """The k keys with the largest cosine for each query, best first, by comparison with all keys.

    Args:
        keys: [n, d], of length 1.
        queries: [m, d], of length 1.
        k: number of neighbours; at most n are returned.

    Returns:
        rows int64 and similarities float32, both [m, min(k, n)]. Ties are in the order of rows.
    """
    needed = min(k, len(keys))
    rows, similarities = np.zeros((len(queries), needed), np.int64), np.zeros((len(queries), needed), np.float32)
    for start in range(0, len(queries) if needed else 0, _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines = queries[block] @ keys.T
        some = np.argpartition(-cosines, needed - 1, axis=1)[:, :needed]
        some.sort(axis=1)  # among equal cosines the first row wins
        found = np.take_along_axis(cosines, some, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        rows[block], similarities[block] = (np.take_along_axis(part, order, axis=1) for part in (some, found))
    return rows, similarities


def least_ef_search(index: Index, keys: Floats, queries: Floats, k: int) -> EfSearchChoice:
    """The least ``ef_search`` whose recall is within `SLACK` of that of the largest value.

    Args:
        index: the index of ``keys``.
        keys: [n, d], of length 1.
        queries: [m, d], of length 1, m at least 1; none of them a key.
        k: number of neighbours.
    """
    exact = exact_search(keys, queries, k)[0]
    largest = _tried(index, exact, queries, k, EF_SEARCH_GRID[-1])
    tried = (_tried(index, exact, queries, k, factor) for factor in EF_SEARCH_GRID[:-1])
    return next((choice for choice in tried if choice.recall >= largest.recall - SLACK), largest)


def _tried(index: Index, exact: Ints, queries: Floats, k: int, factor: int) -> EfSearchChoice:
    expansion = max(factor * k, LEAST_EF_SEARCH)
    rows, compared = index.trial(queries, k, expansion)
    shares = [np.isin(true, found).mean() for true, found in zip(exact, rows, strict=True)]
    return EfSearchChoice(expansion, float(np.mean(shares)), compared)


class ExactIndex:
    """The keys of a file, searched without usearch: the part of the interface of its ``Index`` that searches need.

    Args:
        keys: [n, d], as stored. They are kept as float32 of length 1; a key that rounding made 0 has similarity 0.
    """

    def __init__(self, keys: NDArray[Any]) -> None:
        wide = keys.astype(np.float32)
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        self._directions = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)

    def search_many(
        self, queries: NDArray[Any], count: int, exact: bool, threads: int
    ) -> tuple[Ints, Floats, Ints, int, int]:
        """Rows and distances [m, count], nearest first, the numbers of rows found [m], and two statistics."""
        del exact, threads  # the first search is exact, and numpy has its own threads
        rows, similarities = exact_search(self._directions, unit(queries), count)
        return rows, 1.0 - similarities, np.full(len(rows), count), 0, len(queries) * len(self._directions)


def unit(keys: NDArray[np.floating]) -> Floats:
    """The keys scaled to length 1."""
    directions: Floats = (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)
    return directions
