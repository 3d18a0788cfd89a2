"""scikit-learn's own checks of an estimator.

They give rows of numbers and skip estimators that declare texts, so a subclass writes each row as a text. It trains a
bag of words in a tenth of a second; everything else is the estimator's own code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data
from support.bag_of_words import write_bag_of_words

from reaugkd import ReaugkdClassifier
from reaugkd.runtime.data import Dataset


class OfNumbers(ReaugkdClassifier):
    """Reads rows of numbers as texts such as ``0=1.5 1=-0.3``."""

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        X, y = validate_data(self, X, y, ensure_min_samples=2)
        return super().fit(_texts(X), y)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:  # noqa: N803
        X, y = validate_data(self, X, y, reset=not self.__sklearn_is_fitted__())
        return super().partial_fit(_texts(X), y, classes)

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        check_is_fitted(self)
        return super().predict_proba(_texts(validate_data(self, X, reset=False)))

    def _train(self, data: Dataset, bundle: Path) -> None:
        write_bag_of_words(data, bundle)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string, tags.input_tags.one_d_array = True, False, False
        return tags


def _texts(X: Any) -> list[str]:  # noqa: N803
    return [" ".join(f"{place}={value:.1f}" for place, value in enumerate(row)) for row in np.asarray(X, float)]


@parametrize_with_checks([OfNumbers()])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)
