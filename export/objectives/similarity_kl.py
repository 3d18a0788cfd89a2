"""The KL of two similarity distributions over the same anchors: the heart of ReAugKD's and CompRess's losses."""

from __future__ import annotations

import torch
from torch import Tensor


def same_rows(rows: Tensor, anchors: Tensor) -> Tensor:
    """[n, a]: whether row numbers [n] and the row numbers of anchors [a] are the same."""
    return rows.unsqueeze(1) == anchors


def similarity_kl(teacher: Tensor, student: Tensor, excluded: Tensor | None = None) -> Tensor:
    """mean_i KL(softmax_j(teacher_ij) || softmax_j(student_ij)) over the anchors that are not excluded.

    Args:
        teacher: [n, a], similarities over temperature.
        student: [n, a].
        excluded: [n, a], True if anchor j is left out for row i; None leaves out nothing.

    Returns:
        A scalar; a row without anchors counts as 0.
    """
    if excluded is not None:
        # A finite floor, since -inf would make NaN gradients through log_softmax's backward.
        floor = torch.finfo(student.dtype).min
        teacher, student = teacher.masked_fill(excluded, floor), student.masked_fill(excluded, floor)
    log_p, log_q = teacher.log_softmax(dim=-1), student.log_softmax(dim=-1)
    terms = log_p.exp() * (log_p - log_q)
    return terms.sum(dim=-1).mean()
