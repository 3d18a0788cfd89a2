"""A knowledge base with edits on top: rows added, removed and relabelled, without a change to the files below.

Rows are numbered through: first those of the base, then the added ones in their order. A removed row keeps its number,
and is skipped by searches, until the next `fold`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, UsageError
from ..index.hnsw import IndexConfig, VectorIndex
from ..knowledge_base import KnowledgeBase, Neighbours
from ..texts import TextDigests
from .change import Change, Labelling, NewRow, Text
from .overlay_labels import OverlayLabels
from .overlay_state import State, StateBuilder

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
_SLACK = 8  # rows asked for beyond k where some may be removed


class OverlayKnowledgeBase(KnowledgeBase):
    """A base and what edits made of it. `apply` gives the next one, and leaves this one as it is.

    Attributes:
        labels: the names of all c labels, new ones last.
        base: what lies below.
    """

    def __init__(
        self,
        base: KnowledgeBase,
        labels: tuple[str, ...],
        added: AddedRows | None = None,
        state: State | None = None,
        keeps_texts: bool | None = None,
    ) -> None:
        rows = len(base)
        pins = np.zeros(rows, bool) if base.pins is None else base.pins
        self.base = base
        self._added = AddedRows(base.config) if added is None else added
        self._state = state or State(labels, 0, np.ones(rows, bool), {}, {}, {}, pins, base.odds)
        self._keeps_texts = base.keeps_texts if keeps_texts is None else keeps_texts
        self._live = int(self._state.alive.sum())
        self._live_base = int(self._state.alive[:rows].sum())
        self.soft_labels = OverlayLabels(self.base.soft_labels, self._state.soft, len(self.labels), len(self.alive))

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of all c labels, new ones last."""
        return self._state.labels

    @property
    def pins(self) -> Bools:
        """Which rows are pinned, bool [all rows, removed ones too]."""
        return self._state.pins

    @property
    def odds(self) -> float:
        """What the odds of labels are multiplied by that the student was not taught."""
        return self._state.odds

    @property
    def alive(self) -> Bools:
        """Which rows are not removed, bool [all rows]."""
        return self._state.alive

    @property
    def relabelled(self) -> Collection[int]:
        """The numbers of the rows whose labels come from an edit."""
        return self._state.soft.keys()

    @property
    def added(self) -> int:
        """How many rows were added, removed ones among them."""
        return self._state.added

    @property
    def removed(self) -> int:
        """How many rows are removed."""
        return len(self._state.alive) - self._live

    def apply(self, change: Change) -> OverlayKnowledgeBase:
        """The knowledge base after an edit; to be called for the newest state only.

        Raises:
            UsageError: as of `check`.
        """
        return self.applied([change])

    def applied(self, changes: Sequence[Change]) -> OverlayKnowledgeBase:
        """`apply` for several edits, one after the other, at the cost of one.

        Raises:
            UsageError: as of `check`; then none of them is made.
        """
        after = self._after(changes)
        for change in changes:
            if change.add:
                self._added.append(change.add)
        return self._with(after)

    def check(self, change: Change) -> None:
        """Whether `apply` would do; nothing is changed.

        Raises:
            UsageError: the edit is of rows or labels that are not there, or there already.
        """
        self._after([change])

    def _after(self, changes: Sequence[Change]) -> State:
        if len(self._added) != self.added:
            raise UsageError("an edit of a state that is not the newest")
        draft = StateBuilder(self._state, self.row_of, sum(len(change.add) for change in changes))
        for change in changes:
            draft.take(change)
        return draft.state()

    def _with(self, state: State, added: AddedRows | None = None) -> OverlayKnowledgeBase:
        rows = self._added if added is None else added
        return OverlayKnowledgeBase(self.base, state.labels, rows, state, self._keeps_texts)

    def supposing(self, change: Change) -> OverlayKnowledgeBase:
        """What `apply` would give, for looking at; this one stays the newest.

        Raises:
            UsageError: as of `check`.
        """
        after, added = self._after([change]), self._added.copy(self.added)
        if change.add:
            added.append(change.add)
        return self._with(after, added)

    def next_id(self, least: int = 0) -> int:
        """The first id from ``least`` on that is larger than those of all added rows."""
        return max(least, max(self._added.ids, default=-1) + 1)

    def without(self, rows: Iterable[int]) -> OverlayKnowledgeBase:
        """The same with these rows out of sight; not to be edited further."""
        alive = self._state.alive.copy()
        alive[list(rows)] = False
        return self._with(replace(self._state, alive=alive))

    def find(self, row_id: int, alive: bool = True) -> int | None:
        """The number of the row with this id; None where there is none, or it is removed (or, for not alive, is not).

        Raises:
            UsageError: several rows of the base have it.
        """
        row = self.row_of(row_id)
        return row if row is not None and bool(self._state.alive[row]) == alive else None

    def row_of(self, row_id: int) -> int | None:
        """The number of the row with this id, removed or not; None where there is none.

        Raises:
            UsageError: several rows of the base have it.
        """
        place = self._added.places.get(row_id)
        if place is not None:
            return len(self.base) + place if place < self.added else None
        rows = self.base.rows_with_id(row_id)
        if len(rows) > 1:
            remedy = "Rows that are edited need ids of their own: export the bundle again."
            raise UsageError("several rows have this id", found=row_id, remedy=remedy)
        return rows[0] if rows else None

    def labelling(self, row: int) -> Labelling:
        """What a row says of its label."""
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
        """The key of an added row as it is stored, float32 [d]; of the base's rows `KnowledgeBase.keys` has them."""
        return self._added.keys[row - len(self.base)]

    def search(self, query: NDArray[np.float32], k: int) -> Neighbours:
        """The ``min(k, len(self))`` rows that are not removed and most similar to ``query`` float32 [d], best first."""
        base = len(self.base)
        rows, similarities = self._living(self.base.index, query, k, 0, self._live_base, base)
        if self.added:
            wanted = self._live - self._live_base
            more, nearness = self._living(self._added.index, query, k, base, wanted, self.added)
            rows, similarities = np.concatenate([rows, more]), np.concatenate([similarities, nearness])
            order = np.argsort(-similarities, kind="stable")[:k]
            rows, similarities = rows[order], similarities[order]
        return Neighbours(rows, similarities)

    def search_many(self, queries: NDArray[np.float32], k: int, threads: int = 1) -> tuple[Ints, NDArray[np.float32]]:
        """`search` for each of ``queries`` [n, d]: rows int64 and similarities float32, both [n, min(k, len(self))]."""
        base, wanted = len(self.base), min(k, len(self))
        if not (len(queries) and wanted > 0):
            return np.zeros((len(queries), max(wanted, 0)), np.int64), np.zeros(
                (len(queries), max(wanted, 0)), np.float32
            )
        parts = [(self.base.index, 0, base, self._live_base)]
        parts += [(self._added.index, base, self.added, self._live - self._live_base)] if self.added else []
        found = [self._living_many(index, queries, k, threads, *part) for index, *part in parts]
        rows, similarities, short = (np.concatenate(columns, axis=1) for columns in zip(*found, strict=True))
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :wanted]
        rows, similarities = np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1)
        for query in np.flatnonzero(short.any(axis=1)):  # too many of what they found is removed
            rows[query], similarities[query] = self.search(queries[query], k)
        return rows, similarities

    def keys(self) -> NoReturn:
        """Not of an edited knowledge base.

        Raises:
            BundleError: always.
        """
        raise BundleError(
            "the knowledge base has edits that are not folded in", remedy="Run `reaugkd kb compact` on it first."
        )

    def with_soft_labels(self, soft_labels: NDArray[np.floating], label_loss: float = 0.0) -> NoReturn:
        """Not of an edited knowledge base.

        Raises:
            BundleError: always.
        """
        self.keys()

    def save(self, folder: object) -> NoReturn:
        """Not of an edited knowledge base; `fold.fold` makes one of it that can be saved.

        Raises:
            BundleError: always.
        """
        self.keys()

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
        """The row's identity."""
        base = len(self.base)
        return self.base.id(row) if row < base else self._added.ids[row - base]

    def text(self, row: int) -> Text | None:
        """The row's text or pair; None where it is not kept.

        Raises:
            BundleError: as of `KnowledgeBase.text`.
        """
        base = len(self.base)
        return self.base.text(row) if row < base else self._added.texts[row - base]

    def text_digest(self, row: int) -> str | None:
        """The digest of the row's text, where digests are kept in place of texts."""
        base = len(self.base)
        return self.base.text_digest(row) if row < base else self._added.digests[row - base]

    def rows_of(self, text: Text) -> list[int]:
        """The rows with just this text or pair that are not removed, in order.

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
        """Those of the base's texts, where they are kept in place of texts."""
        return self.base.digests

    @property
    def keeps_texts(self) -> bool:
        """Whether the rows' texts are kept."""
        return self._keeps_texts

    def __len__(self) -> int:
        """Rows that are not removed."""
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

    @property
    def format_version(self) -> int:
        """That of the base."""
        return self.base.format_version

    def nbytes(self) -> dict[str, int]:
        """Bytes of each part of the base; what edits take in memory is not counted."""
        return self.base.nbytes()

    def _living_many(
        self, index: VectorIndex, queries: NDArray[np.float32], k: int, threads: int, first: int, rows: int, living: int
    ) -> tuple[Ints, NDArray[np.float32], Bools]:
        """`_living` at the first go, for many: removed rows are infinitely far; and for which queries, [n, 1], that is
        not enough.
        """
        wanted = min(k, living)
        found, similarities = index.search_many(queries, wanted if living == rows else wanted + _SLACK, threads)
        kept = found < rows
        kept[kept] = self._state.alive[first + found[kept]]
        short = (kept.sum(axis=1, keepdims=True) < wanted) & (found.shape[1] < len(index))
        return found + first, np.where(kept, similarities, np.float32(-np.inf)), short

    def _living(
        self, index: VectorIndex, query: NDArray[np.float32], k: int, first: int, living: int, rows: int
    ) -> tuple[Ints, NDArray[np.float32]]:
        """Of one index, whose row 0 has the number ``first``: asked for more until enough of them are not removed."""
        wanted = min(k, living)
        ask = wanted if living == rows else wanted + _SLACK
        while True:
            found, similarities = index.search(query, ask)
            # Rows that were added after this state are none of its business.
            kept = found < rows
            kept[kept] = self._state.alive[first + found[kept]]
            if kept.sum() >= wanted or ask >= len(index):
                return found[kept][:wanted] + first, similarities[kept][:wanted]
            ask = min(2 * ask, len(index))


class AddedRows:
    """Rows that were added, in lists that only grow, so that older states of the knowledge base can share them."""

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
        """The first rows."""
        copy = AddedRows(self.index.config)
        copy.keys, copy.ids = self.keys[:rows], self.ids[:rows]
        copy.places = {row_id: place for place, row_id in enumerate(copy.ids)}
        copy.texts, copy.digests = self.texts[:rows], self.digests[:rows]
        if rows:
            copy.index.append(np.array(copy.keys))
        return copy

    def append(self, rows: Sequence[NewRow]) -> None:
        """Add rows after the last one."""
        anywhere = np.eye(1, self.index.config.ndim, dtype=np.float32)[0]
        # An erased row is removed before anyone can ask for it: its place is all that it needs.
        keys = [anywhere if row.payload is None else row.payload.key.astype(np.float32) for row in rows]
        self.keys += keys
        self.places.update((row.id, len(self.ids) + place) for place, row in enumerate(rows))
        self.ids += [row.id for row in rows]
        self.texts += [None if row.payload is None else row.payload.text for row in rows]
        self.digests += [None if row.payload is None else row.payload.text_digest for row in rows]
        self.index.append(np.array(keys))  # last: who finds a row finds the rest of it
