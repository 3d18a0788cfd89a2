"""The edited state of a knowledge base's rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from .change import Change, Labelling
from .overlay_labels import Shares

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class OverlayState:
    """The edited state between two edits; its arrays and dictionaries are never changed.

    Attributes:
        labels: the names of all labels, new ones last.
        added: number of added rows.
        alive: which rows are not removed, bool [n].
        labellings: row number to labelling, for rows that edits labelled.
        soft: the same rows' soft labels.
        gold: the same rows' gold labels, -1 for none.
        pins: which rows are pinned, bool [n].
        new_label_odds: factor on the odds of new labels.
    """

    labels: tuple[str, ...]
    added: int
    alive: Bools
    labellings: dict[int, Labelling]
    soft: dict[int, Shares]
    gold: dict[int, int]
    pins: Bools
    new_label_odds: float


class StateBuilder:
    """Applies edits to a state, one after the other.

    Args:
        state: the state before the edits; it is not changed.
        row_of: maps an id to the row number in that state.
        more: number of rows that all edits add.
    """

    def __init__(self, state: OverlayState, row_of: Callable[[int], int | None], more: int) -> None:
        self._row_of, self._rows, self._added = row_of, len(state.alive), state.added
        self._labels = {name: place for place, name in enumerate(state.labels)}
        self._labellings, self._soft, self._gold = dict(state.labellings), dict(state.soft), dict(state.gold)
        self._alive = np.concatenate([state.alive, np.zeros(more, bool)])
        self._pins, self._odds = np.concatenate([state.pins, np.zeros(more, bool)]), state.new_label_odds
        self._new: dict[int, int] = {}  # id to row

    def apply(self, change: Change) -> None:
        """Apply an edit; a refused edit may be applied in part.

        Raises:
            UsageError: a row or label is unknown, or exists already.
        """  # noqa: DOC501
        for name in change.labels:
            if name in self._labels:
                raise UsageError("a new label has the name of another", found=name)
            self._labels[name] = len(self._labels)
        for relabelling in change.relabel:
            row = self._row(relabelling.id)
            if not self._alive[row]:
                raise missing(relabelling.id, True)
            self._label(row, relabelling.new)
        for added in change.add:
            if added.id in self._new or self._row_of(added.id) is not None:
                raise UsageError("a row with this id exists already", found=added.id)
            row = self._new[added.id] = self._rows + len(self._new)
            self._alive[row] = True
            self._label(row, added.labelling)
        for ids, now in ((change.remove, False), (change.restore, True)):
            for row_id in ids:
                row = self._row(row_id)
                if self._alive[row] == now:
                    raise missing(row_id, not now)
                self._alive[row] = now
        self._odds = self._odds if change.new_label_odds is None else change.new_label_odds

    def state(self) -> OverlayState:
        """The state after the edits so far."""
        return OverlayState(
            tuple(self._labels),
            self._added + len(self._new),
            self._alive,
            self._labellings,
            self._soft,
            self._gold,
            self._pins,
            self._odds,
        )

    def _row(self, row_id: int) -> int:
        row = self._new.get(row_id)
        row = self._row_of(row_id) if row is None else row
        if row is None:
            raise missing(row_id, True)
        return row

    def _label(self, row: int, labelling: Labelling) -> None:
        self._labellings[row] = labelling
        self._soft[row], self._gold[row] = _shares(labelling, self._labels), _gold(labelling, self._labels)
        self._pins[row] = labelling.pin


def missing(row_id: int, alive: bool) -> UsageError:
    """The error for an id that no row has, or (not alive) no removed row."""
    return UsageError(
        "there is no such row" if alive else "there is no such removed row",
        found=row_id,
        expected="the id of a row of the knowledge base, given once",
        remedy="`reaugkd predict --explain --format jsonl` shows the ids of the rows behind an answer.",
    )


def _shares(labelling: Labelling, number: dict[str, int]) -> Shares:
    shares = labelling.shares
    return np.array([_number(name, number) for name in shares], np.intp), np.array(list(shares.values()), np.float32)


def _gold(labelling: Labelling, number: dict[str, int]) -> int:
    return -1 if labelling.label is None else _number(labelling.label, number)


def _number(name: str, number: dict[str, int]) -> int:
    if name not in number:
        raise UsageError("a row has an unknown label", found=name, expected="one of the labels")
    return number[name]
