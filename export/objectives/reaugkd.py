"""ReAugKD's relational loss (Zhang et al., ACL 2023): KL of similarities within the batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .base import DistillationStep, Objective
from .registry import register, require_setting
from .similarity_kl import same_rows, similarity_kl


@register("relation")
@dataclass(frozen=True)
class Relation(Objective):
    """KL divergence of the student's similarities from the teacher's: mean_i KL(q_i || qbar_i).

    q_ij = softmax_j(z_i . z_j / tau) are similarities between the teacher's keys in the batch, and
    qbar_ij = softmax_j(x_i . z_j / tau) similarities of the student's query to the same keys.

    The equation was not checked against the paper's full text. The paper has a KL between the teacher's similarities
    among its own embeddings and the student's similarities to them; temperature, weight and the exclusion of j = i are
    our choice. The paper has one head, on the teacher, which maps to the student's embedding size. Here the student has
    a trained head too, and both map to ``embedding_dim`` components.

    Args:
        temperature: tau. Default 0.05.
        include_self: whether j = i is an anchor. If it is and tau is low, q_ii is nearly 1, and the term only moves
            each query towards its own key; otherwise the order of the neighbours matters. Default False.
    """

    needs = frozenset({"embeddings"})

    temperature: float = 0.05
    include_self: bool = False

    def __post_init__(self) -> None:
        require_setting(self.temperature > 0, "relation: temperature", self.temperature, "above 0")

    def __call__(self, step: DistillationStep) -> Tensor:
        """Return the loss term of a batch, a scalar; a row without other anchors counts as 0."""
        rows, keys = step.rows, step.keys
        if step.batch is not None and step.batch_keys is not None:
            rows, keys = step.batch.rows, step.batch_keys
        return similarity_kl(
            step.keys @ keys.T / self.temperature,
            step.student_embedding @ keys.T / self.temperature,
            None if self.include_self else same_rows(step.rows, rows),
        )
