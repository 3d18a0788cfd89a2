"""A prediction: the answer to one text, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ..decision.conformal import PredictionSets
from ..decision.rejection_score import Signal
from .neighbours import NO_NEIGHBOURS, Neighbours
from .retrieval_policy import Reason

Source = Literal["student", "neighbours", "classifier", "pinned row"]
"""A part of an answer; ``"classifier"`` is the classifier of new labels (`runtime.editing.new_labels.fit`)."""


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
        new_labels: number of labels that the student was not trained on, the last ones.
        classified: whether the classifier of new labels gave the part on them; otherwise the neighbours did.
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
    new_labels: int = field(default=0, repr=False)
    classified: bool = field(default=False, repr=False)
    truncated: bool = False
    tokens: int = 0

    @property
    def decided_by(self) -> Source:
        """The part with the largest share in the label's probability.

        ``"pinned row"`` if a pinned row has more than half of the answer; a smaller part of it counts as a neighbour's.
        """
        place = self.labels.index(self.label)
        if self.edited[1] > 0.5:
            return "pinned row"
        if place >= len(self.labels) - self.new_labels:
            return "classifier" if self.classified else "neighbours"
        own = self.student_weight * float(self.student_probabilities[place])
        return "student" if 2 * own >= self.probability else "neighbours"

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
        order = _order(self.probabilities)
        return tuple(self.labels[one] for one in order[self.probabilities[order] >= least])

    def top(self, k: int) -> tuple[tuple[str, float], ...]:
        """The k most probable labels with their probabilities, most probable first; all labels if there are fewer.

        Raises:
            UsageError: k is not a whole number from 1 upwards.
        """
        return tuple(_ranked(self.labels, self.probabilities)[: checked_top_k(k)])

    @property
    def similarities(self) -> NDArray[np.float32]:
        """The neighbours' cosines, float32 [k], descending."""
        return self.neighbours.similarities

    @property
    def retrieved(self) -> bool:
        """Whether neighbours are part of the answer."""
        return self.reason is None

    def as_record(self, explain: bool = False, top_k: int | None = None) -> dict[str, Any]:
        """The answer as JSON values.

        Keys: ``label``, ``probability``, ``probabilities`` (label to number), ``retrieved``, ``truncated``; without
        neighbours also ``reason``; with abstention also ``abstained``, ``rejection_score`` and ``abstention``.

        Args:
            explain: add ``decided_by``, ``student_weight``, ``student_probabilities``, ``retrieval_probabilities``,
                ``neighbours`` and, if the bundle has it, ``prediction_set``.
            top_k: keep the most probable labels only, most probable first, in each key with probabilities.

        Raises:
            UsageError: same as `top`.
        """
        named = partial(_named, self.labels, top_k=None if top_k is None else checked_top_k(top_k))
        record: dict[str, Any] = {
            "label": self.label,
            "probability": self.probability,
            "probabilities": named(self.probabilities),
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
            record["decided_by"] = self.decided_by
            record["student_weight"] = self.student_weight
            record["student_probabilities"] = named(self.student_probabilities)
            record["retrieval_probabilities"] = None if retrieved is None else named(retrieved)
            if self.prediction_set is not None:
                record["prediction_set"] = list(self.prediction_set)
            record["neighbours"] = [neighbour.as_record() for neighbour in self.neighbours]
        return record

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


def checked_top_k(k: object) -> int:
    """The number of labels to show.

    Raises:
        UsageError: it is not a whole number from 1 upwards.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise UsageError("the number of labels is unusable", found=repr(k), expected="a whole number, 1 or more")
    return int(k)


def _order(probabilities: NDArray[np.float32]) -> NDArray[np.intp]:
    """Positions, most probable first; equal ones in the order of the labels, so that the first is the answer."""
    return np.argsort(-probabilities, kind="stable")


def _ranked(labels: tuple[str, ...], probabilities: NDArray[np.float32]) -> list[tuple[str, float]]:
    return [(labels[one], float(probabilities[one])) for one in _order(probabilities)]


def _named(labels: tuple[str, ...], probabilities: NDArray[np.float32], top_k: int | None) -> dict[str, float]:
    if top_k is None:
        return dict(zip(labels, probabilities.tolist(), strict=True))
    return dict(_ranked(labels, probabilities)[:top_k])
