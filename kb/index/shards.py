"""An index in several files (shards), for knowledge bases of millions of rows.

Each shard is an HNSW graph of rows with consecutive numbers. Keys are grouped around centres (k-means); a shard has the
keys of some centres near each other. A query is compared with all centres, and the shards of its nearest ``probes``
centres are searched; their results are merged, which is exact because similarities are comparable. Graphs themselves
are never merged: that ruins their recall.

In the folder of a knowledge base:

    index.usearch     the graph (`VectorIndex`) of an index in one file; or else
    shards.npy        a table [centres] of ``shard`` (i4) and ``centre`` (f4 [d], of length 1)
    shards/0.usearch  the graph of the first shard (`VectorIndex`), and so on; each numbers its rows from 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..storage.npy import map_npy, misfit, save_npy
from .config import IndexConfig
from .exact_search import Floats, Ints
from .hnsw import VectorIndex
from .stored_keys import checked_queries

INDEX_FILE = "index.usearch"
SHARDS_FILE = "shards.npy"
SHARDS_FOLDER = "shards"

MOST_SHARDS = 1_000
_MOST_CENTRES = 65_536
_BLOCK = 65_536  # keys compared exactly at once
_QUERIES = 1024  # queries merged at once


@dataclass(frozen=True, eq=False)
class Centres:
    """The centres of the keys, and the shard of each.

    Attributes:
        centres: float32 [centres, d], of length 1.
        shard: int32 [centres], the number of the shard with the keys of a centre.
    """

    centres: Floats
    shard: NDArray[np.int32]

    def shards_of(self, keys: Floats) -> NDArray[np.int32]:
        """The shard of each of ``keys`` [n, d]: that of its nearest centre."""
        blocks = [keys[start : start + _BLOCK] for start in range(0, len(keys), _BLOCK)]
        near = [self.shard[(block @ self.centres.T).argmax(axis=1)] for block in blocks]
        return np.concatenate(near) if near else np.zeros(0, np.int32)

    def save(self, path: Path) -> None:
        """Write the table.

        Raises:
            StorageError: the file cannot be written.
        """
        table = np.zeros(len(self.shard), _row_type(self.centres.shape[1]))
        table["shard"], table["centre"] = self.shard, self.centres
        save_npy(path, table)

    @classmethod
    def open(cls, path: Path, ndim: int) -> Centres:
        """Read the table.

        Raises:
            BundleIntegrityError: the file is missing or unreadable.
            BundleError: there are no centres, too many, or some without a direction or shard.
        """  # noqa: DOC501
        table = map_npy(path, (_row_type(ndim),))
        if table.ndim != 1 or not 0 < len(table) <= _MOST_CENTRES:
            raise misfit(path, f"{table.shape} centres", f"1 to {_MOST_CENTRES:,}")
        shard, centres = table["shard"].copy(), table["centre"].copy()
        used = np.unique(shard)
        if len(used) > MOST_SHARDS or (used != np.arange(len(used))).any():
            raise misfit(path, f"shards {used.min()} to {used.max()}", f"0 to at most {MOST_SHARDS - 1}, without gaps")
        if not (np.abs(np.linalg.norm(centres, axis=1) - 1) < 0.01).all():
            raise misfit(path, "a centre of another length", "centres of length 1")
        return cls(centres, shard)


class ShardedIndex:
    """Several `VectorIndex` as one, with the same interface; the rows of a shard follow those of the shard before it.

    Args:
        shards: at least one, each with the parameters of ``config``.
        centres: the centres of the keys.
        config: the parameters; ``config.probes`` is at least 1.
    """

    def __init__(self, shards: Sequence[VectorIndex], centres: Centres, config: IndexConfig) -> None:
        self.config = config
        self.centres = centres
        self.shards = tuple(shards)
        self._first = np.cumsum([0, *(len(shard) for shard in shards)])  # the first row of each shard, and the end

    @classmethod
    def view(cls, folder: Path, config: IndexConfig) -> ShardedIndex:
        """Map the shards of a knowledge base's folder into memory, see `VectorIndex.view`.

        Raises:
            BundleIntegrityError: a file is missing, or no index.
            BundleError: a file does not fit the others or ``config``.
        """
        centres = Centres.open(folder / SHARDS_FILE, config.ndim)
        paths = [shard_path(folder, number) for number in range(int(centres.shard.max()) + 1)]
        return cls([VectorIndex.view(path, config) for path in paths], centres, config)

    def load(self) -> None:
        """Check and open all shards now, not at the first search.

        Raises: same as `VectorIndex.load`.
        """
        for shard in self.shards:
            shard.load()

    def save(self, folder: Path) -> None:
        """Write all files into the folder of a knowledge base.

        Raises:
            StorageError: a file cannot be written.
        """
        (folder / SHARDS_FOLDER).mkdir(exist_ok=True)
        for number, shard in enumerate(self.shards):
            shard.save(shard_path(folder, number))
        self.centres.save(folder / SHARDS_FILE)

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of the shards as files, and of the centres."""
        return sum(shard.nbytes for shard in self.shards) + self.centres.centres.nbytes + self.centres.shard.nbytes

    def search(self, query: Floats, k: int, exact: bool = False) -> tuple[Ints, Floats]:
        """The ``min(k, len(self))`` rows most similar to ``query`` [d] of the shards near it, best first.

        Args:
            query: the query.
            k: number of rows.
            exact: compare with every key of every shard.

        Returns:
            rows int64 [k] and cosine similarities float32 [k].

        Raises:
            UsageError: same as `VectorIndex.search`.
        """
        near = range(len(self.shards)) if exact else self._near(query[np.newaxis])[0].nonzero()[0]
        if len(near) < len(self.shards) and sum(len(self.shards[number]) for number in near) < k:
            near = range(len(self.shards))
        found = [self.shards[number].search(query, k, exact) for number in near]
        rows = np.concatenate([one[0] + self._first[number] for number, one in zip(near, found, strict=True)])
        similarities = np.concatenate([one[1] for one in found])
        order = np.argsort(-similarities, kind="stable")[:k]
        return rows[order], similarities[order]

    def search_many(self, queries: Floats, k: int, threads: int = 1) -> tuple[Ints, Floats]:
        """`search` for every row of ``queries`` [n, d], with the same results.

        Returns:
            rows int64 [n, min(k, len(self))] and cosine similarities float32 of the same shape.

        Raises:
            UsageError: same as `VectorIndex.search`.
        """
        queries = checked_queries(np.ascontiguousarray(queries, np.float32))
        needed = max(min(k, len(self)), 0)
        rows, similarities = np.zeros((len(queries), needed), np.int64), np.zeros((len(queries), needed), np.float32)
        for start in range(0, len(queries) if needed else 0, _QUERIES):
            block = slice(start, start + _QUERIES)
            rows[block], similarities[block] = self._merged(queries[block], needed, threads)
        return rows, similarities

    def _merged(self, queries: Floats, needed: int, threads: int) -> tuple[Ints, Floats]:
        near = self._near(queries)
        near[near @ np.diff(self._first) < needed] = True
        rows = np.zeros((len(queries), len(self.shards), needed), np.int64)
        similarities = np.full(rows.shape, -np.inf, np.float32)
        for number, shard in enumerate(self.shards):
            asking = np.flatnonzero(near[:, number])
            found, nearness = shard.search_many(queries[asking], needed, threads)
            rows[asking, number, : found.shape[1]] = found + self._first[number]
            similarities[asking, number, : found.shape[1]] = nearness
        return _best(rows.reshape(len(queries), -1), similarities.reshape(len(queries), -1), needed)

    def _near(self, queries: Floats) -> NDArray[np.bool_]:
        """Which shards to search for each query, [n, shards]."""
        probes = min(self.config.probes, len(self.centres.shard))
        similarities = queries @ self.centres.centres.T
        centres = np.argpartition(-similarities, probes - 1, axis=1)[:, :probes]
        near = np.zeros((len(queries), len(self.shards)), np.bool_)
        np.put_along_axis(near, self.centres.shard[centres].astype(np.intp), True, axis=1)
        return near

    def set_ef_search(self, expansion_search: int) -> None:
        """Set ``ef_search`` of later searches in every shard.

        Raises:
            UsageError: out of range.
        """
        for shard in self.shards:
            shard.set_ef_search(expansion_search)
        self.config = replace(self.config, expansion_search=expansion_search)

    def set_probes(self, probes: int) -> None:
        """Set the number of nearest centres whose shards later searches search.

        Raises:
            UsageError: out of range.
        """
        self.config = replace(self.config, probes=probes)

    def trial(self, queries: Floats, k: int, expansion_search: int) -> tuple[Ints, float]:
        """Search with another ``ef_search`` and count the comparisons; the index does not change.

        Returns:
            rows int64 [n, shards * min(k, len(self))], the nearest of each shard, -1 for no row, and the mean number of
            keys and centres that a query was compared with.

        Raises:
            UsageError: same as `VectorIndex.search`.
        """
        queries, needed = checked_queries(queries), min(k, len(self))
        near = self._near(queries)
        rows = np.full((len(queries), len(self.shards), needed), -1, np.int64)
        compared = 0.0
        for number, shard in enumerate(self.shards):
            asking = np.flatnonzero(near[:, number])
            found, mean = shard.trial(queries[asking], needed, expansion_search)
            rows[asking, number, : found.shape[1]] = np.where(found >= 0, found + self._first[number], -1)
            compared += mean * len(asking)
        return rows.reshape(len(queries), -1), compared / max(len(queries), 1) + len(self.centres.shard)

    def stored_rows(self, rows: NDArray[np.integer]) -> NDArray[Any]:
        """The keys of some rows as stored, [m, d]."""
        numbers = np.searchsorted(self._first, rows, "right") - 1
        found = np.empty((len(rows), self.config.ndim), self.shards[0].stored_rows(np.zeros(0, np.int64)).dtype)
        for number in np.unique(numbers):
            here = numbers == number
            found[here] = self.shards[number].stored_rows(np.asarray(rows)[here] - self._first[number])
        return found

    def stored(self) -> NDArray[Any]:
        """A copy of all keys as stored, [n, d]."""
        return np.concatenate([shard.stored() for shard in self.shards])

    def vectors(self) -> Floats:
        """A copy of all keys as float32 [n, d], see `VectorIndex.vectors`."""
        return np.concatenate([shard.vectors() for shard in self.shards])


Index: TypeAlias = VectorIndex | ShardedIndex
"""The index of a knowledge base."""


def open_index(folder: Path, config: IndexConfig) -> Index:
    """Map the index of a knowledge base's folder into memory.

    Raises: same as `ShardedIndex.view`.
    """
    return ShardedIndex.view(folder, config) if config.probes else VectorIndex.view(folder / INDEX_FILE, config)


def save_index(index: Index, folder: Path) -> None:
    """Write the files of an index into the folder of a knowledge base.

    Raises:
        StorageError: a file cannot be written.
    """
    index.save(folder / INDEX_FILE if isinstance(index, VectorIndex) else folder)


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard in the folder of a knowledge base."""
    return folder / SHARDS_FOLDER / f"{number}.usearch"


def _row_type(ndim: int) -> np.dtype[Any]:
    return np.dtype([("shard", "<i4"), ("centre", "<f4", (ndim,))])


def _best(rows: Ints, similarities: Floats, needed: int) -> tuple[Ints, Floats]:
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :needed]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)
