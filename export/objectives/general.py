"""General embedding: beside its task, the student approximates the pretrained encoder's own sentence embedding."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cosine_similarity

from .base import DistillationStep, Objective
from .registry import register


@register("general")
@dataclass(frozen=True)
class General(Objective):
    """Cosine distance of the student's general embedding to the pretrained one: mean_i 1 - cos(W h_i + b, e_i).

    e_i is the row's sentence embedding by the teacher's encoder before its fine-tuning, h_i the concatenation of the
    mean-pooled states of all of the student's layers, and W, b a linear map that is trained with the student and saved
    among its heads. SEA (`sea.py`) approximates the fine-tuned teacher's embedding instead, which keeps little besides
    the classes.
    """

    needs = frozenset({"pretrained"})

    def __call__(self, step: DistillationStep) -> Tensor:
        """Return the loss term of a batch, a scalar."""
        assert step.student_general is not None and step.pretrained is not None
        return 1 - cosine_similarity(step.student_general, step.pretrained, dim=-1).mean()
