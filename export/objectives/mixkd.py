"""MixKD (Liang et al., ICLR 2021): student and teacher meet on mixtures of two rows' word embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot
from transformers import PreTrainedModel

from ..modeling.distributed import processes
from ..modeling.seeds import mix_seed
from ..recipe import Recipe
from .base import Distillation, DistillationStep, Objective
from .registry import register, require_setting
from .shared_vocabulary import require_shared_tokens

_STREAM = 3  # keeps these draws apart from dropout's, which come from the same seed and step


@dataclass(frozen=True)
class Mixture:
    """The mixture of the n rows of a batch into m rows.

    Args:
        first: [m], numbers of rows.
        second: [m], of their partners.
        share: [m], lambda: what the first row weighs; the partner weighs the rest.
    """

    first: Tensor
    second: Tensor
    share: Tensor


def draw_mixture(rows: int, ratio: int, alpha: float, seed: int, step: int) -> Mixture:
    """Each row ``ratio`` times, with partners by a permutation and lambda ~ Beta(alpha, alpha): all by (seed, step)."""
    rng = np.random.default_rng([mix_seed(seed, step), _STREAM])
    second = np.concatenate([rng.permutation(rows) for _ in range(ratio)])
    share = rng.beta(alpha, alpha, rows * ratio)
    return Mixture(torch.arange(rows).repeat(ratio), torch.from_numpy(second), torch.from_numpy(share))


def mix_inputs(table: nn.Module, inputs: Mapping[str, Any], mixture: Mixture) -> dict[str, Any]:
    """Encoder inputs in place of ``input_ids``, for m mixed rows.

    A shorter row is filled up with zeros, not with the padding token's embedding, and attention covers what either row
    covers. A pair's token types are those of the row with the larger share, of the first where both are equal; that is
    ours, the paper does not say.

    Args:
        table: the word embeddings.
        inputs: ``input_ids``, ``attention_mask`` and maybe ``token_type_ids``, each [n, t].
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
    """tmkd_weight * TMKD + sm_weight * SM on rows mixed at the embedding layer (equations 3 to 8).

    x' = lambda x_i + (1 - lambda) x_j of each model's own word embeddings, y' the same mixture of gold labels. TMKD is
    the distance of the student's answer to x' from the teacher's, SM = -mean_i y'_i . log softmax(student's answer).
    Both are means over all mixed rows. The student passes once more through its encoder, the teacher once.

    Args:
        alpha: lambda ~ Beta(alpha, alpha). Default 0.4, the paper's.
        ratio: mixed rows per row of the batch. Default 1, the paper's.
        tmkd_weight: default 1, the paper's.
        sm_weight: default 1, the paper's.
        distance: ``mse``, the mean over rows and classes of the squared difference of logits (the paper names MSE
            without saying of what); or ``kl``, the mean over rows of KL(teacher || student). Default ``mse``.
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
        """Raises RecipeError where the teacher cannot read the student's tokens."""
        require_shared_tokens("mixkd", student, teacher)

    def begin(self, distillation: Distillation) -> None:
        """Keep both models at hand."""
        self._distillation = distillation

    def __call__(self, step: DistillationStep) -> Tensor:
        """The term for a batch, a scalar."""
        given = self._distillation
        assert given is not None and given.teacher is not None and given.ask_teacher is not None
        seed = given.seed + processes().process_index  # each process mixes its rows in its own way
        drawn = draw_mixture(len(step.labels), self.ratio, self.alpha, seed, step.number)
        device = step.labels.device
        mixture = Mixture(drawn.first.to(device), drawn.second.to(device), drawn.share.to(device))
        with torch.no_grad():
            teacher: PreTrainedModel = given.teacher.encoder
            taught = given.ask_teacher(**mix_inputs(teacher.get_input_embeddings(), step.inputs, mixture)).logits
        own = given.student.encoder.get_input_embeddings()
        answer = step.student(**mix_inputs(own, step.inputs, mixture)).logits
        return self.tmkd_weight * self._distance(answer, taught) + self.sm_weight * _mixed_labels_loss(
            answer, step.labels, mixture
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
