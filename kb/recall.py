"""The cheapest index that still finds what is near.

How many of the true neighbours a search finds (recall) depends on how keys are stored, on the graph's edges a row, on
the search's breadth, and on the keys themselves: prototypes that a compaction has spread out are harder to find than
the crowds they stand for. So the setting is chosen on the very keys, with real queries, and its cost is counted in keys
compared, which is the same on every machine, and not in time.

The mean hides the worst that can happen: a walk that ends in the wrong crowd and finds none of what is near, which a
sparse graph over crowded keys does. On banking77 a mean recall of 96 % went with 0.8 % of such queries, and they cost a
fifth of what retrieval gains. So their share is bounded, too. Of something so rare, some hundred real queries say
little: stand-ins help out, keys moved away in a random direction as far as real queries are from theirs. Those were
lost about as often as test rows were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .index import IndexConfig, VectorIndex

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

FLOOR = 0.95
"""Recall at k, unless the caller says otherwise."""

LOST = 0.0005
"""The most queries, as a share, that may find less than half of their true neighbours."""

STAND_INS = 4096

CONNECTIVITY = (8, 12, 16, 24)
"""Edges a row that are tried. With fewer than 8, queries were lost that the stand-ins did not foresee."""

BREADTHS = (1, 1.5, 2, 3, 4, 6, 8, 12, 16)
"""Of a search, in k; at least `_LEAST_BREADTH`."""

_LEAST_BREADTH = 16
_WORTH_EDGES = 0.9  # more edges must save a tenth of the comparisons, or they are not worth their bytes
_BLOCK = 256  # queries compared with all keys at once


@dataclass(frozen=True)
class Setting:
    """An index and what it does.

    Attributes:
        config: its parameters.
        recall: mean share of the k true neighbours that a query finds, 0 to 1.
        lost: share of queries and stand-ins that find less than half of theirs.
        compared: mean number of keys that a query is compared with.
    """

    config: IndexConfig
    recall: float
    lost: float
    compared: float

    def reaches(self, floor: float) -> bool:
        """Whether recall is at the floor, and no more queries are lost than may be."""
        return self.recall >= floor and self.lost <= LOST


def exact_search(keys: Floats, queries: Floats, k: int) -> tuple[Ints, Floats]:
    """The k keys of the largest cosine for each query, best first: all are compared.

    Args:
        keys: [n, d], of length 1.
        queries: [m, d], of length 1.
        k: at most n are found.

    Returns:
        rows int64 and similarities float32, both [m, min(k, n)].
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


def tune_index(
    keys: Floats,
    queries: Floats,
    k: int,
    floor: float = FLOOR,
    progress: Callable[[int], object] = lambda _built: None,
) -> Setting:
    """The setting of the fewest bytes that reaches the floor and loses hardly a query; more bytes if they save a tenth.

    Args:
        keys: [n, d], of length 1.
        queries: [m, d], of length 1; none of them a key.
        k: neighbours that are asked for.
        floor: recall to reach, 0 to 1; the share of lost queries is `LOST` at most, whatever it is.
        progress: called with the number of indices that were built.

    Returns:
        The chosen setting; where none reaches the floor, the one of the highest recall.

    Raises:
        UsageError: as `VectorIndex.build`.
    """
    exact, similarities = exact_search(keys, queries, k)
    stand_ins = _stand_ins(keys, float(similarities[:, 0].mean()) if similarities.size else 1.0)
    trials = _Trials(queries, exact, stand_ins, exact_search(keys, stand_ins, k)[0])
    missed: list[Setting] = []
    built = 0
    for dtype in ("i8", "f16"):
        best: Setting | None = None
        for connectivity in CONNECTIVITY:
            index = VectorIndex.build(keys, IndexConfig(keys.shape[1], dtype=dtype, connectivity=connectivity))
            progress(built := built + 1)
            found = trials.narrowest(index, floor)
            if not found.reaches(floor):
                missed.append(found)
            elif best is None or found.compared < _WORTH_EDGES * best.compared:
                best = found
            else:
                break
        if best is not None:
            return best
    return max(missed, key=lambda setting: setting.recall)


def _stand_ins(keys: Floats, similarity: float) -> Floats:
    """Some keys, each turned by the angle of that cosine in a direction of its own."""
    rng = np.random.default_rng(0)
    some = keys[rng.permutation(len(keys))[:STAND_INS]]
    cosine = min(max(similarity, 0.1), 1.0)
    # Of many dimensions, a random direction is at a right angle to any other.
    directions = rng.standard_normal(some.shape).astype(np.float32)
    directions *= (1 / cosine**2 - 1) ** 0.5 / np.linalg.norm(directions, axis=1, keepdims=True)
    turned: Floats = some + directions
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    return turned


@dataclass(frozen=True)
class _Trials:
    """Queries and stand-ins, with the true neighbours of each."""

    queries: Floats
    exact: Ints
    stand_ins: Floats
    exact_of_stand_ins: Ints

    def narrowest(self, index: VectorIndex, floor: float) -> Setting:
        """The narrowest search that reaches the floor, or else the broadest."""
        k = max(self.exact.shape[1], 1)
        for breadth in BREADTHS:
            expansion = max(round(breadth * k), _LEAST_BREADTH)
            rows, compared = index.trial(self.queries, k, expansion)
            found = _found(rows, self.exact)
            others = _found(index.trial(self.stand_ins, k, expansion)[0], self.exact_of_stand_ins)
            recall = float(found.mean()) if len(found) else 1.0
            lost = float((np.concatenate([found, others]) < 0.5).mean())
            setting = Setting(replace(index.config, expansion_search=expansion), recall, lost, compared)
            if setting.reaches(floor):
                break
        return setting


def _found(rows: Ints, exact: Ints) -> NDArray[np.float64]:
    """The share of each query's true neighbours, ``exact`` [m, k], that is among its ``rows`` [m, k]: [m]."""
    if not exact.size:
        return np.ones(len(exact))
    return np.array([np.isin(true, found).mean() for true, found in zip(exact, rows, strict=True)])
