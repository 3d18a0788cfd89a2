"""AMAD, "No Head Left Behind" (Zhao et al., AAAI 2024): every teacher head teaches all student heads."""

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
    """For each of the student's layers a teacher layer, spread evenly up to the last: 0-based."""
    return tuple(-(-(layer + 1) * teacher // student) - 1 for layer in range(student))


@register("attention")
@dataclass(frozen=True)
class Attention(Objective):
    """mean over layers, rows and teacher heads i of sum_j a_ij D_ij, j over the student's heads.

    a_ij = softmax_j(cos(vec A^T_i, vec A^S_j) / temperature), detached; D_ij = mean over the row's tokens q of
    KL(A^T_i[q] || A^S_j[q]). The heads may be as many as they like on either side. Padding counts nowhere. The exact
    normalisation and the temperature are ours: the paper's text was not at hand, only its abstract and reviews.

    In training the student's maps come after its attention dropout, whose zeros would make the divergence infinite. So
    it is taken between both distributions given that the attended token survived, which is 0 where the maps were equal
    before dropout; a token of whose row nothing survived adds 0.

    Args:
        temperature: of the weights; low, each teacher head teaches the student head most like it. Default 0.1.
        layers: for each of the student's layers the teacher's it follows, 0-based. Default (), spread: layer s of S
            follows layer ceil((s + 1) * T / S) - 1 of T.
    """

    needs = frozenset({"attentions"})

    temperature: float = 0.1
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_setting(self.temperature > 0, "attention: temperature", self.temperature, "above 0")
        require_setting(all(layer >= 0 for layer in self.layers), "attention: layers", self.layers, "0-based numbers")

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel, recipe: Recipe) -> None:
        """Raises RecipeError where the layers do not fit, or where the teacher cannot read the student's tokens."""
        require_shared_tokens("attention", student, teacher)
        self._pairing(student.config.num_hidden_layers, teacher.config.num_hidden_layers)

    def __call__(self, step: DistillationStep) -> Tensor:
        """The term for a batch, a scalar."""
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
                expected=f"{student} numbers, one a layer of the student, each from 0 to {teacher - 1}",
                remedy="Correct layers in the recipe, or leave it out to spread them.",
            )
        return self.layers

    def _layer(self, teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
        valid = mask[:, None, :, None] & mask[:, None, None, :]
        teacher, student = teacher.detach().masked_fill(~valid, 0.0), student.masked_fill(~valid, 0.0)
        weights = (_cosines(teacher, student.detach()) / self.temperature).softmax(dim=-1)
        return (weights * _divergences(teacher, student, mask)).sum(dim=-1).mean()


def _cosines(teacher: Tensor, student: Tensor) -> Tensor:
    """[n, teacher heads, student heads] of maps [n, heads, t, t] as vectors."""
    return normalize(teacher.flatten(2), dim=-1) @ normalize(student.flatten(2), dim=-1).transpose(1, 2)


def _divergences(teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
    """[n, teacher heads, student heads]: KL per query token, given the survivors of dropout, as a mean over ``mask``.

    With K the survivors and Z = sum_k K t_k, KL = (sum_k K t_k (log t_k - log s_k)) / Z - log Z, s normalised over K:
    sums over k alone, so that no tensor has both heads and both tokens.
    """
    # Below the smallest normal number 1 / s would overflow on its way back.
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
