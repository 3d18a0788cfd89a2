"""The rows that edits added, in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..index.config import IndexConfig
from ..index.hnsw import VectorIndex
from ..index.stored_keys import checked_queries
from ..index.usearch_import import available
from ..searchable import SearchResult
from .change import NewRow, Text

MOST_COMPARED = 4096
"""Up to so many added rows, a query is compared with all of them: 0.1 ms with 1,000 rows."""


class AddedRows:
    """Added rows in append-only lists, which older states of the knowledge base share.

    Up to `MOST_COMPARED` rows are compared one by one, which needs no index. More are indexed at the next search, if
    usearch is installed.
    """

    def __init__(self, config: IndexConfig) -> None:
        self.config = config
        self._directions = np.zeros((0, config.ndim), np.float32)  # of length 1; more rows than there are
        self._index: VectorIndex | None = None
        self._indexing = threading.Lock()
        self.keys: list[NDArray[np.float32]] = []
        self.ids: list[int] = []
        self.places: dict[int, int] = {}
        self.texts: list[Text | None] = []
        self.digests: list[str | None] = []

    def __len__(self) -> int:
        return len(self.ids)

    def copy(self, rows: int) -> AddedRows:
        """A copy of the first rows."""
        copy = AddedRows(self.config)
        copy.keys, copy.ids = self.keys[:rows], self.ids[:rows]
        copy.places = {row_id: place for place, row_id in enumerate(copy.ids)}
        copy.texts, copy.digests = self.texts[:rows], self.digests[:rows]
        copy._directions = self._directions[:rows]
        return copy

    def append(self, rows: Sequence[NewRow]) -> None:
        """Add rows after the last one."""
        # An erased row is removed before any search can find it: any key will do.
        any_key = np.eye(1, self.config.ndim, dtype=np.float32)[0]
        keys = [any_key if row.payload is None else row.payload.key.astype(np.float32) for row in rows]
        start, stop = len(self.keys), len(self.keys) + len(rows)
        if stop > len(self._directions):
            wider = np.zeros((2 * stop, self.config.ndim), np.float32)
            wider[:start] = self._directions[:start]
            self._directions = wider
        if rows:
            self._directions[start:stop] = _directions(np.array(keys))
        self.keys += keys
        self.places.update((row.id, len(self.ids) + place) for place, row in enumerate(rows))
        self.texts += [None if row.payload is None else row.payload.text for row in rows]
        self.digests += [None if row.payload is None else row.payload.text_digest for row in rows]
        self.ids += [row.id for row in rows]  # last, so that a search that finds a row also finds its text and id

    def search(self, query: NDArray[np.float32], k: int, exact: bool = False) -> SearchResult:
        """The ``min(k, len(self))`` rows most similar to ``query`` [d], best first."""
        rows = len(self)
        if rows > MOST_COMPARED and available():
            return SearchResult(*self._indexed().search(query, k))
        return self._compared(checked_queries(query[np.newaxis])[0], k, rows)

    def search_many(
        self, queries: NDArray[np.float32], k: int, threads: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """`search` for each of ``queries`` [n, d]: rows int64 and similarities float32, both [n, min(k, len(self))]."""
        rows = len(self)  # once: another thread may add rows meanwhile
        if rows > MOST_COMPARED and available():
            return self._indexed().search_many(queries, k, threads)
        found = [self._compared(query, k, rows) for query in checked_queries(queries)]
        return np.array([one.rows for one in found]), np.array([one.similarities for one in found])

    def _compared(self, query: NDArray[np.float32], k: int, rows: int) -> SearchResult:
        """The ``min(k, rows)`` of the first rows that are most similar to a checked query."""
        similarities = self._directions[:rows] @ query / np.sqrt(query.dot(query))
        order = np.argsort(-similarities, kind="stable")[:k]
        return SearchResult(order, similarities[order])

    def _indexed(self) -> VectorIndex:
        with self._indexing:
            rows = len(self)
            index = self._index or VectorIndex.build(np.zeros((0, self.config.ndim), np.float32), self.config)
            index.append(np.array(self.keys[len(index) : rows]).reshape(-1, self.config.ndim))
            self._index = index
            return index


def _directions(keys: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keys [n, d] scaled to length 1."""
    found: NDArray[np.float32] = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    return found
