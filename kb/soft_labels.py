"""Soft labels of a knowledge base: all classes in float16, or the m likeliest classes in fixed point.

With many classes a teacher spreads its probability over a few of them. `TopLabels` keeps the m likeliest classes of a
row and their shares as whole multiples of 1 / 255 (up to 256 classes) or 1 / 65535 (above) that sum to exactly one. The
mass of the other classes goes to the kept ones in proportion, so that a label changes by that mass in total variation
(plus rounding). m is the least number whose mean change is within the caller's limit; where that saves no bytes, the
labels stay in float16.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.integer]

LABEL_LOSS = 0.01
"""Default limit on the mean total variation by which compression changes labels."""

FEW_CLASSES = 16
"""Up to so many classes, labels are small beside keys and stay in float16."""

SOFT_LABEL_DTYPES = (np.dtype(np.float16), np.dtype(np.uint8), np.dtype(np.uint16))
"""Types in which labels are stored."""

_MOST_CLASSES = 65_536  # whose numbers uint16 has
_BLOCK = 8192  # rows checked together


class SoftLabels(ABC):
    """Probabilities of n rows over c classes, read only; `numpy.asarray` gives float32 [n, c]."""

    @property
    @abstractmethod
    def num_labels(self) -> int:
        """The number of classes, c."""

    @abstractmethod
    def take(self, rows: Rows) -> Floats:
        """The labels of ``rows`` [k], float32 [k, c]."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, c)."""
        return len(self), self.num_labels

    @abstractmethod
    def __len__(self) -> int: ...

    def __getitem__(self, rows: int | slice | Rows) -> Floats:
        chosen = np.arange(len(self))[rows]
        return self.take(chosen) if chosen.ndim else self.take(chosen[np.newaxis])[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.take(np.arange(len(self))).astype(dtype or np.float32, copy=False)


class StoredLabels(SoftLabels):
    """Soft labels in the form of a file."""

    @property
    @abstractmethod
    def stored(self) -> NDArray[Any]:
        """The array in the file."""

    @property
    def nbytes(self) -> int:
        """Bytes in memory and, without the header, in the file."""
        return int(self.stored.nbytes)

    def __len__(self) -> int:
        return len(self.stored)


class DenseLabels(StoredLabels):
    """Every class of every row.

    Args:
        probabilities: float16 [n, c].
    """

    def __init__(self, probabilities: NDArray[np.float16]) -> None:
        self._probabilities = probabilities

    @property
    def stored(self) -> NDArray[np.float16]:
        """float16 [n, c]."""
        return self._probabilities

    @property
    def num_labels(self) -> int:
        """The number of classes, c."""
        return int(self._probabilities.shape[1])

    def take(self, rows: Rows) -> Floats:
        """The labels of ``rows`` [k], float32 [k, c]."""
        return self._probabilities.take(rows, 0).astype(np.float32)


class TopLabels(StoredLabels):
    """The m likeliest classes of every row.

    Args:
        table: uint8 or uint16 [n, 2 m]: the classes' numbers, all different, then their shares, which sum to the
            type's largest number. Ascending numbers are checked faster.
        num_labels: c.

    Raises:
        ValueError: a table of another type or shape, or classes or shares out of range.
    """

    def __init__(self, table: NDArray[np.unsignedinteger], num_labels: int) -> None:
        if table.dtype != _number_type(num_labels) or table.ndim != 2 or not 2 <= table.shape[1] <= 2 * num_labels:
            raise ValueError(f"{table.dtype} {table.shape}")
        if table.shape[1] % 2:
            raise ValueError(f"{table.shape[1]} columns")
        self._table, self._num_labels = table, num_labels
        self._top: int = table.shape[1] // 2
        self._unit = np.float32(1 / np.iinfo(table.dtype).max)
        if len(table) and table[:, : self._top].max() >= num_labels:
            raise ValueError(f"class {table[:, : self._top].max()} of {num_labels}")
        for start in range(0, len(table), _BLOCK):
            classes, shares = np.split(table[start : start + _BLOCK], 2, axis=1)
            if not (classes[:, 1:] > classes[:, :-1]).all():  # bundles of earlier versions
                classes = np.sort(classes, axis=1)
                if (classes[:, 1:] == classes[:, :-1]).any():
                    raise ValueError("a class twice in a row")
            if (shares.sum(axis=1, dtype=np.int64) != np.iinfo(table.dtype).max).any():
                raise ValueError("shares that do not sum to one")

    @property
    def stored(self) -> NDArray[Any]:
        """The table."""
        return self._table

    @property
    def num_labels(self) -> int:
        """The number of classes, c."""
        return self._num_labels

    @property
    def top(self) -> int:
        """m, the classes kept of a row."""
        return self._top

    def take(self, rows: Rows) -> Floats:
        """The labels of ``rows`` [k], float32 [k, c]."""
        records = self._table.take(rows, 0)
        dense = np.zeros((len(records), self._num_labels), np.float32)
        dense[np.arange(len(records))[:, np.newaxis], records[:, : self._top]] = records[:, self._top :] * self._unit
        return dense


def encode(probabilities: NDArray[np.floating], loss: float = 0.0) -> StoredLabels:
    """The smallest form of labels within the loss.

    Args:
        probabilities: [n, c], distributions.
        loss: limit on the mean total variation (half the sum of absolute differences) by which labels change, without
            rounding; 0 keeps float16.
    """
    return decode(with_top(probabilities, top_within(probabilities, loss)), probabilities.shape[1])


def with_gold(
    probabilities: NDArray[np.floating], gold: NDArray[np.integer], gold_share: float
) -> NDArray[np.floating]:
    """(1 - g) p + g onehot(gold): labels mixed with gold labels, where a row has one.

    Args:
        probabilities: p, [..., c].
        gold: [...], gold labels, -1 for none.
        gold_share: g.
    """
    shares = np.where(gold >= 0, gold_share, 0.0)[..., None]
    mixed: NDArray[np.floating] = (1 - shares) * probabilities + shares * (
        np.arange(probabilities.shape[-1]) == gold[..., None]
    )
    return mixed


def top_within(probabilities: NDArray[np.floating], loss: float) -> int | None:
    """The number of classes that `TopLabels` keeps within a loss, see `encode`; None where float16 is smaller."""
    rows, classes = probabilities.shape
    if loss > 0 and rows and FEW_CLASSES < classes <= _MOST_CLASSES:
        kept = np.sort(probabilities, axis=1)[:, ::-1].mean(axis=0, dtype=np.float64).cumsum()
        top = int(np.argmax(kept >= min(1 - loss, kept[-1]))) + 1
        # Two numbers for a kept class against one float16: at most half of the classes, with uint8 all of them.
        if top <= (classes - 1) // _number_type(classes).itemsize:
            return top
    return None


def with_top(probabilities: NDArray[np.floating], top: int | None) -> NDArray[Any]:
    """The stored form of labels [n, c] that keeps so many classes of each row; None for all, in float16."""
    if top is None:
        return np.ascontiguousarray(probabilities, np.float16)
    return _table(probabilities.astype(np.float64), top)


def decode(stored: NDArray[Any], num_labels: int | None) -> StoredLabels:
    """The labels of an array in the form of `StoredLabels.stored`.

    Args:
        stored: the array.
        num_labels: c; may be None for float16.

    Raises:
        ValueError: another type or shape, or another number of classes.
    """
    if stored.dtype == np.float16 and stored.ndim == 2 and num_labels in (None, stored.shape[1]):
        return DenseLabels(stored)
    if num_labels is None or stored.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{stored.dtype} {stored.shape}")
    return TopLabels(stored, num_labels)


def edited(
    labels: StoredLabels, rows: Rows, changed: dict[int, Floats], added: Floats, num_labels: int
) -> StoredLabels:
    """Select, change and append rows of labels in the same form; unchanged rows stay the same bit for bit.

    Args:
        labels: [n, b].
        rows: [k], the rows to keep.
        changed: place in ``rows`` to new label, float32 [c].
        added: labels to append, float32 [m, c].
        num_labels: c, b or more.
    """
    dense = np.array([*changed.values(), *added], np.float32).reshape(-1, num_labels)
    kept = labels.stored.take(rows, 0)
    if isinstance(labels, TopLabels):
        kind, old = _number_type(num_labels), kept.dtype
        if kind != old:  # 65,535 is 257 times 255
            kept = kept.astype(kind)
            kept[:, labels.top :] *= np.iinfo(kind).max // np.iinfo(old).max
        new: NDArray[Any] = _table(dense.astype(np.float64), labels.top)
    else:
        kept = np.pad(kept, ((0, 0), (0, num_labels - kept.shape[1])))
        new = dense.astype(np.float16)
    places = np.array(list(changed), np.int64)
    kept[places] = new[: len(places)]
    return decode(np.concatenate([kept, new[len(places) :]]), num_labels)


def _table(probabilities: NDArray[np.float64], top: int) -> NDArray[np.unsignedinteger]:
    """The table of `TopLabels` for labels [n, c]."""
    kind = _number_type(probabilities.shape[1])
    classes = np.sort(np.argsort(-probabilities, axis=1, kind="stable")[:, :top], axis=1)
    shares = np.take_along_axis(probabilities, classes, axis=1)
    shares *= np.iinfo(kind).max / shares.sum(axis=1, keepdims=True)
    whole = np.floor(shares)
    # The largest remainders are rounded up, as many as make the sum right.
    missing = np.iinfo(kind).max - whole.sum(axis=1, keepdims=True)
    rank = np.argsort(np.argsort(whole - shares, axis=1, kind="stable"), axis=1)
    table: NDArray[np.unsignedinteger] = np.concatenate([classes, whole + (rank < missing)], axis=1).astype(kind)
    return table


def _number_type(num_labels: int) -> np.dtype[Any]:
    return np.dtype(np.uint8 if num_labels <= 256 else np.uint16)
