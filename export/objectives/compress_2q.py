"""CompRess-2q (Koohpayegani et al., NeurIPS 2020): KL of similarities to earlier rows, each model in its own space."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..modeling.execution.distributed import of_all_processes
from ..modeling.execution.training_loop import in_precision
from .base import Distillation, DistillationStep, Objective
from .registry import register, require_setting
from .similarity_kl import same_rows, similarity_kl


@register("compress_2q")
@dataclass
class CompRess2q(Objective):
    """KL divergence of the student's similarities to its own earlier embeddings from the teacher's to its keys.

    mean_i KL(p_i || q_i), p_ij = softmax_j(z_i . t_j / tau), q_ij = softmax_j(x_i . s_j / tau), with z_i the row's key,
    x_i the student's query, and t_j and s_j the teacher's and the student's embedding of the same earlier row j.

    Two queues hold the earlier rows. The student's embeddings in them come from a momentum copy of the student: after
    each step its weights are momentum * own + (1 - momentum) * the student's. A step first uses the queues and then
    adds its rows. Unfilled slots do not count, and neither does the row itself, which may be in the queues from the
    previous epoch.

    This term does not align the student's space with the teacher's. If a distilled query must find the teacher's keys
    (``keys = "teacher"``), add a term that aligns them (``relation``, ``compress``). The default query,
    ``layers``, searches the student's own space with a head that is fitted after the distillation.

    Args:
        queue: length of a queue; at most the number of rows is used. Default 16384.
        temperature: tau. Default 0.04.
        momentum: of the copy. Default 0.999, as in the paper for half a million steps.
    """

    needs = frozenset({"embeddings"})

    queue: int = 16384
    temperature: float = 0.04
    momentum: float = 0.999

    def __post_init__(self) -> None:
        require_setting(self.queue >= 1, "compress_2q: queue", self.queue, "1 or more")
        require_setting(self.temperature > 0, "compress_2q: temperature", self.temperature, "above 0")
        require_setting(0 <= self.momentum < 1, "compress_2q: momentum", self.momentum, "a share in [0, 1)")

    def begin(self, distillation: Distillation) -> None:
        """Copy the student and make empty queues."""
        keys = distillation.targets.keys
        self._student = distillation.student
        self._slow = copy.deepcopy(distillation.student).requires_grad_(False).eval()
        self._ask_slow = in_precision(self._slow, distillation.precision, keys.device)
        self._queues = _Queues(min(self.queue, len(keys)), keys)
        self._pending: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, step: DistillationStep) -> Tensor:
        """Return the loss term of a batch, a scalar; 0 while the queues are empty."""
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
        """Add the batch to the queues and update the momentum copy, after the gradient no longer needs the queues."""
        if self._pending is not None:
            # Rows of all processes, so that all have the same queues and any of them can write a checkpoint.
            self._queues.add(*of_all_processes(*self._pending))
            self._pending = None
        for slow, moved in zip(self._slow.parameters(), self._student.parameters(), strict=True):
            if moved.requires_grad:
                slow.lerp_(moved, 1 - self.momentum)

    def state_dict(self) -> dict[str, Any]:
        """Return the queues and the trained weights of the momentum copy."""
        moving = {name for name, value in self._student.named_parameters() if value.requires_grad}
        weights = {name: value for name, value in self._slow.state_dict().items() if name in moving}
        return {"queues": self._queues.state_dict(), "slow": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the queues and the momentum copy."""
        self._queues.load_state_dict(state["queues"])
        self._slow.load_state_dict(state["slow"], strict=False)


class _Queues:
    """First-in-first-out queues of row numbers, teacher keys and student embeddings."""

    def __init__(self, length: int, like: Tensor) -> None:
        self.rows = torch.zeros(length, dtype=torch.int64, device=like.device)
        self.teacher = like.new_zeros(length, like.shape[1])
        self.student = torch.zeros_like(self.teacher)
        self.added = 0

    def filled(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return row numbers [a], the teacher's keys [a, d] and the student's [a, d], as views."""
        count = min(self.added, len(self.rows))
        return self.rows[:count], self.teacher[:count], self.student[:count]

    def add(self, rows: Tensor, teacher: Tensor, student: Tensor) -> None:
        """Replace the oldest rows by a batch, or by its last rows if it is longer than the queues."""
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
