"""The mixture weight w(x) of the student, as a function of the text's neighbours.

    p = w(x) * p_student + (1 - w(x)) * r

The paper (ReAugKD, ACL 2023) uses one w for every text. Neighbours help some texts more than others; three features,
known after the student's run and the search, predict which:

    s_1             the top similarity
    sum p^2         the student's sum of squares over c labels: 1 certain, 1/c uniform
    sum r^2         the same for the retrieved distribution r

`BucketWeight` is piecewise constant in the first feature (Drozdov et al. 2022, for language models); `SquaresWeight`
uses all three. The export chooses and fits one of them on held-out rows. `LogisticWeight` is that of earlier bundles.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...kb.storage.json_fields import JsonReader

Floats = NDArray[np.float64]

FEATURES = ("top similarity", "student's sum of squares", "neighbours' sum of squares")
LOGISTIC_FEATURES = ("top similarity", "similarity gap", "neighbours' entropy", "student's entropy", "agreement")
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

    def weight_many(self, features: Floats) -> Floats:
        """The student's weights [n] for the features [n, 3] of n texts (`features_many`)."""
        return np.asarray(self.weights)[np.searchsorted(self.edges, features[:, 0], side="right")]


@dataclass(frozen=True)
class SquaresWeight:
    """A logistic function of the three features: ``sigmoid(intercept + sum_j coefficient_j feature_j)``.

    Attributes:
        intercept: the log-odds of the student's weight if every feature is 0.
        coefficients: three, in the order of `FEATURES`.
        kind: ``"squares"``, for the manifest.

    Raises:
        UsageError: numbers that are not finite or above a million, or not three coefficients.
    """

    kind: Literal["squares"] = field(default="squares", init=False)
    intercept: float
    coefficients: tuple[float, float, float]

    def __post_init__(self) -> None:
        _check_logistic(self.intercept, self.coefficients, len(FEATURES))

    def weight(
        self, student: NDArray[np.float32], retrieved: NDArray[np.float32], similarities: NDArray[np.float32]
    ) -> float:
        """The student's weight for one text; arguments same as `BucketWeight.weight`."""
        by_top, by_student, by_retrieved = self.coefficients
        squares = by_student * float(student.dot(student)) + by_retrieved * float(retrieved.dot(retrieved))
        return _sigmoid(self.intercept + by_top * similarities.item(0) + squares)

    def weight_many(self, features: Floats) -> Floats:
        """The student's weights [n] for the features [n, 3] of n texts (`features_many`)."""
        return sigmoid_many(features @ np.asarray(self.coefficients) + self.intercept)


@dataclass(frozen=True)
class LogisticWeight:
    """A logistic function of five features, in bundles of earlier versions: they had no `SquaresWeight`.

    The features are s_1, the gap s_1 - s_k to the farthest neighbour, the entropies H(r) / log c and H(p) / log c, and
    whether argmax p = argmax r, 1 or 0.

    Attributes:
        intercept: the log-odds of the student's weight if every feature is 0.
        coefficients: five, in the order of `LOGISTIC_FEATURES`.
        kind: ``"logistic"``, for the manifest.

    Raises:
        UsageError: numbers that are not finite or above a million, or not five coefficients.
    """

    kind: Literal["logistic"] = field(default="logistic", init=False)
    intercept: float
    coefficients: tuple[float, float, float, float, float]

    def __post_init__(self) -> None:
        _check_logistic(self.intercept, self.coefficients, len(LOGISTIC_FEATURES))

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
        """The student's weights [n] of n texts: student and retrieved [n, c], similarities [n, k]."""
        top, agree = similarities[:, 0], student.argmax(axis=1) == retrieved.argmax(axis=1)
        columns = (top, top - similarities[:, -1], _entropies(retrieved), _entropies(student), agree)
        features = np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
        return sigmoid_many(features @ np.asarray(self.coefficients) + self.intercept)


ExampleWeight: TypeAlias = BucketWeight | SquaresWeight | LogisticWeight
"""A mixture weight per example."""


def weight_many(
    weight: ExampleWeight,
    student: NDArray[np.floating],
    retrieved: NDArray[np.floating],
    similarities: NDArray[np.floating],
) -> Floats:
    """The student's weights [n] of n texts.

    Args:
        weight: the function.
        student: [n, c], the student's probabilities.
        retrieved: [n, c], the neighbours'.
        similarities: [n, k], descending, k at least 1.
    """
    if isinstance(weight, LogisticWeight):
        return weight.weight_many(student, retrieved, similarities)
    return weight.weight_many(features_many(student, retrieved, similarities[:, 0]))


def features_many(student: NDArray[np.floating], retrieved: NDArray[np.floating], top: NDArray[np.floating]) -> Floats:
    """The three features [n, 3] of n texts, in the order of `FEATURES`.

    Args:
        student: [n, c], the student's probabilities.
        retrieved: [n, c], the neighbours'.
        top: [n], the top similarity.
    """
    return np.stack([np.asarray(top, np.float64), _squares(student), _squares(retrieved)], axis=1)


def sigmoid_many(scores: Floats) -> Floats:
    """``1 / (1 + exp(-score))``, without overflow."""
    small = np.exp(-np.abs(scores))
    return np.where(scores >= 0, 1.0, small) / (1.0 + small)


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
    of_kind: dict[str, type[SquaresWeight | LogisticWeight]] = {"squares": SquaresWeight, "logistic": LogisticWeight}
    if kind in of_kind:
        made = {"coefficients": tuple(section.items("coefficients", float))}
        return section.make(of_kind[kind], made, intercept=float)
    raise section.error("kind", kind, "buckets, squares or logistic")


def _check_logistic(intercept: float, coefficients: Sequence[float], count: int) -> None:
    expected = "numbers from -1e6 to 1e6"
    if not -_LARGEST <= intercept <= _LARGEST:
        raise UsageError("the weight's intercept is unusable", found=intercept, expected=expected)
    usable = all(-_LARGEST <= coefficient <= _LARGEST for coefficient in coefficients)
    if not usable or len(coefficients) != count:
        expected = f"{count} {expected}"
        raise UsageError("the weight's coefficients are unusable", found=coefficients, expected=expected)


def _squares(probabilities: NDArray[np.floating]) -> Floats:
    """The sum of squares of each row of [n, c]."""
    wide = probabilities.astype(np.float64)
    squares: Floats = np.einsum("nc,nc->n", wide, wide)
    return squares


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
