"""Soft labels of a knowledge base with edits on top."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..soft_labels import SoftLabels

Shares = tuple[NDArray[np.intp], NDArray[np.float32]]
"""A sparse soft label: classes and their shares."""


class OverlayLabels(SoftLabels):
    """The base's soft labels with columns for new labels, and with the rows that edits labelled.

    Args:
        base: [n, b].
        edited: row number to its soft label.
        num_labels: c, b or more.
        rows: number of rows, added ones included.
    """

    def __init__(self, base: SoftLabels, edited: Mapping[int, Shares], num_labels: int, rows: int) -> None:
        self._base, self._soft, self._labels, self._rows = base, edited, num_labels, rows

    @property
    def num_labels(self) -> int:
        """Number of labels, new ones included."""
        return self._labels

    def take(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """The labels of ``rows`` [k], float32 [k, c]."""
        below = rows < len(self._base)
        dense = np.zeros((len(rows), self._labels), np.float32)
        dense[below, : self._base.num_labels] = self._base.take(rows[below])
        for place, row in enumerate(rows.tolist()):
            edited = self._soft.get(row)
            if edited is not None:
                dense[place] = 0
                dense[place, edited[0]] = edited[1]
        return dense

    def __len__(self) -> int:
        return self._rows
