"""Cross-fitted labels: each row's soft label by a teacher that was fitted without the row.

A teacher is more confident on the rows it was fitted on, right or wrong, and these are the rows of a knowledge base.
With k folds, k teachers are fitted on all rows except one fold each, and label that fold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...runtime.data import Split
from ..tuning.groups import grouped_folds, related_rows

_SEED = 6


def folds_of(split: Split, folds: int) -> NDArray[np.int64]:
    """Each row's fold, int64 [n], from 0; related rows share one, and folds are about equally large.

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
            remedy='Take labels = "teacher" in the recipe\'s [retrieval].',
        )
    return fold.astype(np.int64)
