"""One answer of a teacher in a row of a file: a label, votes, probabilities or log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....errors import LabelError
from ....runtime.data.cells import check_label, is_missing
from ....runtime.labels import LabelNames

TOLERANCE = 0.02
"""Largest difference from 1 of the sum of given probabilities, which are then normalised."""

GOLD, EMBEDDING, PROBS = "gold", "embedding", "probs"
FORMS = (
    'one of "label": "refund", "labels": ["refund", "refund", "billing"], '
    '"probs": {"refund": 0.8, "billing": 0.2}, "logprobs": {"refund": -0.2, "billing": -1.9}'
)


class Cell(NamedTuple):
    """A cell of a file: its value, its place for messages, and the names of labels allowed (None for all)."""

    value: object
    source: str
    row: int
    column: str
    allowed: LabelNames | None

    def wrong(self, expected: str, remedy: str = "Correct or drop the row.") -> LabelError:
        """Return the error for a value of the wrong form."""
        return LabelError(
            "the value cannot be used",
            path=self.source,
            row=self.row,
            column=self.column,
            found=repr(self.value),
            expected=expected,
            remedy=remedy,
        )

    def label(self, name: object) -> str:
        """Return the name of a label in the cell.

        Raises:
            LabelError: it is no label, or not one that is allowed.
        """
        label = check_label(name, self.source, self.row, self.column)
        if self.allowed is None:
            return label
        label = self.allowed.read(label)
        if label not in self.allowed.names:
            raise LabelError(
                "unknown label",
                path=self.source,
                row=self.row,
                column=self.column,
                found=repr(label),
                expected=f"one of the {len(self.allowed.names)} labels of the data",
                remedy="Correct or drop the row; `train` without --data accepts every label.",
            )
        return label


class Answer(NamedTuple):
    """An answer as evidence for labels.

    Attributes:
        evidence: label -> number of votes, or share of one answer.
        total: sum of the given probabilities before they were normalised; None for votes.
    """

    evidence: dict[str, float]
    total: float | None


def read_answer(cells: Mapping[str, object], source: str, row: int, allowed: LabelNames | None) -> Answer:
    """Read the only answer of a row.

    Args:
        cells: column name -> cell.
        source: the file's name, for messages.
        row: 1-based, for messages.
        allowed: the names of labels allowed; None for all.

    Raises:
        LabelError: there is no answer, more than one, or one that cannot be used.
    """
    given = [name for name in READERS if not is_missing(cells.get(name))]
    if len(given) == 1:
        return READERS[given[0]](Cell(cells[given[0]], source, row, given[0], allowed))
    raise LabelError(
        "the row has several answers" if given else "the row has no answer",
        path=source,
        row=row,
        found=" and ".join(given) or None,
        expected=FORMS,
        remedy=f"Keep one of them. The column of gold labels is {GOLD!r}." if given else "Drop the row.",
    )


def read_embedding(cell: Cell) -> NDArray[np.float32]:
    """Read an embedding: a list of finite numbers, not all 0, because it has to have a direction.

    Raises:
        LabelError: it has another form.
    """
    value = cell.value
    numbers = isinstance(value, list) and all(type(item) in (int, float) for item in value)
    vector = np.asarray(value if numbers else [], np.float32)
    if not np.isfinite(vector).all() or not vector.any():
        raise cell.wrong("a list of finite numbers that are not all 0")
    return vector


def _one_vote(cell: Cell) -> Answer:
    if isinstance(cell.value, dict | list | tuple):
        raise cell.wrong(FORMS)
    return Answer({cell.label(cell.value): 1.0}, None)


def _votes(cell: Cell) -> Answer:
    value = cell.value
    if not isinstance(value, list) or not value or any(isinstance(vote, dict | list | tuple) for vote in value):
        raise cell.wrong('a list of labels, ["refund", "refund", "billing"]')
    votes: dict[str, float] = {}
    for vote in value:
        label = cell.label(vote)
        votes[label] = votes.get(label, 0.0) + 1.0
    return Answer(votes, None)


def _probabilities(cell: Cell) -> Answer:
    shares = _numbers(cell, lambda number: 0 <= number <= 1 + TOLERANCE)
    total = sum(shares.values())
    if abs(total - 1) > TOLERANCE:
        raise cell.wrong(
            f"numbers that sum to 1, within {TOLERANCE}; their sum is {total:.4g}",
            "Divide them by their sum, unless a label is missing.",
        )
    return _normalised(shares, total)


def _log_probabilities(cell: Cell) -> Answer:
    shares = {label: math.exp(number) for label, number in _numbers(cell, lambda number: number <= TOLERANCE).items()}
    total = sum(shares.values())
    if not 0 < total <= 1 + TOLERANCE:
        raise cell.wrong(f"logarithms of probabilities that sum to at most 1; their sum is {total:.4g}")
    return _normalised(shares, total)


def _normalised(shares: Mapping[str, float], total: float) -> Answer:
    return Answer({label: share / total for label, share in shares.items()}, total)


def _numbers(cell: Cell, fits: Callable[[float], bool]) -> dict[str, float]:
    """Return the numbers of an object of labels and numbers."""
    value = cell.value
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        value = dict(value)  # a Parquet map
    if not isinstance(value, dict):
        raise cell.wrong(f"an object of labels and numbers; {FORMS}")
    found: dict[str, float] = {}
    for name, number in value.items():
        if number is None:  # a Parquet struct has the labels of all rows
            continue
        if isinstance(number, bool) or not isinstance(number, int | float) or not fits(number):
            what = "probabilities from 0 to 1" if cell.column == "probs" else "logarithms of probabilities, at most 0"
            raise cell._replace(value={name: number}).wrong(what)
        label = cell.label(name)
        if label in found:
            raise cell.wrong(f"the label {label!r} once")
        found[label] = float(number)
    return found


READERS: dict[str, Callable[[Cell], Answer]] = {
    "label": _one_vote,
    "labels": _votes,
    PROBS: _probabilities,
    "logprobs": _log_probabilities,
}
"""The columns of answers."""
