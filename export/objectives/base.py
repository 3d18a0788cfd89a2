"""Interface of a loss term, and its inputs from student, teacher and batch.

To add a term, write a new file in this folder and import it in `export/objectives/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..modeling.encoder import EncoderClassifier
from ..modeling.execution.training_loop import Batch, Forward
from ..recipe import Precision, Recipe


@dataclass(frozen=True)
class Targets:
    """The targets of the distillation for n rows.

    Args:
        teacher_logits: [n, c].
        teacher_embeddings: [n, hidden].
        keys: [n, d], L2-normalised: the projected teacher embeddings.
        labels: [n], int64, gold labels.
        pretrained: [n, hidden], L2-normalised: the sentence embeddings of the teacher's encoder before its fine-tuning;
            None unless an objective needs ``"pretrained"``.
    """

    teacher_logits: Tensor
    teacher_embeddings: Tensor
    keys: Tensor
    labels: Tensor
    pretrained: Tensor | None = None

    def to(self, device: torch.device) -> Targets:
        """Copy the targets to a device."""
        return Targets(
            self.teacher_logits.to(device),
            self.teacher_embeddings.to(device),
            self.keys.to(device),
            self.labels.to(device),
            None if self.pretrained is None else self.pretrained.to(device),
        )


@dataclass(frozen=True)
class Distillation:
    """Inputs of an objective before the first step, on the device of the fit.

    Args:
        student: the student before the first step.
        teacher: frozen and in evaluation mode; None unless an objective needs ``"teacher"`` or ``"attentions"``.
        ask_teacher: the teacher as a function in the fit's precision; call it under ``torch.no_grad``.
        targets: the teacher's outputs for all rows.
        seed: of the run; random choices of an objective must be a function of it and of the step's number.
        precision: of the fit.
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

    If several processes share the batch of b rows, the n rows are this process's part. A term that compares rows must
    use all b of them.

    Args:
        number: number of the step, from 0.
        rows: [n], indices into ``Distillation.targets``.
        inputs: the tokenizer's outputs, each [n, t].
        student: the student being fitted, for a further pass on other inputs.
        student_logits: [n, c].
        student_embedding: [n, d], L2-normalised: the query.
        student_projection: [n, d], the embedding before its normalisation.
        student_attentions: [n, heads, t, t] per layer; empty unless an objective needs ``"attentions"``.
        teacher_logits: [n, c].
        teacher_embedding: [n, hidden].
        teacher_attentions: same as the student's; the number of heads may differ.
        keys: [n, d], L2-normalised: the projected teacher embeddings.
        labels: [n], int64, gold labels.
        student_general: [n, hidden], the student's general embedding; None unless an objective needs ``"pretrained"``.
        pretrained: [n, hidden], L2-normalised, see `Targets`; None likewise.
        batch: the whole batch if several processes share it, else None.
        batch_keys: [b, d], the keys of the whole batch; None likewise.
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
    student_general: Tensor | None = None
    pretrained: Tensor | None = None
    batch: Batch | None = None
    batch_keys: Tensor | None = None


class Objective:
    """One term of the student's loss. A subclass implements ``__call__``, and the other methods if it has state.

    Attributes:
        needs: inputs besides the teacher's logits: ``"embeddings"`` (the teacher's, or its keys), ``"teacher"`` (a
            loaded teacher), ``"attentions"`` (maps of both models) and ``"pretrained"`` (the sentence embeddings of the
            teacher's encoder before its fine-tuning, and the student's general embedding).
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel, recipe: Recipe) -> None:
        """Check that encoders and recipe fit the objective; called once before any training.

        Args:
            student: the student's encoder.
            teacher: the teacher's encoder.
            recipe: the run's recipe.

        Raises:
            RecipeError: they do not fit.
        """

    def begin(self, distillation: Distillation) -> None:
        """Prepare the objective; called once before the first step of a new or resumed fit."""

    def __call__(self, step: DistillationStep) -> Tensor:
        """Return the term's mean over the n rows, a scalar.

        Raises:
            NotImplementedError: a subclass must implement it.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """Update the state; called after each step of the optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed fit needs: tensors, numbers and containers of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from ``state_dict``; called after ``begin``."""
