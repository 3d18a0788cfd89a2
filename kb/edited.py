"""A knowledge base with edits on top: rows added, removed and relabelled, without a change to the files below.

Rows are numbered through: first those of the base, then the added ones in their order. A removed row keeps its number,
and is skipped by searches, until the next `fold`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, UsageError
from .added import AddedRows
from .change import Change, Labelling, Text
from .edited_labels import EditedLabels, Shares
from .index import IndexConfig, VectorIndex
from .knowledge_base import KnowledgeBase, Neighbours
from .text_digests import TextDigests

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
_SLACK = 8  # rows asked for beyond k where some may be removed


@dataclass(frozen=True)
class _State:
    """What differs between one edit and the next; arrays are replaced, never written to."""

    labels: tuple[str, ...]
    added: int
    alive: Bools
    soft: dict[int, Shares]
    gold: dict[int, int]
    pins: Bools
    odds: float


class EditedKnowledgeBase(KnowledgeBase):
    """A base and what edits made of it. `apply` gives the next one, and leaves this one as it is.

    Attributes:
        labels: the names of all c labels, new ones last.
        base: what lies below.
    """

    def __init__(
        self, base: KnowledgeBase, labels: tuple[str, ...], added: AddedRows | None = None, state: _State | None = None
    ) -> None:
        rows = len(base)
        pins = np.zeros(rows, bool) if base.pins is None else base.pins
        self.base = base
        self._added = AddedRows(base.config) if added is None else added
        self._state = state or _State(labels, 0, np.ones(rows, bool), {}, {}, pins, base.odds)
        self._live = int(self._state.alive.sum())
        self._live_base = int(self._state.alive[:rows].sum())
        self.soft_labels = EditedLabels(self.base.soft_labels, self._state.soft, len(self.labels), len(self.alive))

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

    def apply(self, change: Change) -> EditedKnowledgeBase:
        """The knowledge base after an edit; to be called for the newest state only.

        Raises:
            UsageError: as of `check`.
        """
        after = self.check(change)
        if change.add:
            self._added.append(change.add)
        return EditedKnowledgeBase(self.base, after.labels, self._added, after)

    def check(self, change: Change) -> _State:
        """What `apply` would lead to; nothing is changed.

        Raises:
            UsageError: the edit is of rows or labels that are not there, or there already.
        """
        state, first = self._state, len(self._state.alive)
        labels = (*state.labels, *change.labels)
        if len(set(labels)) != len(labels):
            raise UsageError("a new label has the name of another", found=", ".join(change.labels))
        if len(self._added) != state.added:
            raise UsageError("an edit of a state that is not the newest")
        known = {*self._added.ids, *(row.id for row in change.add)}
        taken = [row.id for row in change.add if self.base.rows_with_id(row.id)]
        if taken or len(known) != state.added + len(change.add):
            raise UsageError("a row of this id is there already", found=taken or "an added one")
        number = {name: place for place, name in enumerate(labels)}
        soft, gold = dict(state.soft), dict(state.gold)
        pins = np.concatenate([state.pins, np.zeros(len(change.add), bool)])
        alive = np.concatenate([state.alive, np.ones(len(change.add), bool)])
        labelled = [(self._row(entry.id, True), entry.new) for entry in change.relabel]
        labelled += [(first + place, row.labelling) for place, row in enumerate(change.add)]
        for row, labelling in labelled:
            soft[row], gold[row] = _shares(labelling, number), _gold(labelling, number)
            pins[row] = labelling.pin
        for ids, now in ((change.remove, False), (change.restore, True)):
            for row_id in ids:
                row = self._row(row_id, not now)
                if alive[row] == now:
                    raise UsageError("an edit names a row twice", found=row_id)
                alive[row] = now
        odds = state.odds if change.odds is None else change.odds
        return _State(labels, state.added + len(change.add), alive, soft, gold, pins, odds)

    def supposing(self, change: Change) -> EditedKnowledgeBase:
        """What `apply` would give, for looking at; this one stays the newest.

        Raises:
            UsageError: as of `check`.
        """
        after, added = self.check(change), self._added.copy(self.added)
        if change.add:
            added.append(change.add)
        return EditedKnowledgeBase(self.base, after.labels, added, after)

    def next_id(self, least: int = 0) -> int:
        """The first id from ``least`` on that is larger than those of all added rows."""
        return max(least, max(self._added.ids, default=-1) + 1)

    def without(self, rows: Iterable[int]) -> EditedKnowledgeBase:
        """The same with these rows out of sight; not to be edited further."""
        alive = self._state.alive.copy()
        alive[list(rows)] = False
        return EditedKnowledgeBase(self.base, self.labels, self._added, _State(**{**vars(self._state), "alive": alive}))

    def find(self, row_id: int, alive: bool = True) -> int | None:
        """The number of the row with this id; None where there is none, or it is removed (or, for not alive, is not).

        Raises:
            UsageError: several rows of the base have it.
        """
        rows = self.base.rows_with_id(row_id)
        if len(rows) > 1:
            raise UsageError("several rows have this id", found=row_id, remedy="Remove them by their label or text.")
        if not rows and row_id in self._added.ids[: self.added]:
            rows = [len(self.base) + self._added.ids.index(row_id)]
        return rows[0] if rows and bool(self._state.alive[rows[0]]) == alive else None

    def labelling(self, row: int) -> Labelling:
        """What a row says of its label."""
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
        return self.base.keeps_texts or not (len(self.base) or self.digests)

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

    def _row(self, row_id: int, alive: bool) -> int:
        row = self.find(row_id, alive)
        if row is None:
            raise UsageError(
                "there is no such row" if alive else "there is no such removed row",
                found=row_id,
                expected="the id of a row of the knowledge base",
                remedy="`reaugkd predict --explain` shows the ids of the rows behind an answer.",
            )
        return row

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


def _shares(labelling: Labelling, number: dict[str, int]) -> Shares:
    shares = labelling.shares
    return np.array([_number(name, number) for name in shares], np.intp), np.array(list(shares.values()), np.float32)


def _gold(labelling: Labelling, number: dict[str, int]) -> int:
    return -1 if labelling.label is None else _number(labelling.label, number)


def _number(name: str, number: dict[str, int]) -> int:
    if name not in number:
        raise UsageError("a row has a label that is not known", found=name, expected="one of the labels")
    return number[name]
