"""The abstention section of a manifest: thresholds of the rejection score, fitted on held-out rows by the export.

A text is abstained from if its score (`rejection_score`) is above the threshold. Answers with neighbours and answers of
the student alone have separate thresholds, because their scores are sums of different parts.
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

_SCORES_KEY = "doubts"  # the manifest's name of `Thresholds.rejection_scores`; published bundles have it
_MOST_RATES = 1000  # certified error rates in a manifest


@dataclass(frozen=True)
class Certified:
    """An error rate, and the largest threshold that is certified for it.

    Attributes:
        error: at most this share of the answers is wrong, 0 to 1.
        threshold: the threshold of the rejection score.
        answered: held-out rows with a score up to the threshold, one from each group of related rows.
        wrong: how many of them are answered wrong.

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
    """Thresholds of the rejection score for one kind of answers.

    Attributes:
        coverages: shares of the held-out rows, ascending, each in (0, 1).
        rejection_scores: for each coverage, the score that this share of the rows does not exceed.
        errors: certified error rates, ascending; empty if none could be certified.

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
        """The rejection score above which a text is abstained from.

        Raises:
            UsageError: there were too few rows to fit this goal on, or too many of them were wrong.
        """
        if abstain.threshold is not None:
            return abstain.threshold
        if abstain.coverage is not None:
            return self._covering(abstain.coverage)
        certified = [one for one in self.errors if abstain.error is not None and one.error <= abstain.error]
        if not certified:
            least = f"at least {self.errors[0].error:.1%}" if self.errors else "another goal: no rate is certified"
            raise UsageError(
                "the rows that the thresholds were fitted on could not certify this error rate",
                found=f"error={abstain.error:.2%}",
                expected=least,
                remedy="`reaugkd calibrate` with more rows certifies lower ones; coverage=95% always has a threshold.",
            )
        return certified[-1].threshold

    def _covering(self, coverage: float) -> float:
        if coverage == 1.0:
            return float("inf")
        if not self.coverages or coverage > self.coverages[-1]:
            most = f"at most {self.coverages[-1]:.1%}, or 100 %" if self.coverages else "100 %"
            raise UsageError(
                "the thresholds were fitted on too few rows for this coverage",
                found=f"coverage={coverage:.2%}",
                expected=most,
            )
        return float(np.interp(coverage, self.coverages, self.rejection_scores))


@dataclass(frozen=True)
class Sets:
    """Prediction sets for answers with neighbours, for the student alone, and for the gate's choice between the two.

    ``gated`` is None without a gate.
    """

    blend: PredictionSets
    student: PredictionSets
    gated: PredictionSets | None


@dataclass(frozen=True)
class DriftReference:
    """Histograms of the held-out rows, the reference for drift in `monitoring.statistics`.

    Attributes:
        similarity: histogram of the top neighbour's similarity.
        agreement: histogram of the agreement between student and neighbours.
    """

    similarity: Histogram
    agreement: Histogram


@dataclass(frozen=True)
class Abstention:
    """Abstention thresholds, prediction sets and drift reference of a bundle, fitted on held-out rows.

    Attributes:
        rows: the number of held-out rows.
        delta: the probability that a certified error rate does not hold.
        tails: distributions of the signals.
        blend: thresholds for answers with neighbours.
        student: thresholds for answers of the student alone.
        sets: prediction sets.
        reference: the reference for drift.

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
    """Read the abstention section of a manifest; None if it has none.

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
    """Rename the thresholds of an abstention section, in JSON values, to the manifest's names."""
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
