"""The choice of how many centres and how wide a search in shards is, by its recall and its cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .exact_search import Floats, Ints, exact_search, unit
from .hnsw import float_keys
from .shards import Index, ShardedIndex

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
    exact = exact_neighbours(index, queries, k, progress=progress)[0]
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


def exact_neighbours(
    index: Index,
    queries: Floats,
    k: int,
    rows: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[Ints, Floats]:
    """`exact_search` in the first ``rows`` rows of an index (None: all); the keys are copied block by block.

    Args:
        index: the index.
        queries: [m, d], of length 1.
        k: number of neighbours.
        rows: rows to search.
        progress: called with (rows compared, rows in total).

    Raises:
        BundleIntegrityError: keys have no direction.
    """
    total = len(index) if rows is None else min(rows, len(index))
    best, similarities = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    first = 0
    for shard in index.shards if isinstance(index, ShardedIndex) else (index,):
        stored = shard.stored()[: total - first]
        for start in range(0, len(stored), _BLOCK):
            found, nearness = exact_search(unit(float_keys(stored[start : start + _BLOCK])), queries, k)
            best = np.concatenate([best, found + first + start], axis=1)
            similarities = np.concatenate([similarities, nearness], axis=1)
            order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
            best, similarities = np.take_along_axis(best, order, 1), np.take_along_axis(similarities, order, 1)
            if progress is not None:
                progress(first + min(start + _BLOCK, len(stored)), total)
        first += len(stored)
    return best, similarities


def _grid(centres: int) -> list[int]:
    """1, 2, 4, ... and all centres."""
    return [*(2**power for power in range(centres.bit_length()) if 2**power < centres), centres]
