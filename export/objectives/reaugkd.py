"""ReAugKD's relational KL (Zhang et al., ACL 2023): the student sees neighbourhoods as its teacher does."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .base import DistillationStep, Objective
from .registry import register, require_setting
from .similarity_kl import same_rows, similarity_kl


@register("relation")
@dataclass(frozen=True)
class Relation(Objective):
    """mean_i KL(q_i || qbar_i) over the batch's keys as anchors.

    q_ij = softmax_j(z_i . z_j / tau) are the teacher's similarities, qbar_ij = softmax_j(x_i . z_j / tau) the student's
    query against the same teacher keys.

    Of the paper only this much is certain here: a KL between the teacher's similarities among its own embeddings and
    those of the student's to them. Its full text was not at hand; the equation is recalled, and its temperature, its
    weight beside the soft labels and whether j = i counts are ours. The paper's one head sits on the teacher and maps
    to the student's embedding size; here the student also has a trained head, and both map to
    ``embedding_dim`` components.

    Args:
        temperature: tau. Default 0.05.
        include_self: whether j = i is an anchor. With it and a low tau, q_ii is nearly 1 and the term merely pulls
            each query onto its own key; without it the neighbours' order counts. Default False.
    """

    temperature: float = 0.05
    include_self: bool = False

    def __post_init__(self) -> None:
        require_setting(self.temperature > 0, "relation: temperature", self.temperature, "above 0")

    def __call__(self, step: DistillationStep) -> Tensor:
        """The term for a batch, a scalar; 0 where a row has no anchor but itself."""
        return similarity_kl(
            step.keys @ step.keys.T / self.temperature,
            step.student_embedding @ step.keys.T / self.temperature,
            None if self.include_self else same_rows(step.rows, step.rows),
        )
