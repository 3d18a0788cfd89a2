"""The state of a knowledge base's rows between one edit and the next."""

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
class State:
    """What differs between one edit and the next; nothing in it is written to once it is in force."""

    labels: tuple[str, ...]
    added: int
    alive: Bools
    labellings: dict[int, Labelling]
    soft: dict[int, Shares]
    gold: dict[int, int]
    pins: Bools
    odds: float


class StateBuilder:
    """A state that edits are made to, one after the other.

    Args:
        state: to begin with; it stays as it is.
        row_of: the number of the row with an id, among the rows of that state.
        more: how many rows are added in all.
    """

    def __init__(self, state: State, row_of: Callable[[int], int | None], more: int) -> None:
        self._row_of, self._rows, self._added = row_of, len(state.alive), state.added
        self._labels = {name: place for place, name in enumerate(state.labels)}
        self._labellings, self._soft, self._gold = dict(state.labellings), dict(state.soft), dict(state.gold)
        self._alive = np.concatenate([state.alive, np.zeros(more, bool)])
        self._pins, self._odds = np.concatenate([state.pins, np.zeros(more, bool)]), state.odds
        self._new: dict[int, int] = {}  # id to row

    def take(self, change: Change) -> None:
        """Make an edit; of one that is refused some may be done."""
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
                raise UsageError("a row of this id is there already", found=added.id)
            row = self._new[added.id] = self._rows + len(self._new)
            self._alive[row] = True
            self._label(row, added.labelling)
        for ids, now in ((change.remove, False), (change.restore, True)):
            for row_id in ids:
                row = self._row(row_id)
                if self._alive[row] == now:
                    raise missing(row_id, not now)
                self._alive[row] = now
        self._odds = self._odds if change.odds is None else change.odds

    def state(self) -> State:
        """The state after the edits so far."""
        return State(
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
    """The complaint about an id that no row has, or (not alive) no removed one."""
    return UsageError(
        "there is no such row" if alive else "there is no such removed row",
        found=row_id,
        expected="the id of a row of the knowledge base, once",
        remedy="`reaugkd predict --explain --format jsonl` shows the ids of the rows behind an answer.",
    )


def _shares(labelling: Labelling, number: dict[str, int]) -> Shares:
    shares = labelling.shares
    return np.array([_number(name, number) for name in shares], np.intp), np.array(list(shares.values()), np.float32)


def _gold(labelling: Labelling, number: dict[str, int]) -> int:
    return -1 if labelling.label is None else _number(labelling.label, number)


def _number(name: str, number: dict[str, int]) -> int:
    if name not in number:
        raise UsageError("a row has a label that is not known", found=name, expected="one of the labels")
    return number[name]
