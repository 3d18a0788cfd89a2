"""The rejection score: three signals of a doubtful answer as held-out p-values, combined by Fisher's method.

    distance        d = 1 - mean of the top min(4, k) similarities                     (Sun et al., ICML 2022)
    uncertainty     u = sum_c (s_c (1 - s_c))^0.1, the student's generalized entropy   (GEN: Liu et al., CVPR 2023)
    disagreement    g = 1 - sum_c s_c r_c: student and neighbours, each drawing a label, draw different ones

for the student's probabilities s and the neighbours' probabilities r. The p-value of a signal is the share of held-out
rows whose signal is at least as large. Fisher's method with weights (Good, 1955) combines the p-values:

    rejection score = - ln p_d - ln p_u - 1/2 ln p_g

All held-out rows have known labels, so the score assumes nothing about out-of-scope texts. Without neighbours the score
is the uncertainty part alone. p-values are stored at a few quantiles, interpolated linearly between them; a p-value
is never smaller than the smallest stored one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...kb.storage.json_fields import JsonReader

Floats = NDArray[np.floating]
Signal = Literal["distance", "uncertainty", "disagreement"]

NEIGHBOURS = 4
"""Nearest rows that the distance averages: more blur rare classes, and one depends on a single row."""

WEIGHTS: dict[Signal, float] = {"distance": 1.0, "uncertainty": 1.0, "disagreement": 0.5}
"""Weights of the logarithms. Disagreement detects errors best, out-of-scope texts worst.

Measured by benchmarks/quality/abstention.py.
"""

SURVIVAL = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""The p-values whose quantiles are stored."""

_GAMMA = 0.1
_STEP = 1e-6
_sum = np.add.reduce  # faster than ndarray.sum(), as in `blending`


def distance(similarities: Floats) -> Floats:
    """The distance to the nearest rows.

    Args:
        similarities: [..., k], cosines, descending, k at least 1.
    """
    nearest = similarities[..., :NEIGHBOURS]
    found: Floats = 1.0 - _sum(nearest, axis=-1) / nearest.shape[-1]
    return found


def uncertainty(student: Floats) -> Floats:
    """Compute the generalized entropy (GEN) of probabilities [..., c]; the small exponent weights small ones more."""
    products = student * (1.0 - student)
    np.maximum(products, 0.0, out=products)  # rounding can put a probability above 1
    found: Floats = _sum(np.power(products, _GAMMA, out=products), axis=-1)
    return found


def disagreement(student: Floats, retrieved: Floats) -> Floats:
    """Compute the probability that two labels, drawn from probabilities [..., c] and [..., c], differ."""
    found: Floats = 1.0 - _sum(student * retrieved, axis=-1)
    return found


@dataclass(frozen=True)
class EmpiricalSurvival:
    """The empirical survival function of a signal on held-out rows.

    Attributes:
        values: values of the signal, ascending.
        p: the share of held-out rows with at least that value, descending or equal, in (0, 1].

    Raises:
        UsageError: numbers out of order or range, or too few of them.
    """

    values: tuple[float, ...]
    p: tuple[float, ...]

    def __post_init__(self) -> None:
        ordered = all(low < high for low, high in pairwise(self.values)) and all(
            low >= high for low, high in pairwise(self.p)
        )
        inside = all(0.0 < share <= 1.0 for share in self.p) and all(map(math.isfinite, self.values))
        if not (ordered and inside and len(self.p) == len(self.values) >= 1):
            raise UsageError("a signal's quantiles are unusable", found=self.values, expected="ascending values")

    @cached_property
    def _neg_log_ps(self) -> list[float]:
        return [-math.log(share) for share in self.p]

    @classmethod
    def of(cls, values: Floats) -> EmpiricalSurvival:
        """The survival function of held-out rows' values [n], n at least 1."""
        levels = [level for level in SURVIVAL if level * (len(values) + 1) >= 1]
        quantiles = np.quantile(np.asarray(values, np.float64), 1.0 - np.array(levels))
        # Where several levels share one value, the largest level is the share of rows with at least that value.
        kept, first = np.unique(quantiles.round(9), return_index=True)
        numbers, shares = kept.tolist(), [levels[position] for position in first]
        if shares[-1] > levels[-1]:  # many rows share the largest value; no row is above it
            numbers.append(numbers[-1] + _STEP)
            shares.append(levels[-1])
        return cls(tuple(numbers), tuple(shares))

    def neg_log_p(self, value: float) -> float:
        """``-ln p`` of one value."""
        values, neg_log_ps = self.values, self._neg_log_ps
        place = bisect_left(values, value)
        if place == 0 or place == len(values):
            return neg_log_ps[max(place - 1, 0)]
        low, high = values[place - 1], values[place]
        return neg_log_ps[place - 1] + (neg_log_ps[place] - neg_log_ps[place - 1]) * (value - low) / (high - low)

    def neg_log_ps(self, values: Floats) -> Floats:
        """``-ln p`` [n] of many values [n]."""
        found: Floats = np.interp(values, self.values, self._neg_log_ps)
        return found


class RejectionScore(NamedTuple):
    """A score from 0 upwards, and the signal with the largest part of it."""

    value: float
    signal: Signal


@dataclass(frozen=True)
class Tails:
    """The survival functions of the three signals."""

    distance: EmpiricalSurvival
    uncertainty: EmpiricalSurvival
    disagreement: EmpiricalSurvival

    def rejection_score(
        self,
        student: Floats,
        retrieved: Floats | None,
        similarities: Floats,
        edited: tuple[float, float] = (0.0, 0.0),
    ) -> RejectionScore:
        """The rejection score of one answer.

        The student was not trained on edits, so its signals count less for edited rows: with a part m of the answer on
        labels that edits added, uncertainty and disagreement are multiplied by 1 - m; with a part h from a pinned row,
        all three signals are multiplied by 1 - h.

        Args:
            student: [c], the student's probabilities.
            retrieved: [c], the neighbours' probabilities; None without neighbours.
            similarities: [k], descending; not read without neighbours.
            edited: the parts m and a.
        """
        parts: dict[Signal, float] = {"uncertainty": self.uncertainty.neg_log_p(float(uncertainty(student)))}
        if retrieved is not None:
            parts["distance"] = self.distance.neg_log_p(float(distance(similarities)))
            parts["disagreement"] = self.disagreement.neg_log_p(float(disagreement(student, retrieved)))
        new, pinned = edited
        scales = {"distance": 1.0 - pinned, "uncertainty": (1.0 - new) * (1.0 - pinned)}
        scales["disagreement"] = scales["uncertainty"]
        parts = {name: WEIGHTS[name] * scales[name] * part for name, part in parts.items()}
        return RejectionScore(sum(parts[name] for name in WEIGHTS if name in parts), max(parts, key=parts.__getitem__))

    def rejection_scores(self, student: Floats, retrieved: Floats, similarities: Floats) -> Floats:
        """The rejection scores [n] of many answers with neighbours.

        Args:
            student: [n, c], the student's probabilities.
            retrieved: [n, c], the neighbours' probabilities.
            similarities: [n, k], descending.
        """
        found: Floats = (
            WEIGHTS["distance"] * self.distance.neg_log_ps(distance(similarities))
            + self.student_rejection_scores(student)
            + WEIGHTS["disagreement"] * self.disagreement.neg_log_ps(disagreement(student, retrieved))
        )
        return found

    def student_rejection_scores(self, student: Floats) -> Floats:
        """The rejection scores [n] of many answers of the student alone."""
        return WEIGHTS["uncertainty"] * self.uncertainty.neg_log_ps(uncertainty(student))


def read_tails(section: JsonReader) -> Tails:
    """Read the survival functions of a manifest.

    Raises:
        BundleError: a field is missing or unusable.
    """

    def tail(name: Signal) -> EmpiricalSurvival:
        part = section.section(name)
        return part.make(
            EmpiricalSurvival, {"values": tuple(part.items("values", float)), "p": tuple(part.items("p", float))}
        )

    return Tails(tail("distance"), tail("uncertainty"), tail("disagreement"))
