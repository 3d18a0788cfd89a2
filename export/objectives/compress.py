"""CompRess-1q (Koohpayegani et al., NeurIPS 2020): KL of similarities to anchors from the whole knowledge base."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..modeling.execution.seeds import mix_seed
from .base import Distillation, DistillationStep, Objective
from .registry import register, require_setting
from .similarity_kl import same_rows, similarity_kl

_SAMPLE = 101  # number of the random stream from which the anchors are drawn


@register("compress")
@dataclass
class CompRess(Objective):
    """KL divergence of the student's similarities from the teacher's, both to the same keys of the teacher.

    mean_i KL(p_i || q_i), p_ij = softmax_j(z_i . a_j / tau), q_ij = softmax_j(x_i . a_j / tau), with z_i the row's key,
    x_i the student's query and a_j the anchors: the keys of all rows, or of a sample that is drawn once.

    The paper's variant "ours-1q" fills one queue with teacher embeddings; here the teacher's outputs are cached, so no
    queue is needed. With the keys of the batch as anchors, the term is ``relation``.

    Args:
        anchors: largest number of anchors; in the paper, 128,000 was better than fewer. A step costs
            rows x anchors x embedding_dim. Default 16384.
        temperature: tau; best between 0.02 and 0.04 in the paper. Default 0.04.
        include_self: whether a row's own key is an anchor, see ``relation``. Default False.
    """

    needs = frozenset({"embeddings"})

    anchors: int = 16384
    temperature: float = 0.04
    include_self: bool = False

    def __post_init__(self) -> None:
        require_setting(self.anchors >= 1, "compress: anchors", self.anchors, "1 or more")
        require_setting(self.temperature > 0, "compress: temperature", self.temperature, "above 0")

    def begin(self, distillation: Distillation) -> None:
        """Draw the anchors with the run's seed."""
        keys = distillation.targets.keys
        self._rows = torch.arange(len(keys), device=keys.device)
        self._keys = keys
        if len(keys) > self.anchors:
            generator = torch.Generator().manual_seed(mix_seed(distillation.seed, _SAMPLE))
            chosen = torch.randperm(len(keys), generator=generator)[: self.anchors].sort().values
            self._rows = chosen.to(keys.device)
            self._keys = keys[self._rows]

    def __call__(self, step: DistillationStep) -> Tensor:
        """Return the loss term of a batch, a scalar; a row without other anchors counts as 0."""
        return similarity_kl(
            step.keys @ self._keys.T / self.temperature,
            step.student_embedding @ self._keys.T / self.temperature,
            None if self.include_self else same_rows(step.rows, self._rows),
        )
