"""The exact nearest rows, and how broadly a graph has to be searched to find them.

Recall is the mean share of a query's true neighbours that a search finds. A mean hides the worst: a walk that ends in
the wrong crowd finds none of what is near, which a sparse graph over crowded keys does. On banking77 (8,995 keys of
i8, 8 edges, k 32) a search 32 wide found 97.1 % of the neighbours, lost five of 3,080 texts altogether, and with them
7 % of what retrieval gains; 128 wide it lost none. So the width is not chosen by a floor, but where a broader search
would find next to nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .hnsw import VectorIndex

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

EF_SEARCH_GRID = (2, 3, 4, 6, 8, 12, 16)
"""Of a search, in k; at least `LEAST_EF_SEARCH`."""

LEAST_EF_SEARCH = 64

SLACK = 0.001
"""The recall that a search may lack of the broadest one's: of a thousand queries it may lose one altogether."""

_BLOCK = 256  # queries compared with all keys at once


@dataclass(frozen=True)
class EfSearchChoice:
    """How broadly an index is searched, and what that does.

    Attributes:
        expansion_search: the width (HNSW's ef).
        recall: mean share of the k true neighbours that a query finds, 0 to 1.
        compared: mean number of keys that a query is compared with: the cost, the same on every machine.
    """

    expansion_search: int
    recall: float
    compared: float


def exact_search(keys: Floats, queries: Floats, k: int) -> tuple[Ints, Floats]:
    """The k keys of the largest cosine for each query, best first: all are compared.

    Args:
        keys: [n, d], of length 1.
        queries: [m, d], of length 1.
        k: at most n are found.

    Returns:
        rows int64 and similarities float32, both [m, min(k, n)]. Equally near ones come in their order.
    """
    wanted = min(k, len(keys))
    rows, similarities = np.zeros((len(queries), wanted), np.int64), np.zeros((len(queries), wanted), np.float32)
    for start in range(0, len(queries) if wanted else 0, _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines = queries[block] @ keys.T
        some = np.argpartition(-cosines, wanted - 1, axis=1)[:, :wanted]
        some.sort(axis=1)  # of equal cosines the first row wins
        found = np.take_along_axis(cosines, some, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        rows[block], similarities[block] = (np.take_along_axis(part, order, axis=1) for part in (some, found))
    return rows, similarities


def narrowest(index: VectorIndex, keys: Floats, queries: Floats, k: int) -> EfSearchChoice:
    """The narrowest search whose recall is within `SLACK` of the broadest one's.

    Args:
        index: of ``keys``.
        keys: [n, d], of length 1.
        queries: [m, d], of length 1, m at least 1; none of them a key.
        k: neighbours that are asked for.
    """
    exact = exact_search(keys, queries, k)[0]
    broadest = _tried(index, exact, queries, k, EF_SEARCH_GRID[-1])
    tried = (_tried(index, exact, queries, k, width) for width in EF_SEARCH_GRID[:-1])
    return next((width for width in tried if width.recall >= broadest.recall - SLACK), broadest)


def _tried(index: VectorIndex, exact: Ints, queries: Floats, k: int, width: int) -> EfSearchChoice:
    expansion = max(width * k, LEAST_EF_SEARCH)
    rows, compared = index.trial(queries, k, expansion)
    shares = [np.isin(true, found).mean() for true, found in zip(exact, rows, strict=True)]
    return EfSearchChoice(expansion, float(np.mean(shares)), compared)


def unit(keys: NDArray[np.floating]) -> Floats:
    """The same directions at length 1."""
    directions: Floats = (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)
    return directions
