"""Cross-entropy with the gold labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from .base import DistillationStep, Objective
from .registry import register, require_setting


@register("hard_labels")
@dataclass(frozen=True)
class HardLabels(Objective):
    """Cross-entropy with the gold labels: mean_i CE(label_i, softmax(student_i)).

    Args:
        smoothing: label smoothing (Szegedy et al. 2016): share of the target spread evenly over the labels. Default 0.
    """

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        require_setting(0 <= self.smoothing < 1, "hard_labels: smoothing", self.smoothing, "a share in [0, 1)")

    def __call__(self, step: DistillationStep) -> Tensor:
        """Return the loss term of a batch, a scalar."""
        return cross_entropy(step.student_logits, step.labels, label_smoothing=self.smoothing)
