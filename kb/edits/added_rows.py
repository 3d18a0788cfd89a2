"""The rows that edits added, in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..index.hnsw import IndexConfig, VectorIndex
from .change import NewRow, Text


class AddedRows:
    """Added rows in append-only lists, which older states of the knowledge base share."""

    def __init__(self, config: IndexConfig) -> None:
        self.index = VectorIndex.build(np.zeros((0, config.ndim), np.float32), config)
        self.keys: list[NDArray[np.float32]] = []
        self.ids: list[int] = []
        self.places: dict[int, int] = {}
        self.texts: list[Text | None] = []
        self.digests: list[str | None] = []

    def __len__(self) -> int:
        return len(self.ids)

    def copy(self, rows: int) -> AddedRows:
        """A copy of the first rows."""
        copy = AddedRows(self.index.config)
        copy.keys, copy.ids = self.keys[:rows], self.ids[:rows]
        copy.places = {row_id: place for place, row_id in enumerate(copy.ids)}
        copy.texts, copy.digests = self.texts[:rows], self.digests[:rows]
        if rows:
            copy.index.append(np.array(copy.keys))
        return copy

    def append(self, rows: Sequence[NewRow]) -> None:
        """Add rows after the last one."""
        # An erased row is removed before any search can find it: any key will do.
        any_key = np.eye(1, self.index.config.ndim, dtype=np.float32)[0]
        keys = [any_key if row.payload is None else row.payload.key.astype(np.float32) for row in rows]
        self.keys += keys
        self.places.update((row.id, len(self.ids) + place) for place, row in enumerate(rows))
        self.ids += [row.id for row in rows]
        self.texts += [None if row.payload is None else row.payload.text for row in rows]
        self.digests += [None if row.payload is None else row.payload.text_digest for row in rows]
        self.index.append(np.array(keys))  # last, so that a search that finds a row also finds its text and id
