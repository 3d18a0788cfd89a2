"""What a bundle knows of when not to answer: thresholds of doubt that its export has found on held-out rows.

A row is abstained from where its doubt (`doubt`) is above the threshold. Answers with neighbours and answers of the
student alone have thresholds of their own, since their doubts are sums of different parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UsageError
from ...kb.storage.json_fields import JsonReader
from .abstention_goal import Abstain
from .conformal import PredictionSets, read_sets
from .histogram import Histogram, read_histogram
from .rejection_score import Tails, read_tails

_SCORES_KEY = "doubts"  # the manifest's name of `Thresholds.rejection_scores`, since bundle format 3
_MOST_RATES = 1000  # of errors, that a manifest may name


@dataclass(frozen=True)
class Certified:
    """A rate of errors and the largest threshold that was shown to keep to it.

    Attributes:
        error: at most this share of the answers is wrong, 0 to 1.
        threshold: of the doubt.
        answered: held-out rows below it, one of each group of related ones.
        wrong: of them.

    Raises:
        UsageError: a value is outside its range.
    """

    error: float
    threshold: float
    answered: int
    wrong: int

    def __post_init__(self) -> None:
        if not (0.0 < self.error < 1.0 and self.threshold >= 0.0 and 0 <= self.wrong <= self.answered):
            raise UsageError("a certified error is unusable", found=self, expected="a rate, 0 to 1, and its rows")


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the doubt of one kind of answers.

    Attributes:
        coverages: shares of the held-out rows, ascending, each in (0, 1).
        rejection_scores: of each, the score that so many rows have at most; as many.
        errors: ascending; empty where nothing could be certified.

    Raises:
        UsageError: numbers out of order.
    """

    coverages: tuple[float, ...]
    rejection_scores: tuple[float, ...]
    errors: tuple[Certified, ...]

    def __post_init__(self) -> None:
        ordered = all(tuple(sorted(values)) == values for values in (self.coverages, self.rejection_scores))
        inside = all(0.0 < one < 1.0 for one in self.coverages) and all(one >= 0.0 for one in self.rejection_scores)
        if not (ordered and inside and len(self.coverages) == len(self.rejection_scores)):
            raise UsageError("the coverages are unusable", found=self.coverages, expected="ascending shares, 0 to 1")

    def threshold(self, abstain: Abstain) -> float:
        """The doubt above which the goal wants a text left unanswered.

        Raises:
            UsageError: the held-out rows were too few, or too many of them wrong, for this goal.
        """
        if abstain.threshold is not None:
            return abstain.threshold
        if abstain.coverage is not None:
            return self._covering(abstain.coverage)
        certified = [one for one in self.errors if abstain.error is not None and one.error <= abstain.error]
        if not certified:
            least = f"at least {self.errors[0].error:.1%}" if self.errors else "another goal: none could be certified"
            raise UsageError(
                "the export could certify no such rate of errors",
                found=f"error={abstain.error:.2%}",
                expected=least,
                remedy="More held-out rows certify smaller rates; coverage=95% has a threshold in any case.",
            )
        return certified[-1].threshold

    def _covering(self, coverage: float) -> float:
        if coverage == 1.0:
            return float("inf")
        if not self.coverages or coverage > self.coverages[-1]:
            most = f"at most {self.coverages[-1]:.1%}, or 100 %" if self.coverages else "100 %"
            raise UsageError(
                "the held-out rows were too few for this coverage", found=f"coverage={coverage:.2%}", expected=most
            )
        return float(np.interp(coverage, self.coverages, self.rejection_scores))


@dataclass(frozen=True)
class Sets:
    """Prediction sets of answers with neighbours, of the student alone, and of the gate's choice between them.

    ``gated`` is None where there is no gate.
    """

    blend: PredictionSets
    student: PredictionSets
    gated: PredictionSets | None


@dataclass(frozen=True)
class DriftReference:
    """Held-out rows counted as `statistics` counts answers: what a stream is compared with.

    Attributes:
        similarity: of the top neighbour.
        agreement: of student and neighbours.
    """

    similarity: Histogram
    agreement: Histogram


@dataclass(frozen=True)
class Abstention:
    """Everything that was fitted on held-out rows about when not to answer.

    Attributes:
        rows: held-out rows.
        delta: the chance, for each certified rate of errors, that they were misleading.
        tails: of the signals.
        blend: thresholds of answers with neighbours.
        student: thresholds of answers of the student alone.
        sets: prediction sets.
        reference: for telling drift.

    Raises:
        UsageError: delta is outside its range.
    """

    rows: int
    delta: float
    tails: Tails
    blend: Thresholds
    student: Thresholds
    sets: Sets
    reference: DriftReference

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < 1.0:
            raise UsageError("the abstention's delta is unusable", found=self.delta, expected="between 0 and 1")

    def set_thresholds(self, gated: bool) -> tuple[PredictionSets, PredictionSets]:
        """Thresholds of the prediction sets of answers with neighbours, and of answers of the student alone.

        Args:
            gated: whether the gate chooses between the two; then both have the thresholds fitted for that choice.
        """
        chosen = self.sets.gated if gated else None
        return (self.sets.blend, self.sets.student) if chosen is None else (chosen, chosen)


def read_abstention(manifest: JsonReader) -> Abstention | None:
    """The abstention of a manifest; None where there is none.

    Raises:
        BundleError: a field is missing or unusable.
    """
    if manifest.obj.get("abstention") is None:
        return None
    section = manifest.section("abstention")
    sets, reference = section.section("sets"), section.section("reference")
    parts: dict[str, object] = {
        "tails": read_tails(section.section("tails")),
        "blend": _thresholds(section.section("blend")),
        "student": _thresholds(section.section("student")),
        "sets": Sets(
            read_sets(sets.section("blend")),
            read_sets(sets.section("student")),
            None if sets.obj.get("gated") is None else read_sets(sets.section("gated")),
        ),
        "reference": DriftReference(
            read_histogram(reference.section("similarity")), read_histogram(reference.section("agreement"))
        ),
    }
    return section.make(Abstention, parts, rows=int, delta=float)


def write_thresholds(abstention: dict[str, Any]) -> None:
    """Give the thresholds of an abstention section, in JSON values, the names that the manifest has for them."""
    for kind in ("blend", "student"):
        abstention[kind][_SCORES_KEY] = abstention[kind].pop("rejection_scores")


def _thresholds(section: JsonReader) -> Thresholds:
    errors = tuple(
        one.make(Certified, error=float, threshold=float, answered=int, wrong=int)
        for one in section.sections("errors", _MOST_RATES)
    )
    lists = {
        "coverages": tuple(section.items("coverages", float)),
        "rejection_scores": tuple(section.items(_SCORES_KEY, float)),
    }
    return section.make(Thresholds, {**lists, "errors": errors})
