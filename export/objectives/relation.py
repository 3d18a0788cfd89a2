"""ReAugKD's relational KL (Zhang et al., ACL 2023): the student sees neighbourhoods as its teacher does."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from . import DistillationStep, Objective, register, require_setting
from .similarity import same_rows, similarity_kl


@register("relation")
@dataclass(frozen=True)
class Relation(Objective):
    """mean_i KL(q_i || qbar_i) over the batch's keys as anchors.

    q_ij = softmax_j(z_i . z_j / tau) are the teacher's similarities, qbar_ij = softmax_j(x_i . z_j / tau) the student's
    query against the same teacher keys.

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
