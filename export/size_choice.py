"""Choosing the size of a compact knowledge base by what it may lose, and judging the choice on other rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .sizes import Answered

Bools = NDArray[np.bool_]


def smallest_within(
    loss: float, full: Answered, student: Answered, sizes: Sequence[Answered], rows: Bools | None = None
) -> int:
    """Which size is the smallest that loses no more than a share of retrieval's gain, nor does any larger one.

    Its log-likelihood may lose that share. So may its accuracy, and a standard error more, since it hangs on the few
    rows that the two answer differently (as the one-standard-error rule does: Breiman et al. 1984).

    Args:
        loss: the share, 0 to 1.
        full: the full knowledge base's answers.
        student: the student's.
        sizes: the answers of each size, the largest, as good as ``full``, first.
        rows: look at these only.

    Returns:
        The number of the size.

    Raises:
        UsageError: the full knowledge base gains nothing that could be lost.
    """
    chosen = np.ones(len(full.nll), np.bool_) if rows is None else rows
    full, student = full.take(chosen), student.take(chosen)
    gain = student.nll.mean() - full.nll.mean()
    if gain <= 0:
        raise UsageError(
            "retrieval gains nothing on the held-out rows: no share of that can be kept",
            found=f"negative log-likelihood {student.nll.mean():.4f} -> {full.nll.mean():.4f}",
            remedy="Give --max-rows or --max-bytes.",
        )
    best = 0
    for number, answered in enumerate(sizes):
        size = answered.take(chosen)
        differ = int((size.right != full.right).sum())
        lost = int(full.right.sum()) - int(size.right.sum())
        allowed = loss * max(int(full.right.sum()) - int(student.right.sum()), 0) + differ**0.5
        if size.nll.mean() - full.nll.mean() > loss * gain or lost > allowed:
            break
        best = number
    return best


def cross_validated(
    loss: float, full: Answered, student: Answered, sizes: Sequence[Answered], groups: NDArray[np.int64]
) -> float | None:
    """The share of the log-likelihood's gain that is kept on rows which the size was not chosen on.

    Each half of the groups is measured at the size that the other half chooses (`smallest_within`); None where one of
    them sees no gain.
    """
    second = np.unique(groups, return_inverse=True)[1] % 2 == 1
    gains = student.nll - full.nll
    if min(gains[second].sum(), gains[~second].sum()) <= 0:
        return None
    kept = 0.0
    for measured in (second, ~second):
        number = smallest_within(loss, full, student, sizes, ~measured)
        kept += float((student.nll - sizes[number].nll)[measured].sum())
    return kept / float(gains.sum())
