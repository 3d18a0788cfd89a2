"""The interface of a loss term and its inputs from student, teacher and batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..modeling.encoder import EncoderClassifier
from ..modeling.training_loop import Forward
from ..recipe import Precision, Recipe


@dataclass(frozen=True)
class Targets:
    """The targets of the distillation for n rows.

    Args:
        teacher_logits: [n, c].
        teacher_embeddings: [n, hidden].
        keys: [n, d], L2-normalised.
        labels: [n], int64, gold.
    """

    teacher_logits: Tensor
    teacher_embeddings: Tensor
    keys: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Targets:
        """A copy on a device."""
        return Targets(
            self.teacher_logits.to(device),
            self.teacher_embeddings.to(device),
            self.keys.to(device),
            self.labels.to(device),
        )


@dataclass(frozen=True)
class Distillation:
    """Inputs of an objective before the first step, on the device of the fit.

    Args:
        student: as it starts.
        teacher: frozen and in evaluation mode; None unless an objective needs ``"teacher"`` or ``"attentions"``.
        ask_teacher: the same as a function, in the fit's precision; wrap it in ``torch.no_grad``.
        targets: what the teacher said of all rows.
        seed: the run's; whatever an objective draws is a function of it and of the step's number.
        precision: the fit's.
    """

    student: EncoderClassifier
    teacher: nn.Module | None
    ask_teacher: Forward | None
    targets: Targets
    seed: int
    precision: Precision


@dataclass(frozen=True)
class DistillationStep:
    """Inputs of an objective for one batch: n rows, c labels, d dimensions and t tokens.

    Args:
        number: of the step, from 0.
        rows: [n], row numbers into ``Distillation.targets``.
        inputs: the tokens, each [n, t].
        student: the student being fitted, for another pass on inputs of the objective's own.
        student_logits: [n, c].
        student_embedding: [n, d], L2-normalised: the query.
        student_projection: [n, d], the same before its normalisation.
        student_attentions: [n, heads, t, t] a layer; none unless an objective needs ``"attentions"``.
        teacher_logits: [n, c].
        teacher_embedding: [n, hidden].
        teacher_attentions: as the student's; the heads may be others.
        keys: [n, d], L2-normalised: the projected teacher embeddings.
        labels: [n], int64.
    """

    number: int
    rows: Tensor
    inputs: Mapping[str, Any]
    student: Forward
    student_logits: Tensor
    student_embedding: Tensor
    student_projection: Tensor
    student_attentions: tuple[Tensor, ...]
    teacher_logits: Tensor
    teacher_embedding: Tensor
    teacher_attentions: tuple[Tensor, ...]
    keys: Tensor
    labels: Tensor


class Objective:
    """One term of the loss. A subclass implements ``__call__``, and the hooks if it has something to keep.

    Attributes:
        needs: what must be computed for it: ``"teacher"`` (the live teacher) or ``"attentions"`` (of both models).
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel, recipe: Recipe) -> None:
        """Raise RecipeError where the encoders or the recipe do not fit it; called once, before any training."""

    def begin(self, distillation: Distillation) -> None:
        """Called once before the first step, also of a resumed fit."""

    def __call__(self, step: DistillationStep) -> Tensor:
        """The term's mean over the batch, a scalar."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called when the optimizer has moved the student."""

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed fit needs: tensors, numbers and containers of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from ``state_dict``; called after ``begin``."""
