"""The choice of how many centres and how wide a search in shards is, by its recall and its cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .exact_search import Floats, Ints, exact_search, unit
from .hnsw import VectorIndex
from .shards import ShardedIndex

RECALL = 0.95
"""Least mean share of the k nearest rows that a search finds. Among millions of rows a missed neighbour has others that
are as near.
"""

EF_SEARCH_GRID = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
"""Values of ``ef_search`` to try, as multiples of k."""

_BLOCK = 65_536  # keys compared at once


@dataclass(frozen=True)
class ShardSearch:
    """A way to search shards.

    Attributes:
        probes: nearest centres whose shards are searched.
        expansion_search: ``ef_search`` in each shard.
        recall: mean share of the k nearest rows that are found, 0 to 1.
        compared: mean number of keys and centres that a query is compared with.
    """

    probes: int
    expansion_search: int
    recall: float
    compared: float


def tune(
    index: ShardedIndex, queries: Floats, k: int, progress: Callable[[int, int], object] | None = None
) -> ShardSearch:
    """Set the cheapest search with a recall of `RECALL`; the one with the highest recall where none has it.

    Args:
        index: the index.
        queries: float32 [m, d] of length 1, m at least 1, none of them a key.
        k: number of neighbours.
        progress: called with (rows compared, rows in total).
    """
    exact = exact_rows(index.shards, queries, k, progress)
    tried = []
    for probes in _grid(len(index.centres.shard)):
        index.set_probes(probes)
        for factor in EF_SEARCH_GRID:
            expansion = max(round(factor * k), 1)
            rows, compared = index.trial(queries, k, expansion)
            shares = [np.isin(true, found).mean() for true, found in zip(exact, rows, strict=True)]
            tried.append(ShardSearch(probes, expansion, float(np.mean(shares)), compared))
            if tried[-1].recall >= RECALL:  # a wider search costs more
                break
    enough = [choice for choice in tried if choice.recall >= RECALL]
    best = min(enough, key=lambda one: one.compared) if enough else max(tried, key=lambda one: one.recall)
    index.set_probes(best.probes)
    index.set_ef_search(best.expansion_search)
    return best


def exact_rows(
    shards: Sequence[VectorIndex], queries: Floats, k: int, progress: Callable[[int, int], object] | None = None
) -> Ints:
    """The k nearest rows of each query [m, d] by comparison with all keys, int64 [m, min(k, n)], block by block."""
    rows, similarities = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    first, total = 0, sum(len(shard) for shard in shards)
    for shard in shards:
        stored = shard.stored()
        for start in range(0, len(stored), _BLOCK):
            found, nearness = exact_search(unit(stored[start : start + _BLOCK].astype(np.float32)), queries, k)
            rows = np.concatenate([rows, found + first + start], axis=1)
            similarities = np.concatenate([similarities, nearness], axis=1)
            order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
            rows, similarities = np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)
            if progress is not None:
                progress(first + min(start + _BLOCK, len(stored)), total)
        first += len(stored)
    return rows


def _grid(centres: int) -> list[int]:
    """1, 2, 4, ... and all centres."""
    return [*(2**power for power in range(centres.bit_length()) if 2**power < centres), centres]
