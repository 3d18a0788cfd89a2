"""The mixture weight w(x) of the student, as a function of the text's neighbours.

    p = w(x) * p_student + (1 - w(x)) * r

The paper (ReAugKD, ACL 2023) uses one w for every text, and so does the export. Version 0.1.0 could also write a
function of the text: `BucketWeight` is piecewise constant in the top similarity (Drozdov et al. 2022, for language
models), `LogisticWeight` a logistic function of five features. They stay for the bundles that have them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...kb.storage.json_fields import JsonReader

Floats = NDArray[np.float64]

FEATURES = ("top similarity", "similarity gap", "neighbours' entropy", "student's entropy", "agreement")
_LARGEST = 1e6  # largest coefficient; the features are at most 2, so nothing overflows
_TINY = np.float32(np.finfo(np.float32).tiny)  # 0 log 0 = 0 is computed as 0 log(tiny)


@dataclass(frozen=True)
class BucketWeight:
    """A mixture weight for each range of the top similarity.

    Attributes:
        edges: edges of the ranges, strictly ascending; an edge belongs to the range above it.
        weights: the student's weight in each range, 0 to 1; one more than edges.
        kind: ``"buckets"``, for the manifest.

    Raises:
        UsageError: numbers that are not finite, out of range or out of order, or a wrong number of them.
    """

    kind: Literal["buckets"] = field(default="buckets", init=False)
    edges: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.edges)) or any(low >= high for low, high in pairwise(self.edges)):
            raise UsageError("the weight's edges are unusable", found=self.edges, expected="ascending numbers")
        if len(self.weights) != len(self.edges) + 1 or not all(0.0 <= weight <= 1.0 for weight in self.weights):
            expected = f"{len(self.edges) + 1}, one more than edges, each 0 to 1"
            raise UsageError("the weight's weights are unusable", found=self.weights, expected=expected)

    def weight(
        self, student: NDArray[np.float32], retrieved: NDArray[np.float32], similarities: NDArray[np.float32]
    ) -> float:
        """The student's weight for one text.

        Args:
            student: float32 [c], the student's probabilities.
            retrieved: float32 [c], the neighbours'.
            similarities: float32 [k], descending, k at least 1.
        """
        # As a Python float: compared with a float32, the edges would be rounded to float32.
        return self.weights[bisect_right(self.edges, similarities.item(0))]

    def weight_many(
        self, student: NDArray[np.floating], retrieved: NDArray[np.floating], similarities: NDArray[np.floating]
    ) -> Floats:
        """The student's weights of many texts.

        Args:
            student: [n, c], the student's probabilities.
            retrieved: [n, c], the neighbours'.
            similarities: [n, k], descending, k at least 1.

        Returns:
            The weights [n].
        """
        top = similarities[:, 0].astype(np.float64)
        return np.asarray(self.weights)[np.searchsorted(self.edges, top, side="right")]


@dataclass(frozen=True)
class LogisticWeight:
    """A logistic function of five features: ``sigmoid(intercept + sum_j coefficient_j feature_j)``.

    The features are s_1, the gap s_1 - s_k to the farthest neighbour, the entropies H(r) / log c and H(p) / log c, and
    whether argmax p = argmax r, 1 or 0.

    Attributes:
        intercept: the log-odds of the student's weight if every feature is 0.
        coefficients: five, in the order of `FEATURES`.
        kind: ``"logistic"``, for the manifest.

    Raises:
        UsageError: numbers that are not finite or above a million, or not five coefficients.
    """

    kind: Literal["logistic"] = field(default="logistic", init=False)
    intercept: float
    coefficients: tuple[float, float, float, float, float]

    def __post_init__(self) -> None:
        expected = "numbers from -1e6 to 1e6"
        if not -_LARGEST <= self.intercept <= _LARGEST:
            raise UsageError("the weight's intercept is unusable", found=self.intercept, expected=expected)
        usable = all(-_LARGEST <= coefficient <= _LARGEST for coefficient in self.coefficients)
        if not usable or len(self.coefficients) != len(FEATURES):
            expected = f"{len(FEATURES)} {expected}"
            raise UsageError("the weight's coefficients are unusable", found=self.coefficients, expected=expected)

    def weight(
        self, student: NDArray[np.float32], retrieved: NDArray[np.float32], similarities: NDArray[np.float32]
    ) -> float:
        """The student's weight for one text; arguments same as `BucketWeight.weight`."""
        by_top, by_gap, by_retrieved, by_student, by_agreement = self.coefficients
        top = similarities.item(0)
        score = self.intercept + by_top * top + by_gap * (top - similarities.item(-1))
        classes = len(student)
        if classes > 1:
            entropies = by_retrieved * _entropy(retrieved) + by_student * _entropy(student)
            score += entropies / math.log(classes)
        if student.argmax() == retrieved.argmax():
            score += by_agreement
        return _sigmoid(score)

    def weight_many(
        self, student: NDArray[np.floating], retrieved: NDArray[np.floating], similarities: NDArray[np.floating]
    ) -> Floats:
        """The student's weights [n] of many texts; arguments same as `BucketWeight.weight_many`."""
        top, agree = similarities[:, 0], student.argmax(axis=1) == retrieved.argmax(axis=1)
        columns = (top, top - similarities[:, -1], _entropies(retrieved), _entropies(student), agree)
        features = np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
        return _sigmoids(features @ np.asarray(self.coefficients) + self.intercept)


ExampleWeight: TypeAlias = BucketWeight | LogisticWeight
"""A mixture weight per example."""


def read_weight(blend: JsonReader) -> ExampleWeight | None:
    """Read the weight per example of a manifest's blend; None if it has none.

    Raises:
        BundleError: the kind is unknown, or numbers are missing or unusable.
    """
    if blend.obj.get("weight") is None:
        return None
    section = blend.section("weight")
    kind = section.get("kind", str)
    if kind == "buckets":
        made = {name: tuple(section.items(name, float)) for name in ("edges", "weights")}
        return section.make(BucketWeight, made)
    if kind == "logistic":
        made = {"coefficients": tuple(section.items("coefficients", float))}
        return section.make(LogisticWeight, made, intercept=float)
    raise section.error("kind", kind, "buckets or logistic")


def _entropy(probabilities: NDArray[np.float32]) -> float:
    """-sum p log p of one distribution [c]."""
    logs = np.maximum(probabilities, _TINY)
    return -float(probabilities.dot(np.log(logs, logs)))


def _entropies(probabilities: NDArray[np.floating]) -> Floats:
    """-sum p log p / log c of each row of [n, c]; 0 where c is 1."""
    classes = probabilities.shape[1]
    wide = probabilities.astype(np.float64)
    entropies: Floats = -(wide * np.log(np.maximum(wide, float(_TINY)))).sum(axis=1)
    return entropies / math.log(classes) if classes > 1 else np.zeros(len(wide))


def _sigmoid(score: float) -> float:
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    small = math.exp(score)
    return small / (1.0 + small)


def _sigmoids(scores: Floats) -> Floats:
    """``1 / (1 + exp(-score))`` of each, without overflow."""
    small = np.exp(-np.abs(scores))
    return np.where(scores >= 0, 1.0, small) / (1.0 + small)
