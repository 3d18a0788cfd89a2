"""Texts and labels as scikit-learn's users have them: lists, arrays, and columns of pandas or polars."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ..errors import LabelError, TextError
from ..runtime.data import Split
from ..runtime.inference.text.inputs import Text, checked_input

_EXPECTED = "a list, an array or a column of texts; for pairs two columns"


def texts_of(column: object) -> list[Text]:
    """The texts or pairs of a list, an array, a series, or a frame with one or two columns.

    Raises:
        TextError: it is something else, such as a single text; or a row is not a text or a pair.
    """
    if isinstance(column, str | bytes):
        raise TextError("X is a single text", found=repr(column), expected=_EXPECTED, remedy="Put it into a list.")
    if hasattr(column, "toarray"):
        raise TextError("X is a sparse matrix", found=type(column).__name__, expected=_EXPECTED)
    try:
        table = np.asarray(column, dtype=object)
    except ValueError:
        raise TextError("X has rows of several lengths", expected=_EXPECTED) from None
    if table.ndim == 2 and table.shape[1] == 1:
        table = table[:, 0]
    if not (table.ndim == 1 or (table.ndim == 2 and table.shape[1] == 2)):
        found = f"shape {table.shape}" if table.ndim else type(column).__name__
        raise TextError("X is not a column of texts", found=found, expected=_EXPECTED)
    return [_checked(row, tuple(item) if table.ndim == 2 else item) for row, item in enumerate(table, 1)]


def _checked(row: int, item: object) -> Text:
    if isinstance(item, list) or (isinstance(item, tuple) and len(item) != 2):
        raise TextError("X has rows of several lengths", path="X", row=row, found=repr(item), expected=_EXPECTED)
    try:
        text, second = checked_input(item, isinstance(item, tuple))
    except TextError as error:
        raise error.at(path="X", row=row) from None
    return text if second is None else (text, second)


def split_of(texts: list[Text], labels: list[str]) -> Split:
    """The rows of a data set.

    Raises:
        TextError: some rows are pairs and others single texts.
    """
    pairs = [text for text in texts if isinstance(text, tuple)]
    if pairs and len(pairs) < len(texts):
        raise TextError("some rows are pairs of texts, others single texts", path="X", expected="one kind")
    rows = list(range(1, len(texts) + 1))
    if pairs:
        return Split([first for first, _ in pairs], [second for _, second in pairs], labels, "X", rows)
    return Split([text for text in texts if isinstance(text, str)], None, labels, "X", rows)


def labels_of(y: ArrayLike) -> NDArray[Any]:
    """A column of labels of one type.

    Raises:
        LabelError: a label is missing.
        ValueError: it is not a column, or its values are no labels.
    """
    for row, label in enumerate(np.asarray(y, dtype=object).ravel(), 1):  # before a missing one becomes the text "nan"
        if label is None or label != label or not str(label).strip():
            raise LabelError("the row has no label", path="y", row=row, found=repr(label), expected="a label")
    labels: NDArray[Any] = column_or_1d(y, warn=True)
    check_classification_targets(labels)
    return labels
