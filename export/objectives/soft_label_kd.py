"""Knowledge distillation with soft labels (Hinton et al. 2015): cross-entropy with the teacher's distribution."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .base import DistillationStep, Objective
from .registry import register, require_setting


@register("soft_labels")
@dataclass(frozen=True)
class SoftLabelKD(Objective):
    """Cross-entropy with the teacher's distribution: T^2 * mean_i CE(softmax(teacher_i / T), softmax(student_i / T)).

    Args:
        temperature: T; the factor T^2 makes the size of the gradient independent of T (Hinton et al., section 2).
            Default 1.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        require_setting(self.temperature > 0, "soft_labels: temperature", self.temperature, "above 0")

    def __call__(self, step: DistillationStep) -> Tensor:
        """Return the loss term of a batch, a scalar."""
        target = (step.teacher_logits / self.temperature).softmax(dim=-1)
        log_student = (step.student_logits / self.temperature).log_softmax(dim=-1)
        return -(self.temperature**2) * (target * log_student).sum(dim=-1).mean()
