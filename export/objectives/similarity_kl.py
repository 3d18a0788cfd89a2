"""KL divergence of two similarity distributions over the same anchors, for the losses of ReAugKD and CompRess."""

from __future__ import annotations

import torch
from torch import Tensor


def same_rows(rows: Tensor, anchors: Tensor) -> Tensor:
    """Compare row numbers [n] with the row numbers of anchors [a]: bool [n, a]."""
    return rows.unsqueeze(1) == anchors


def similarity_kl(teacher: Tensor, student: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Compute mean_i KL(softmax_j(teacher_ij) || softmax_j(student_ij)) over the anchors that are not excluded.

    Args:
        teacher: [n, a], similarities divided by the temperature.
        student: [n, a], similarities divided by the temperature.
        excluded: [n, a], True if row i does not use anchor j; None excludes nothing.

    Returns:
        A scalar; a row without anchors counts as 0.
    """
    if excluded is not None:
        # A finite floor: -inf would give NaN gradients in the backward pass of log_softmax.
        floor = torch.finfo(student.dtype).min
        teacher, student = teacher.masked_fill(excluded, floor), student.masked_fill(excluded, floor)
    log_p, log_q = teacher.log_softmax(dim=-1), student.log_softmax(dim=-1)
    terms = log_p.exp() * (log_p - log_q)
    return terms.sum(dim=-1).mean()
