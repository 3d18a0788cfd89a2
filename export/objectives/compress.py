"""CompRess-1q (Koohpayegani et al., NeurIPS 2020): the relational KL with the whole knowledge base as anchors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..modeling.seeds import mix_seed
from .base import Distillation, DistillationStep, Objective
from .registry import register, require_setting
from .similarity_kl import same_rows, similarity_kl

_SAMPLE = 101  # which of the run's random streams the anchors are drawn from


@register("compress")
@dataclass
class CompRess(Objective):
    """mean_i KL(p_i || q_i), p_ij = softmax_j(z_i . a_j / tau), q_ij = softmax_j(x_i . a_j / tau).

    z_i is the row's key, x_i the student's query, a_j the keys of all rows or of a sample drawn once: the teacher's
    cached outputs make them free, where the paper fills a queue ("ours-1q": one bank, the teacher's, for both). With
    the batch's own keys in their place this is ``relation``.

    Args:
        anchors: at most so many; the paper found 128,000 better than any fewer. A step costs
            rows x anchors x embedding_dim. Default 16384.
        temperature: tau; best between 0.02 and 0.04 in the paper. Default 0.04.
        include_self: whether a row's own key is an anchor; see ``relation``. Default False.
    """

    anchors: int = 16384
    temperature: float = 0.04
    include_self: bool = False

    def __post_init__(self) -> None:
        require_setting(self.anchors >= 1, "compress: anchors", self.anchors, "1 or more")
        require_setting(self.temperature > 0, "compress: temperature", self.temperature, "above 0")

    def begin(self, distillation: Distillation) -> None:
        """Choose the anchors, by the seed."""
        keys = distillation.targets.keys
        self._rows = torch.arange(len(keys), device=keys.device)
        self._keys = keys
        if len(keys) > self.anchors:
            generator = torch.Generator().manual_seed(mix_seed(distillation.seed, _SAMPLE))
            chosen = torch.randperm(len(keys), generator=generator)[: self.anchors].sort().values
            self._rows = chosen.to(keys.device)
            self._keys = keys[self._rows]

    def __call__(self, step: DistillationStep) -> Tensor:
        """The term for a batch, a scalar; 0 for a row that has no anchor but itself."""
        return similarity_kl(
            step.keys @ self._keys.T / self.temperature,
            step.student_embedding @ self._keys.T / self.temperature,
            None if self.include_self else same_rows(step.rows, self._rows),
        )
