"""Supervised contrastive loss (Khosla et al., NeurIPS 2020, L_out), defined also for rows without positives."""

from __future__ import annotations

import torch
from torch import Tensor


def supervised_contrastive(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Compute mean_i -(1/|P(i)|) sum_{p in P(i)} log( exp(v_i.v_p/tau) / sum_{a != i} exp(v_i.v_a/tau) ).

    P(i) are the other rows of i's class, its positives. A row without positives does not count; the published code
    divides by |P(i)| = 0 in this case. A batch without positives gives 0, with a gradient.

    Args:
        embeddings: [n, d], L2-normalised.
        labels: [n], class indices.
        temperature: tau.

    Returns:
        A scalar.
    """
    scores = embeddings @ embeddings.T / temperature
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    log_prob = scores.masked_fill(itself, torch.finfo(scores.dtype).min).log_softmax(dim=-1)
    positives = (labels[:, None] == labels[None, :]) & ~itself
    counts = positives.sum(dim=-1)
    per_row = -log_prob.masked_fill(~positives, 0.0).sum(dim=-1) / counts.clamp(min=1)
    return per_row.sum() / (counts > 0).sum().clamp(min=1)
