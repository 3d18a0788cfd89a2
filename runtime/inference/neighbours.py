"""The neighbours of a prediction: a sequence that reads names and texts from the knowledge base when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ...kb.searchable import Searchable, SearchResult
from ..decision.blending import softmax


@dataclass(frozen=True, slots=True, eq=False)
class Neighbour:
    """A retrieved row of the knowledge base.

    Attributes:
        row: its number in the knowledge base, from 0.
        id: its permanent id, given when it was added to the knowledge base.
        similarity: cosine to the query.
        weight: its share of the retrieved probabilities; the weights of a prediction sum to 1.
        label: the teacher's most probable label.
        gold_label: the label in the data; None if unknown.
        soft_label: the teacher's probabilities, float32 [c].
        text: its text or pair; None if the knowledge base stores no texts.
    """

    row: int
    id: int
    similarity: float
    weight: float
    label: str
    gold_label: str | None
    soft_label: NDArray[np.float32] = field(repr=False)
    text: str | tuple[str, str] | None

    def as_record(self) -> dict[str, Any]:
        """The neighbour as JSON values, without its soft label."""
        names = ("row", "id", "similarity", "weight", "label", "gold_label", "text")
        return {name: getattr(self, name) for name in names}


class Neighbours(Sequence[Neighbour]):
    """An immutable sequence of `Neighbour`, most similar first.

    Row numbers and similarities are in memory; or, where the answer did not need the neighbours, they are searched for
    at the first access. The rest of each neighbour is read from the knowledge base at the first access; afterwards, and
    in a pickle, the sequence holds no reference to the knowledge base.

    Args:
        kb: the knowledge base that was searched.
        found: rows and similarities, or a function that returns them.
        tau: temperature of the softmax over the similarities.
        labels: names of the labels.
    """

    __slots__ = ("_found", "_read", "_tau", "_unread")

    def __init__(
        self,
        kb: Searchable | None,
        found: SearchResult | Callable[[], SearchResult],
        tau: float,
        labels: Sequence[str],
    ) -> None:
        self._found, self._tau = found, tau
        self._unread = None if kb is None else (kb, labels)
        self._read: tuple[Neighbour, ...] = ()

    @classmethod
    def of(cls, neighbours: Iterable[Neighbour], tau: float = 1.0) -> Neighbours:
        """A sequence of neighbours that were read before."""
        read = tuple(neighbours)
        rows = np.array([near.row for near in read], np.int64)
        made = cls(None, SearchResult(rows, np.array([near.similarity for near in read], np.float32)), tau, ())
        made._read = read
        return made

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row numbers, int64 [k]."""
        return self._searched().rows

    @property
    def similarities(self) -> NDArray[np.float32]:
        """Cosines, float32 [k], descending."""
        return self._searched().similarities

    @property
    def weights(self) -> NDArray[np.float32]:
        """Shares of the retrieved probabilities, float32 [k]."""
        return softmax(self.similarities, self._tau) if len(self) else self.similarities

    def _searched(self) -> SearchResult:
        found = self._found
        if not isinstance(found, SearchResult):
            self._found = found = found()
        return found

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        """Whether the same rows were found, with the same similarities and weights, bit for bit."""
        return self._key() == other._key() if isinstance(other, Neighbours) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[bytes, bytes, float]:
        return self.rows.tobytes(), self.similarities.tobytes(), self._tau

    @overload
    def __getitem__(self, index: int) -> Neighbour: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Neighbour, ...]: ...

    def __getitem__(self, index: int | slice) -> Neighbour | tuple[Neighbour, ...]:
        return self._all()[index]

    def __repr__(self) -> str:
        return f"Neighbours{self._all()!r}"

    def __reduce__(self) -> tuple[object, ...]:
        return (Neighbours.of, (self._all(), self._tau))

    def _all(self) -> tuple[Neighbour, ...]:
        unread = self._unread
        if unread is not None:
            weights = self.weights
            self._read = tuple(_neighbour(self, rank, float(weights[rank]), *unread) for rank in range(len(self)))
            self._unread = None  # last: another thread may be reading too
        return self._read


def _neighbour(found: Neighbours, rank: int, weight: float, kb: Searchable, labels: Sequence[str]) -> Neighbour:
    row = int(found.rows[rank])
    soft_label = kb.soft_labels[row]
    gold = kb.label(row)
    return Neighbour(
        row=row,
        id=kb.id(row),
        similarity=float(found.similarities[rank]),
        weight=weight,
        label=labels[int(soft_label.argmax())],
        gold_label=labels[gold] if gold >= 0 else None,
        soft_label=soft_label,
        text=kb.text(row),
    )


NO_NEIGHBOURS = Neighbours.of(())
"""The neighbours of an answer of the student alone."""
