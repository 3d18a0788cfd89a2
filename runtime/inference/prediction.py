"""A prediction: the answer to one text, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ..decision.conformal import PredictionSets
from ..decision.rejection_score import Signal
from .neighbours import NO_NEIGHBOURS, Neighbours
from .retrieval_policy import Reason


class Timings(NamedTuple):
    """Microseconds in each stage of one prediction.

    ``search_us`` is 0 without neighbours, and where the search is part of the run of the model; ``blend_us`` is then
    the time to make the answer.
    """

    tokenize_us: float
    run_us: float
    search_us: float
    blend_us: float


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer to one text.

    Two predictions are equal if all their values except the timings are equal, bit for bit.

    Attributes:
        label: the most probable label.
        probability: its probability.
        probabilities: float32 [c], the blend, in the order of ``labels``.
        student_probabilities: float32 [c], the student's own.
        retrieval_probabilities: float32 [c], the neighbours' own; None if they are no part of the answer.
        reason: why nothing was retrieved; None with neighbours.
        student_weight: the student's share of this answer, 0 to 1; 1.0 without neighbours.
        timings: microseconds in each stage.
        labels: names of the labels.
        neighbours: the retrieved rows, most similar first; their texts are read at the first access. Where the blend
            gives neighbours no weight (reason ``"weight"``), they are searched for at the first access.
        rejection_score: the score above which a text is abstained from, from 0 upwards (`decision.rejection_score`);
            None unless abstention was requested.
        abstention: the signal with the largest part of the score if the text is abstained from, else None.
        set_thresholds: thresholds of the prediction sets; None if the bundle has none for this answer.
        nearest: the cosine of the most similar neighbour; 0.0 without neighbours.
        edited: the parts of the answer that come from edits: the part on new labels, and the part of a pinned row.
        truncated: whether only the beginning of the text was read: it has more tokens than the bundle's ``max_length``.
        tokens: the number of tokens read, special tokens included.
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
    neighbours: Neighbours = field(default=NO_NEIGHBOURS, repr=False)
    rejection_score: float | None = None
    abstention: Signal | None = None
    nearest: float = field(default=0.0, repr=False)
    set_thresholds: PredictionSets | None = field(default=None, repr=False)
    edited: tuple[float, float] = field(default=(0.0, 0.0), repr=False)
    truncated: bool = False
    tokens: int = 0

    @property
    def abstained(self) -> bool:
        """Whether the rejection score is above the threshold; the label is set nevertheless."""
        return self.abstention is not None

    @property
    def prediction_set(self) -> tuple[str, ...] | None:
        """The labels that include the right one for 90 % of texts, most probable first (`decision.conformal`).

        It may be empty. None if the bundle has no prediction sets, or if edits added labels.
        """
        thresholds = self.set_thresholds
        return None if thresholds is None or 0.9 not in thresholds.coverages else self.prediction_set_of(0.9)

    def prediction_set_of(self, coverage: float) -> tuple[str, ...]:
        """The prediction set for another share of texts than 90 %.

        Raises:
            UsageError: the bundle has no prediction sets for this coverage.
        """
        if self.set_thresholds is None:
            raise UsageError(
                "the bundle has no prediction sets",
                expected="an abstention section in the manifest",
                remedy="Export it again with this version.",
            )
        least = self.set_thresholds.of(coverage)
        order = np.argsort(-self.probabilities, kind="stable")
        return tuple(self.labels[one] for one in order[self.probabilities[order] >= least])

    @property
    def similarities(self) -> NDArray[np.float32]:
        """The neighbours' cosines, float32 [k], descending."""
        return self.neighbours.similarities

    @property
    def retrieved(self) -> bool:
        """Whether neighbours are part of the answer."""
        return self.reason is None

    def as_record(self, explain: bool = False) -> dict[str, Any]:
        """The answer as JSON values.

        Keys: ``label``, ``probability``, ``probabilities`` (label to number), ``retrieved``, ``truncated``; without
        neighbours also ``reason``; with abstention also ``abstained``, ``rejection_score`` and ``abstention``.

        Args:
            explain: add ``student_weight``, ``student_probabilities``, ``retrieval_probabilities``, ``neighbours`` and,
                if the bundle has it, ``prediction_set``.
        """
        record: dict[str, Any] = {
            "label": self.label,
            "probability": self.probability,
            "probabilities": self._named(self.probabilities),
            "retrieved": self.retrieved,
            "truncated": self.truncated,
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
            if retrieved is None and self.neighbours:
                retrieved = self.neighbours.probabilities()
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
        retrieved, near = self.retrieval_probabilities, self.neighbours
        return (
            self.label,
            self.reason,
            self.truncated,
            self.student_weight,
            self.rejection_score,
            self.abstention,
            self.probabilities.tobytes(),
            self.student_probabilities.tobytes(),
            None if retrieved is None else retrieved.tobytes(),
            near,
        )

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Prediction) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())
