"""A knowledge base with edits on top: rows are added, removed and relabelled in memory, and the files do not change.

Row numbers count the rows of the base first, then the added ones in their order. A removed row keeps its number, and
searches skip it, until the next compaction (`merge.merge_edits`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ..index.config import IndexConfig
from ..index.shards import Index
from ..knowledge_base import KnowledgeBase
from ..searchable import SearchResult
from ..soft_labels import SoftLabels
from ..texts import TextDigests
from .added_rows import AddedRows
from .change import Change, Labelling, Text
from .overlay_labels import OverlayLabels
from .overlay_state import OverlayState, StateBuilder

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
_EXTRA_ROWS = 8  # searched for beyond k where some rows may be removed
_BLOCK = 1024  # rows whose labels are compared together


class OverlayKnowledgeBase:
    """A knowledge base with the result of edits on top (`Searchable`). `apply` returns the next state.

    Attributes:
        base: the knowledge base without the edits.
    """

    def __init__(
        self,
        base: KnowledgeBase,
        labels: tuple[str, ...],
        added: AddedRows | None = None,
        state: OverlayState | None = None,
        keeps_texts: bool | None = None,
    ) -> None:
        rows = len(base)
        pins = np.zeros(rows, bool) if base.pins is None else base.pins
        self.base = base
        self._added = AddedRows(base.config) if added is None else added
        self._state = state or OverlayState(labels, 0, np.ones(rows, bool), {}, {}, {}, pins, base.new_label_odds)
        self._keeps_texts = base.keeps_texts if keeps_texts is None else keeps_texts
        self._live = int(self._state.alive.sum())
        self._live_base = int(self._state.alive[:rows].sum())
        self._soft_labels = OverlayLabels(self.base.soft_labels, self._state.soft, len(self.labels), len(self.alive))

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of all c labels, new ones last."""
        return self._state.labels

    @property
    def soft_labels(self) -> SoftLabels:
        """The soft labels of all rows, removed ones too."""
        return self._soft_labels

    @property
    def pins(self) -> Bools:
        """Which rows are pinned, bool [all rows, removed ones too]."""
        return self._state.pins

    @property
    def new_label_odds(self) -> float:
        """Factor on the odds of the labels that the student was not trained on."""
        return self._state.new_label_odds

    @property
    def alive(self) -> Bools:
        """Which rows are not removed, bool [all rows]."""
        return self._state.alive

    @property
    def relabelled(self) -> Collection[int]:
        """The numbers of the rows that have their label from an edit."""
        return self._state.soft.keys()

    @property
    def added(self) -> int:
        """Number of added rows, removed ones included."""
        return self._state.added

    @property
    def removed(self) -> int:
        """Number of removed rows."""
        return len(self._state.alive) - self._live

    def same_as_base(self) -> bool:
        """Whether the rows, their labels and their pins are those of the base, as after all edits were undone.

        A label of edits that no row has any more is no difference.
        """
        base, rows, classes = self.base, len(self.base), self.base.num_labels
        if not (self._live == self._live_base == rows):
            return False
        if not np.array_equal(self.pins[:rows], np.zeros(rows, bool) if base.pins is None else base.pins):
            return False
        labelled = np.array([row for row in self.relabelled if row < rows], np.int64)
        for first in range(0, len(labelled), _BLOCK):
            block = labelled[first : first + _BLOCK]
            soft = self.soft_labels.take(block)
            if soft[:, classes:].any() or not np.array_equal(soft[:, :classes], base.soft_labels.take(block)):
                return False
            if any(self.label(row) != base.label(row) for row in block.tolist()):
                return False
        return True

    def apply(self, change: Change) -> OverlayKnowledgeBase:
        """The knowledge base after an edit; only for the newest state.

        Raises:
            UsageError: same as `check`.
        """
        return self.applied([change])

    def applied(self, changes: Sequence[Change]) -> OverlayKnowledgeBase:
        """`apply` for several edits in order, at the cost of one.

        Raises:
            UsageError: same as `check`; no edit is made.
        """
        after = self._after(changes)
        for change in changes:
            if change.add:
                self._added.append(change.add)
        return self._with(after)

    def check(self, change: Change) -> None:
        """Check that `apply` accepts an edit; nothing is changed.

        Raises:
            UsageError: a row or label is unknown, or exists already.
        """
        self._after([change])

    def _after(self, changes: Sequence[Change]) -> OverlayState:
        if len(self._added) != self.added:
            raise UsageError("only the newest state can be edited")
        builder = StateBuilder(self._state, self.row_of, sum(len(change.add) for change in changes))
        for change in changes:
            builder.apply(change)
        return builder.state()

    def _with(self, state: OverlayState, added: AddedRows | None = None) -> OverlayKnowledgeBase:
        rows = self._added if added is None else added
        return OverlayKnowledgeBase(self.base, state.labels, rows, state, self._keeps_texts)

    def supposing(self, change: Change) -> OverlayKnowledgeBase:
        """The result of `apply` for inspection; this state stays the newest.

        Raises:
            UsageError: same as `check`.
        """
        after, added = self._after([change]), self._added.copy(self.added)
        if change.add:
            added.append(change.add)
        return self._with(after, added)

    def next_id(self, least: int = 0) -> int:
        """The smallest id from ``least`` that is larger than all ids of added rows."""
        return max(least, max(self._added.ids, default=-1) + 1)

    def without(self, rows: Iterable[int]) -> OverlayKnowledgeBase:
        """The knowledge base without some rows; it must not be edited."""
        alive = self._state.alive.copy()
        alive[list(rows)] = False
        return self._with(replace(self._state, alive=alive))

    def find(self, row_id: int, alive: bool = True) -> int | None:
        """The number of the row with this id; None for an unknown id and for a removed row.

        Args:
            row_id: the id.
            alive: False finds removed rows only.

        Raises:
            UsageError: several rows of the base have it.
        """
        row = self.row_of(row_id)
        return row if row is not None and bool(self._state.alive[row]) == alive else None

    def row_of(self, row_id: int) -> int | None:
        """The number of the row with this id, removed or not; None for an unknown id.

        Raises:
            UsageError: several rows of the base have it.
        """
        place = self._added.places.get(row_id)
        if place is not None:
            return len(self.base) + place if place < self.added else None
        rows = self.base.rows_with_id(row_id)
        if len(rows) > 1:
            remedy = "Edits need unique ids: export the bundle again."
            raise UsageError("several rows have this id", found=row_id, remedy=remedy)
        return rows[0] if rows else None

    def labelling(self, row: int) -> Labelling:
        """The labelling of a row."""
        known = self._state.labellings.get(row)
        if known is not None:
            return known
        shares, gold = self.soft_labels.take(np.array([row]))[0], self.label(row)
        label = None if gold < 0 else self.labels[gold]
        classes = np.flatnonzero(shares)
        hard = label is not None and len(classes) == 1 and classes[0] == gold and shares[gold] == 1
        soft = None if hard else {self.labels[place]: float(shares[place]) for place in classes}
        return Labelling(label, soft, bool(self.pins[row]))

    def key(self, row: int) -> NDArray[np.float32]:
        """The stored key of an added row, float32 [d]; `KnowledgeBase.keys` has those of the base."""
        return self._added.keys[row - len(self.base)]

    def search(self, query: NDArray[np.float32], k: int) -> SearchResult:
        """The ``min(k, len(self))`` rows most similar to ``query`` float32 [d], without removed ones, best first."""
        base = len(self.base)
        return self._with_added(self._living(self.base.index, query, k, 0, self._live_base, base), query, k)

    def merge_edits(self, found: SearchResult, query: NDArray[np.float32], k: int) -> SearchResult:
        """`search`, from the result of a search of `base`; if it has removed rows, `base` is searched again."""
        base = len(self.base)
        if self._live_base < base and not self._state.alive[found.rows].all():
            found = self._living(self.base.index, query, k, 0, self._live_base, base, exact=True)
        return self._with_added(found, query, k)

    def _with_added(self, found: SearchResult, query: NDArray[np.float32], k: int) -> SearchResult:
        if not self.added:
            return found
        base, needed = len(self.base), self._live - self._live_base
        more = self._living(self._added, query, k, base, needed, self.added)
        similarities = np.concatenate([found.similarities, more.similarities])
        order = np.argsort(-similarities, kind="stable")[:k]
        return SearchResult(np.concatenate([found.rows, more.rows])[order], similarities[order])

    def search_many(self, queries: NDArray[np.float32], k: int, threads: int = 1) -> tuple[Ints, NDArray[np.float32]]:
        """`search` for each of ``queries`` [n, d]: rows int64 and similarities float32, both [n, min(k, len(self))]."""
        base, needed = len(self.base), min(k, len(self))
        if not (len(queries) and needed > 0):
            return np.zeros((len(queries), max(needed, 0)), np.int64), np.zeros(
                (len(queries), max(needed, 0)), np.float32
            )
        parts: list[tuple[Index | AddedRows, int, int, int]] = [(self.base.index, 0, base, self._live_base)]
        parts += [(self._added, base, self.added, self._live - self._live_base)] if self.added else []
        found = [self._living_many(index, queries, k, threads, *part) for index, *part in parts]
        rows, similarities, short = (np.concatenate(columns, axis=1) for columns in zip(*found, strict=True))
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :needed]
        rows, similarities = np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)
        for query in np.flatnonzero(short.any(axis=1)):  # too many of the rows found are removed
            rows[query], similarities[query] = self.search(queries[query], k)
        return rows, similarities

    def label(self, row: int) -> int:
        """The row's gold label as an index into the labels, -1 for none."""
        known = self._state.gold.get(row)
        return self.base.label(row) if known is None else known

    def gold(self) -> NDArray[np.int32]:
        """The gold labels of all rows, removed ones too, -1 for none."""
        found = np.full(len(self.alive), -1, np.int32)
        found[: len(self.base)] = self.base.gold()
        found[list(self._state.gold)] = list(self._state.gold.values())
        return found

    def id(self, row: int) -> int:
        """The row's id."""
        base = len(self.base)
        return self.base.id(row) if row < base else self._added.ids[row - base]

    def text(self, row: int) -> Text | None:
        """The row's text or pair; None if it is not kept.

        Raises:
            BundleError: same as `KnowledgeBase.text`.
        """
        base = len(self.base)
        return self.base.text(row) if row < base else self._added.texts[row - base]

    def text_digest(self, row: int) -> str | None:
        """The digest of the row's text, if digests are kept instead of texts."""
        base = len(self.base)
        return self.base.text_digest(row) if row < base else self._added.digests[row - base]

    def rows_of(self, text: Text) -> list[int]:
        """The rows with exactly this text or pair, without removed ones, in order.

        Raises:
            UsageError: neither texts nor digests are kept.
        """
        found = [row for row in self.base.rows_of(text) if self.alive[row]]
        digest = None if self.digests is None else self.digests.of_text(text)
        added = range(len(self.base), len(self.base) + self.added)
        return found + [
            row
            for row in added
            if self.alive[row] and (self.text(row) == text if digest is None else self.text_digest(row) == digest)
        ]

    @property
    def digests(self) -> TextDigests | None:
        """The digests of the base's texts, if they are kept instead of the texts."""
        return self.base.digests

    @property
    def keeps_texts(self) -> bool:
        """Whether the rows' texts are kept."""
        return self._keeps_texts

    def __len__(self) -> int:
        """Number of rows that are not removed."""
        return self._live

    @property
    def config(self) -> IndexConfig:
        """The index's parameters."""
        return self.base.config

    @property
    def ndim(self) -> int:
        """Dimensions of a key."""
        return self.base.ndim

    @property
    def num_labels(self) -> int:
        """Number of labels, c."""
        return len(self._state.labels)

    def nbytes(self) -> dict[str, int]:
        """Bytes of each part of the base; the memory of edits is not counted."""
        return self.base.nbytes()

    def _living_many(
        self,
        index: Index | AddedRows,
        queries: NDArray[np.float32],
        k: int,
        threads: int,
        first: int,
        rows: int,
        living: int,
    ) -> tuple[Ints, NDArray[np.float32], Bools]:
        """`_living` for many queries with one search each: removed rows get similarity -inf.

        Returns:
            rows and similarities [n, m], and which queries [n, 1] found too few rows.
        """
        needed = min(k, living)
        found, similarities = index.search_many(queries, needed if living == rows else needed + _EXTRA_ROWS, threads)
        kept = found < rows
        kept[kept] = self._state.alive[first + found[kept]]
        short = (kept.sum(axis=1, keepdims=True) < needed) & (found.shape[1] < len(index))
        return found + first, np.where(kept, similarities, np.float32(-np.inf)), short

    def _living(
        self,
        index: Index | AddedRows,
        query: NDArray[np.float32],
        k: int,
        first: int,
        living: int,
        rows: int,
        exact: bool = False,
    ) -> SearchResult:
        """Search one index, whose row 0 has the number ``first``, for more rows until enough are not removed."""
        needed = min(k, living)
        ask = needed if living == rows else needed + _EXTRA_ROWS
        while True:
            found, similarities = index.search(query, ask, exact)
            # Rows that were added after this state do not belong to it.
            kept = found < rows
            kept[kept] = self._state.alive[first + found[kept]]
            if kept.sum() >= needed or ask >= len(index):
                return SearchResult(found[kept][:needed] + first, similarities[kept][:needed])
            ask = min(2 * ask, len(index))
