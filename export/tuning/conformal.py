"""Thresholds of prediction sets (`runtime.decision.conformal`), from MAPIE's split conformal prediction."""

from __future__ import annotations

import math
import warnings

import numpy as np
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import LACConformityScore
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from ...runtime.decision.conformal import COVERAGES, PredictionSets


def prediction_sets(probabilities: NDArray[np.floating], gold: NDArray[np.integer]) -> PredictionSets:
    """Fit thresholds of prediction sets for all coverages that the number of rows allows.

    Args:
        probabilities: [n, c], of independent rows.
        gold: [n], class indices.
    """
    rows, classes = probabilities.shape
    coverages = [share for share in COVERAGES if rows > round(1 / (1 - share), 9)]  # MAPIE's condition
    if not coverages:
        return PredictionSets((), ())
    score = LACConformityScore()
    fitted = SplitConformalClassifier(
        _Given(np.arange(classes)), confidence_level=coverages, conformity_score=score, prefit=True
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*your conformalization dataset has less labels")
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        fitted.conformalize(np.asarray(probabilities, np.float64), gold)
        fitted.predict_set(np.asarray(probabilities[:1], np.float64))  # MAPIE computes the quantiles here
    # Rounded down, so that rounding on another machine excludes no label.
    least = [max(0.0, math.floor((1.0 - float(one)) * 1e6) / 1e6) for one in score.quantiles_]
    return PredictionSets(tuple(coverages), tuple(least))


class _Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose inputs are the probabilities."""

    def __init__(self, classes_: NDArray[np.integer]) -> None:
        self.classes_ = classes_

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
        return probabilities

    def predict(self, probabilities: NDArray[np.floating]) -> NDArray[np.integer]:
        labels: NDArray[np.integer] = self.classes_[probabilities.argmax(axis=1)]
        return labels
