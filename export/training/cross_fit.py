"""Cross-fitted labels: the soft label of each row comes from a teacher that was fitted without the row.

A teacher is over-confident on the rows it was fitted on, and these rows are in the knowledge base. With k folds, k
teachers are fitted, each without one fold, and each labels the fold that it was fitted without.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...runtime.data import Split
from ..tuning.groups import grouped_folds, related_rows

_SEED = 6


def folds_of(split: Split, folds: int) -> NDArray[np.int64]:
    """Assign a fold to each row: int64 [n], from 0. Related rows share a fold; folds are about equally large.

    Args:
        split: the rows.
        folds: the number of folds; it is reduced if related rows leave some folds empty.

    Raises:
        DataError: all rows are related.
    """
    used, fold = np.unique(grouped_folds(related_rows(split), folds, _SEED), return_inverse=True)
    if len(used) < 2:
        raise DataError(
            "cross-fitting is impossible because all rows are related",
            path=split.source,
            found=f"{len(split)} rows that are all related",
            expected="texts that are not part of each other, pairs that share no text",
            remedy='Set labels = "teacher" in the recipe\'s [retrieval].',
        )
    return fold.astype(np.int64)
