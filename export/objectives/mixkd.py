"""MixKD (Liang et al., ICLR 2021): distillation on mixtures of two rows' word embeddings (mixup)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot
from transformers import PreTrainedModel

from ..modeling.execution.seeds import mix_seed
from ..recipe import Recipe
from .base import Distillation, DistillationStep, Objective
from .registry import register, require_setting
from .shared_vocabulary import require_shared_tokens

_STREAM = 3  # number of the random stream, so that mixtures and dropout are independent


@dataclass(frozen=True)
class Mixture:
    """The mixture of the n rows of a batch into m rows.

    Args:
        first: [m], indices of the first rows.
        second: [m], indices of the second rows.
        share: [m], lambda, the share of the first row; the second has 1 - lambda.
    """

    first: Tensor
    second: Tensor
    share: Tensor

    def of(self, part: slice) -> Mixture:
        """Return the mixed rows whose first row is in a part of the batch; one of another part if there are none."""
        kept = (self.first >= part.start) & (self.first < part.stop)
        kept[0] |= not kept.any()
        return Mixture(self.first[kept], self.second[kept], self.share[kept])

    def to(self, device: torch.device) -> Mixture:
        """Copy the mixture to a device."""
        return Mixture(self.first.to(device), self.second.to(device), self.share.to(device))


def draw_mixture(rows: int, ratio: int, alpha: float, seed: int, step: int) -> Mixture:
    """Draw a mixture: each row ``ratio`` times with a random partner, and lambda ~ Beta(alpha, alpha).

    Args:
        rows: n.
        ratio: mixed rows per row.
        alpha: parameter of the Beta distribution.
        seed: of the run.
        step: number of the step; seed and step determine the mixture.
    """
    rng = np.random.default_rng([mix_seed(seed, step), _STREAM])
    second = np.concatenate([rng.permutation(rows) for _ in range(ratio)])
    share = rng.beta(alpha, alpha, rows * ratio)
    return Mixture(torch.arange(rows).repeat(ratio), torch.from_numpy(second), torch.from_numpy(share))


def mix_inputs(table: nn.Module, inputs: Mapping[str, Any], mixture: Mixture) -> dict[str, Any]:
    """Mix word embeddings: returns encoder inputs of m mixed rows, with ``inputs_embeds`` instead of ``input_ids``.

    A shorter row is padded with zeros, not with the padding token's embedding. The attention mask is the union of both
    rows' masks. Token types are those of the row with the larger share, or of the first row if the shares are equal
    (our choice; the paper does not specify it).

    Args:
        table: the word embeddings.
        inputs: ``input_ids``, ``attention_mask`` and optionally ``token_type_ids``, each [n, t].
        mixture: on the inputs' device.
    """
    mask = inputs["attention_mask"]
    words = table(inputs["input_ids"]) * mask.unsqueeze(-1)
    share = mixture.share.to(words.dtype)[:, None, None]
    mixed = {
        "inputs_embeds": share * words[mixture.first] + (1 - share) * words[mixture.second],
        "attention_mask": mask[mixture.first] | mask[mixture.second],
    }
    if "token_type_ids" in inputs:
        larger = torch.where(mixture.share >= 0.5, mixture.first, mixture.second)
        mixed["token_type_ids"] = inputs["token_type_ids"][larger]
    return mixed


@register("mixkd")
@dataclass
class MixKD(Objective):
    """Distillation and cross-entropy on mixed rows: tmkd_weight * TMKD + sm_weight * SM (equations 3 to 8).

    x' = lambda x_i + (1 - lambda) x_j mixes word embeddings, in each model its own; y' is the same mixture of gold
    labels. TMKD is the distance between the student's and the teacher's outputs for x', and
    SM = -mean_i y'_i . log softmax(student's logits for x'). Both are means over all mixed rows. A step needs one more
    forward pass of the student and one of the teacher.

    Args:
        alpha: lambda ~ Beta(alpha, alpha). Default 0.4, as in the paper.
        ratio: mixed rows per row of the batch. Default 1, as in the paper.
        tmkd_weight: weight of TMKD. Default 1, as in the paper.
        sm_weight: weight of SM. Default 1, as in the paper.
        distance: ``mse``, the mean squared difference of logits over rows and classes (the paper does not specify of
            what it takes the MSE); or ``kl``, the mean over rows of KL(teacher || student). Default ``mse``.
    """

    needs = frozenset({"teacher"})

    alpha: float = 0.4
    ratio: int = 1
    tmkd_weight: float = 1.0
    sm_weight: float = 1.0
    distance: str = "mse"
    _distillation: Distillation | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_setting(self.alpha > 0, "mixkd: alpha", self.alpha, "above 0")
        require_setting(self.ratio >= 1, "mixkd: ratio", self.ratio, "1 or more")
        require_setting(self.tmkd_weight >= 0, "mixkd: tmkd_weight", self.tmkd_weight, "0 or more")
        require_setting(self.sm_weight >= 0, "mixkd: sm_weight", self.sm_weight, "0 or more")
        require_setting(self.distance in ("mse", "kl"), "mixkd: distance", self.distance, "mse or kl")

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel, recipe: Recipe) -> None:
        """Check the models.

        Raises:
            RecipeError: the models have different vocabularies.
        """
        require_shared_tokens("mixkd", student, teacher)

    def begin(self, distillation: Distillation) -> None:
        """Keep references to both models."""
        self._distillation = distillation

    def __call__(self, step: DistillationStep) -> Tensor:
        """Return the loss term of a batch, a scalar."""
        given = self._distillation
        assert given is not None and given.teacher is not None and given.ask_teacher is not None
        inputs, labels = step.inputs, step.labels
        if step.batch is not None:
            inputs, labels = step.batch.inputs(), given.targets.labels[step.batch.rows]
        mixture = draw_mixture(len(labels), self.ratio, self.alpha, given.seed, step.number)
        mixture = (mixture if step.batch is None else mixture.of(step.batch.part)).to(labels.device)
        with torch.no_grad():
            teacher: PreTrainedModel = given.teacher.encoder
            taught = given.ask_teacher(**mix_inputs(teacher.get_input_embeddings(), inputs, mixture)).logits
        own = given.student.encoder.get_input_embeddings()
        # Detailed as in the main pass: with several processes, both passes must read the same parameters.
        answer = step.student(detailed=True, **mix_inputs(own, inputs, mixture)).logits
        return self.tmkd_weight * self._distance(answer, taught) + self.sm_weight * _mixed_labels_loss(
            answer, labels, mixture
        )

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.distance == "mse":
            return mse_loss(student, teacher)
        log_teacher = teacher.log_softmax(dim=-1)
        return (log_teacher.exp() * (log_teacher - student.log_softmax(dim=-1))).sum(dim=-1).mean()


def _mixed_labels_loss(student: Tensor, labels: Tensor, mixture: Mixture) -> Tensor:
    """SM: cross-entropy with the mixture of the two rows' gold labels."""
    gold = one_hot(labels, student.shape[-1]).to(student.dtype)
    share = mixture.share.to(student.dtype)[:, None]
    mixed = share * gold[mixture.first] + (1 - share) * gold[mixture.second]
    return -(mixed * student.log_softmax(dim=-1)).sum(dim=-1).mean()
