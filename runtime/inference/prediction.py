"""What the runtime answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...kb.searchable import Searchable
from ..decision.conformal import PredictionSets
from ..decision.rejection_score import Signal

Reason = Literal["never", "empty", "sure", "budget"]
"""Why nothing was retrieved: the runtime was opened so, the knowledge base has no row, the student was sure enough for
the gate, or the text's time was used up."""


class Timings(NamedTuple):
    """Microseconds spent in each stage of one prediction.

    Without neighbours ``search_us`` is 0, and ``blend_us`` what it took to choose the label.
    """

    tokenize_us: float
    run_us: float
    search_us: float
    blend_us: float


@dataclass(frozen=True, slots=True, eq=False)
class Neighbour:
    """A row of the knowledge base that a prediction looked up.

    Attributes:
        row: its number in the knowledge base, from 0.
        id: its identity, as given when the knowledge base was built.
        similarity: cosine to the query.
        weight: its share of the retrieved probabilities; a prediction's weights sum to 1.
        label: the label that the teacher gives it.
        gold_label: the label that the data gave it, None where unknown.
        soft_label: the teacher's probabilities, float32 [c].
        text: its text or pair, None where the knowledge base keeps no texts.
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


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was looked up for one text; `Prediction.neighbours` makes it readable when it is asked for."""

    kb: Searchable
    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]
    weights: NDArray[np.float32]

    def neighbours(self, labels: Sequence[str]) -> tuple[Neighbour, ...]:
        """Every neighbour with its names and text, best first."""
        return tuple(self._neighbour(rank, int(row), labels) for rank, row in enumerate(self.rows))

    def _neighbour(self, rank: int, row: int, labels: Sequence[str]) -> Neighbour:
        soft_label = self.kb.soft_labels[row]
        gold = self.kb.label(row)
        return Neighbour(
            row=row,
            id=self.kb.id(row),
            similarity=float(self.similarities[rank]),
            weight=float(self.weights[rank]),
            label=labels[int(soft_label.argmax())],
            gold_label=labels[gold] if gold >= 0 else None,
            soft_label=soft_label,
            text=self.kb.text(row),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One text's answer.

    Two predictions are equal when every number in them but the timings is the same, bit for bit.

    Attributes:
        label: the most probable label.
        probability: its probability.
        probabilities: float32 [c], the blend, in the order of ``labels``.
        student_probabilities: float32 [c], the student's own.
        retrieval_probabilities: float32 [c], the neighbours' own; None where nothing was retrieved.
        reason: why nothing was retrieved; None where neighbours had a part in the answer.
        student_weight: the student's share of this answer, 0 to 1; 1.0 where nothing was retrieved.
        timings: microseconds a stage.
        labels: the labels' names.
        doubt: how much speaks against answering, from 0 (`doubt`); None where abstention was not asked for.
        abstention: the signal that speaks most against it, where it is too much; None where the text is answered.
    """

    label: str
    probability: float
    probabilities: NDArray[np.float32] = field(repr=False)
    student_probabilities: NDArray[np.float32] = field(repr=False)
    retrieval_probabilities: NDArray[np.float32] | None = field(repr=False)
    reason: Reason | None
    student_weight: float
    timings: Timings
    labels: tuple[str, ...] = field(repr=False)
    _found: Retrieval | tuple[Neighbour, ...] = field(default=(), repr=False)
    rejection_score: float | None = None
    abstention: Signal | None = None
    _sets: PredictionSets | None = field(default=None, repr=False)
    _edited: tuple[float, float] = field(default=(0.0, 0.0), repr=False)

    @property
    def abstained(self) -> bool:
        """Whether the text is better left unanswered, by what was asked for; the label is there nevertheless."""
        return self.abstention is not None

    @property
    def prediction_set(self) -> tuple[str, ...] | None:
        """The labels that are likely enough, best first: the right one is among them for 90 % of texts (`conformal`).

        It may be empty. None where the bundle has no such sets, or edits brought labels that they were not fitted for.
        """
        return None if self._sets is None or 0.9 not in self._sets.coverages else self.prediction_set_of(0.9)

    def prediction_set_of(self, coverage: float) -> tuple[str, ...]:
        """`prediction_set` for another share of texts than 90 %.

        Raises:
            UsageError: the bundle has none for this coverage.
        """
        if self._sets is None:
            raise UsageError(
                "the bundle has no prediction sets",
                expected="an abstention section in the manifest",
                remedy="Export it again with this version.",
            )
        least = self._sets.of(coverage)
        order = np.argsort(-self.probabilities, kind="stable")
        return tuple(self.labels[one] for one in order[self.probabilities[order] >= least])

    @property
    def edited(self) -> tuple[float, float]:
        """What edits of the knowledge base decide of the answer: the parts of new labels and of a pinned row."""
        return self._edited

    @property
    def similarities(self) -> NDArray[np.float32]:
        """The neighbours' cosines, float32 [k], best first."""
        found = self._found
        if isinstance(found, Retrieval):
            return found.similarities
        return np.array([near.similarity for near in found], np.float32)

    @property
    def retrieved(self) -> bool:
        """Whether neighbours had a part in the answer."""
        return self.reason is None

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """The neighbours, best first; looked up in the knowledge base at the first call."""
        found = self._found
        if isinstance(found, Retrieval):
            found = found.neighbours(self.labels)
            object.__setattr__(self, "_found", found)
        return found

    def as_record(self, explain: bool = False) -> dict[str, Any]:
        """The answer as JSON values: label, probability, probabilities (label to number), retrieved, else the reason;
        where abstention was asked for, also abstained, doubt and abstention.

        Args:
            explain: add the student's share, its own and the retrieved probabilities, the prediction set where the
                bundle has one, and the neighbours.
        """
        record: dict[str, Any] = {
            "label": self.label,
            "probability": self.probability,
            "probabilities": self._named(self.probabilities),
            "retrieved": self.retrieved,
        }
        if self.reason is not None:
            record["reason"] = self.reason
        if self.rejection_score is not None:
            record |= {
                "abstained": self.abstained,
                "rejection_score": self.rejection_score,
                "abstention": self.abstention,
            }
        if explain:
            retrieved = self.retrieval_probabilities
            record["student_weight"] = self.student_weight
            record["student_probabilities"] = self._named(self.student_probabilities)
            record["retrieval_probabilities"] = None if retrieved is None else self._named(retrieved)
            if self.prediction_set is not None:
                record["prediction_set"] = list(self.prediction_set)
            record["neighbours"] = [neighbour.as_record() for neighbour in self.neighbours]
        return record

    def _named(self, probabilities: NDArray[np.float32]) -> dict[str, float]:
        return dict(zip(self.labels, probabilities.tolist(), strict=True))

    def _key(self) -> tuple[object, ...]:
        retrieved = self.retrieval_probabilities
        return (
            self.label,
            self.reason,
            self.student_weight,
            self.rejection_score,
            self.abstention,
            self.probabilities.tobytes(),
            self.student_probabilities.tobytes(),
            None if retrieved is None else retrieved.tobytes(),
            tuple((near.row, near.similarity, near.weight) for near in self.neighbours),
        )

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Prediction) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[object, ...]:
        # The knowledge base stays behind: what was looked up travels along.
        names = ("label", "probability", "probabilities", "student_probabilities", "retrieval_probabilities")
        rest = (
            "reason",
            "student_weight",
            "timings",
            "labels",
            "neighbours",
            "rejection_score",
            "abstention",
            "_sets",
            "_edited",
        )
        return (Prediction, tuple(getattr(self, name) for name in (*names, *rest)))
