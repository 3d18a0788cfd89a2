"""Attention-map distillation, AMAD ("No Head Left Behind", Zhao et al., AAAI 2024).

Each teacher head is aligned with all student heads, weighted by similarity, so the numbers of heads may differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from ...errors import RecipeError
from ..recipe import Recipe
from .base import DistillationStep, Objective
from .registry import register, require_setting
from .shared_vocabulary import require_shared_tokens


def spread_layers(student: int, teacher: int) -> tuple[int, ...]:
    """Assign a teacher layer to each student layer, spread evenly up to the last; 0-based.

    Args:
        student: number of the student's layers.
        teacher: number of the teacher's layers.

    Returns:
        The teacher's layer for each of the student's.
    """
    return tuple(-(-(layer + 1) * teacher // student) - 1 for layer in range(student))


@register("attention")
@dataclass(frozen=True)
class Attention(Objective):
    """KL divergence of the student's attention maps from the teacher's, with AMAD's head alignment.

    Mean over layers, rows and teacher heads i of sum_j a_ij D_ij, where j runs over the student's heads:
    a_ij = softmax_j(cos(vec A^T_i, vec A^S_j) / temperature), detached;
    D_ij = mean over the row's tokens q of KL(A^T_i[q] || A^S_j[q]), without padding.

    The exact normalisation and the temperature are our choice: only the paper's abstract and reviews were available.

    During training the student's maps include attention dropout, whose zeros would make the divergence infinite.
    Therefore both distributions are conditioned on the attended tokens that dropout keeps. The divergence is then 0
    if the maps were equal before dropout. A token for which dropout keeps nothing adds 0.

    Args:
        temperature: of the weights a_ij; if it is low, each teacher head is aligned with the most similar student head.
            Default 0.1.
        layers: the teacher's layer for each of the student's, 0-based. Default (): evenly spread, layer s of S follows
            layer ceil((s + 1) * T / S) - 1 of T.
    """

    needs = frozenset({"attentions"})

    temperature: float = 0.1
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_setting(self.temperature > 0, "attention: temperature", self.temperature, "above 0")
        require_setting(all(layer >= 0 for layer in self.layers), "attention: layers", self.layers, "0-based numbers")

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel, recipe: Recipe) -> None:
        """Check the models.

        Raises:
            RecipeError: the layers do not fit the models, or the models have different vocabularies.
        """
        require_shared_tokens("attention", student, teacher)
        self._pairing(student.config.num_hidden_layers, teacher.config.num_hidden_layers)

    def __call__(self, step: DistillationStep) -> Tensor:
        """Return the loss term of a batch, a scalar."""
        mask = step.inputs["attention_mask"].bool()
        pairing = self._pairing(len(step.student_attentions), len(step.teacher_attentions))
        terms = [
            self._layer(step.teacher_attentions[layer].to(own.dtype), own, mask)
            for own, layer in zip(step.student_attentions, pairing, strict=True)
        ]
        return torch.stack(terms).mean()

    def _pairing(self, student: int, teacher: int) -> tuple[int, ...]:
        if not self.layers:
            return spread_layers(student, teacher)
        if len(self.layers) != student or max(self.layers) >= teacher:
            raise RecipeError(
                "attention: layers do not fit the models",
                found=str(list(self.layers)),
                expected=f"{student} numbers, one for each layer of the student, each from 0 to {teacher - 1}",
                remedy="Correct layers in the recipe, or leave it out for evenly spread layers.",
            )
        return self.layers

    def _layer(self, teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
        valid = mask[:, None, :, None] & mask[:, None, None, :]
        teacher, student = teacher.detach().masked_fill(~valid, 0.0), student.masked_fill(~valid, 0.0)
        weights = (_cosines(teacher, student.detach()) / self.temperature).softmax(dim=-1)
        return (weights * _divergences(teacher, student, mask)).sum(dim=-1).mean()


def _cosines(teacher: Tensor, student: Tensor) -> Tensor:
    """Cosines [n, teacher heads, student heads] between attention maps [n, heads, t, t] as vectors."""
    return normalize(teacher.flatten(2), dim=-1) @ normalize(student.flatten(2), dim=-1).transpose(1, 2)


def _divergences(teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
    """KL divergences [n, teacher heads, student heads], conditioned on what dropout keeps, averaged over query tokens.

    With K the indicator of kept tokens, Z = sum_k K t_k and s normalised over K, the divergence is
    KL = (sum_k K t_k (log t_k - log s_k)) / Z - log Z. All sums are over k alone, so that
    no tensor has both heads and both tokens.
    """
    # Below the smallest normal number, 1 / s would overflow in the backward pass.
    survived = student > torch.finfo(student.dtype).tiny
    kept = student.where(survived, 1.0)
    total = student.where(survived, 0.0).sum(dim=-1, keepdim=True)
    any_left = total > 0
    log_student = (kept.log() - total.where(any_left, 1.0).log()).where(survived, 0.0)
    # [n, t, teacher heads, k] @ [n, t, k, student heads]
    taught, entropy = (item.transpose(1, 2) for item in (teacher, torch.special.xlogy(teacher, teacher)))
    columns, scores = (item.permute(0, 2, 3, 1) for item in (survived.to(teacher.dtype), log_student))
    mass = taught @ columns
    counts = mass > torch.finfo(mass.dtype).eps
    mass = mass.where(counts, 1.0)
    divergence = ((entropy @ columns - taught @ scores) / mass - mass.log()).where(counts, 0.0)
    tokens = mask.to(divergence.dtype)
    return (divergence * tokens[:, :, None, None]).sum(dim=1) / tokens.sum(dim=1).clamp(min=1.0)[:, None, None]
