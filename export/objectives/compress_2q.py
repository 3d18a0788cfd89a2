"""CompRess-2q (Koohpayegani et al., NeurIPS 2020): teacher and student each see the last rows in their own space."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..modeling.distributed import of_all_processes
from ..modeling.training_loop import in_precision
from .base import Distillation, DistillationStep, Objective
from .registry import register, require_setting
from .similarity_kl import same_rows, similarity_kl


@register("compress_2q")
@dataclass
class CompRess2q(Objective):
    """mean_i KL(p_i || q_i), p_ij = softmax_j(z_i . t_j / tau), q_ij = softmax_j(x_i . s_j / tau).

    t_j and s_j are the keys of the same earlier row, the teacher's and the student's. The student's come from a copy of
    it that follows slowly: after each step its weights are momentum * its own + (1 - momentum) * the student's. A step
    compares with what the queues held before it and then adds its rows; slots not yet filled do not count, nor does
    the row itself, where it is left from the epoch before.

    Nothing here ties the student's space to the teacher's. Where a distilled query is to find the teacher's keys
    (``keys = "teacher"`` or ``"both"``), combine it with a term that does (``relation``, ``compress``). The default
    query, by layers, searches the student's own space with a head fitted afterwards.

    Args:
        queue: rows in a queue, at most as many as there are (more would be older versions of the same). Default 16384.
        temperature: tau. Default 0.04.
        momentum: of the copy. The paper's, for half a million steps, is the default: 0.999.
    """

    queue: int = 16384
    temperature: float = 0.04
    momentum: float = 0.999

    def __post_init__(self) -> None:
        require_setting(self.queue >= 1, "compress_2q: queue", self.queue, "1 or more")
        require_setting(self.temperature > 0, "compress_2q: temperature", self.temperature, "above 0")
        require_setting(0 <= self.momentum < 1, "compress_2q: momentum", self.momentum, "a share in [0, 1)")

    def begin(self, distillation: Distillation) -> None:
        """Copy the student as it starts; the queues are empty."""
        keys = distillation.targets.keys
        self._student = distillation.student
        self._slow = copy.deepcopy(distillation.student).requires_grad_(False).eval()
        self._ask_slow = in_precision(self._slow, distillation.precision, keys.device)
        self._queues = _Queues(min(self.queue, len(keys)), keys)
        self._pending: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, step: DistillationStep) -> Tensor:
        """The term for a batch, a scalar; 0 while the queues are empty."""
        with torch.no_grad():
            self._pending = step.rows, step.keys, self._ask_slow(**step.inputs).embedding
        rows, teacher, student = self._queues.filled()
        return similarity_kl(
            step.keys @ teacher.T / self.temperature,
            step.student_embedding @ student.T / self.temperature,
            same_rows(step.rows, rows),
        )

    @torch.no_grad()
    def after_step(self) -> None:
        """Add the batch to the queues, which the gradient needed until now; move the copy towards the student."""
        if self._pending is not None:
            # All processes' rows, so that their queues are the same and any of them may write a checkpoint.
            self._queues.add(*of_all_processes(*self._pending))
            self._pending = None
        for slow, moved in zip(self._slow.parameters(), self._student.parameters(), strict=True):
            if moved.requires_grad:
                slow.lerp_(moved, 1 - self.momentum)

    def state_dict(self) -> dict[str, Any]:
        """The queues, and the copy's weights as far as they move."""
        moving = {name for name, value in self._student.named_parameters() if value.requires_grad}
        weights = {name: value for name, value in self._slow.state_dict().items() if name in moving}
        return {"queues": self._queues.state_dict(), "slow": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore both."""
        self._queues.load_state_dict(state["queues"])
        self._slow.load_state_dict(state["slow"], strict=False)


class _Queues:
    """The last rows: their numbers, the teacher's keys and the student's, first in, first out, slot by slot."""

    def __init__(self, length: int, like: Tensor) -> None:
        self.rows = torch.zeros(length, dtype=torch.int64, device=like.device)
        self.teacher = like.new_zeros(length, like.shape[1])
        self.student = torch.zeros_like(self.teacher)
        self.added = 0

    def filled(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows [a], the teacher's keys [a, d] and the student's [a, d]; views, not copies."""
        count = min(self.added, len(self.rows))
        return self.rows[:count], self.teacher[:count], self.student[:count]

    def add(self, rows: Tensor, teacher: Tensor, student: Tensor) -> None:
        """Put in a batch in place of the oldest rows; of one longer than the queues its last rows."""
        length = len(self.rows)
        numbers = torch.arange(self.added, self.added + len(rows), device=rows.device)[-length:]
        slots = numbers % length
        self.rows[slots] = rows[-length:]
        self.teacher[slots] = teacher[-length:].to(self.teacher.dtype)
        self.student[slots] = student[-length:].to(self.student.dtype)
        self.added += len(rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "teacher": self.teacher, "student": self.student, "added": self.added}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("rows", "teacher", "student"):
            getattr(self, name).copy_(state[name])
        self.added = int(state["added"])
