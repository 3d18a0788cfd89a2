"""DiSK (Kag et al., ICLR 2023): a scaffold g(x) helps the student where it fails, in training only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm, logsigmoid, one_hot

from ..modeling.distributed import of_all_processes
from ..modeling.seeds import mix_seed
from .base import Distillation, DistillationStep, Objective
from .registry import register, require_setting

_HIDDEN = 64  # units of g
_STREAM = -1  # no step's number: g's first weights come from a seed of their own
# From the authors' code, as are the defaults below where it is said.
_MAX_CE = 5.0
_PENALTY = (1.0, 5.0)
_CYCLE = 20  # phases in which the budget goes from its first to its last value


class Helper(nn.Module):
    """g: the teacher's embedding [n, hidden] to log g [n], g in (0, 1); a small network, not the authors' conv head."""

    def __init__(self, hidden: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix_seed(seed, _STREAM))
            self.inner = nn.Linear(hidden, _HIDDEN)
            self.outer = nn.Linear(_HIDDEN, 1)

    def forward(self, embedding: Tensor) -> Tensor:
        """Log g, so that rounding cannot make g 0."""
        inner = self.inner(layer_norm(embedding, embedding.shape[-1:])).relu()
        return logsigmoid(self.outer(inner).squeeze(-1))


@dataclass(frozen=True)
class Taught:
    """The teacher's terms for n rows, shared by the student's loss and the loss of g.

    Args:
        target: [n, c], t: the tempered teacher within its classes, as coded not normalised again.
        classes: [n, c], m: the teacher's top K and the gold one.
    """

    target: Tensor
    classes: Tensor


def taught_by(teacher_logits: Tensor, labels: Tensor, top: int, temperature: float) -> Taught:
    """The mask m = top-K or gold, and t = m * softmax(m * l / tau_T + (1 - m) * min_c l)."""
    count = teacher_logits.shape[-1]
    classes = one_hot(labels, count).bool()
    classes = classes.scatter(-1, teacher_logits.topk(min(top, count), dim=-1).indices, True)
    least = teacher_logits.amin(dim=-1, keepdim=True)
    target = torch.where(classes, teacher_logits / temperature, least).softmax(dim=-1)
    return Taught(target.masked_fill(~classes, 0.0), classes)


def helped_loss(log_student: Tensor, log_help: Tensor | None, taught: Taught) -> Tensor:
    """-mean_i sum_y t_y log(s_y + g m_y), computed from logarithms: s and g may both be as good as 0.

    Args:
        log_student: [n, c], log s.
        log_help: [n], log g; None for g = 0.
        taught: t and m.
    """
    if log_help is not None:
        helped = torch.logaddexp(log_student, log_help.unsqueeze(-1))
        log_student = torch.where(taught.classes, helped, log_student)
    return -(taught.target * log_student).sum(dim=-1).mean()


def budget_excess(
    student_logits: Tensor, help_: Tensor, teacher_logits: Tensor, labels: Tensor, budget: float
) -> Tensor:
    """relu((1/n_wrong) sum_i g_i * min(CE_i, max) - budget), n_wrong the rows that the student gets wrong, at least 1.

    As in the authors' code, except that the divisor is at least 1: theirs is 0 if no row is wrong. CE_i is between the
    student and the teacher's class, and the sum is over all rows, so that fewer wrong rows mean less help.
    """
    wrong = (student_logits.argmax(dim=-1) != labels).sum()
    loss = cross_entropy(student_logits, teacher_logits.argmax(dim=-1), reduction="none").clamp(max=_MAX_CE)
    return ((help_ * loss).sum() / wrong.clamp(min=1) - budget).relu()


def _cosine(first: float, last: float, phase: int) -> float:
    """From ``first`` to ``last`` by a half cosine over a cycle of phases, then again."""
    return last + (first - last) * (1 + math.cos(math.pi * (phase % _CYCLE) / _CYCLE)) / 2


@register("disk")
@dataclass
class Scaffold(Objective):
    """soft_weight * tau_S tau_T * -mean_i sum_y t_y log(s_y + g(x_i) m_y) + hard_weight * CE(student, gold).

    Where g is large the student is excused; a budget on its help and a price keep it small. Equations of the authors'
    poster and code, published on images only. It takes the place of the soft labels.

    Student and g take turns by phases of ``period`` steps. In a phase the student learns with g fixed, and its logits
    are kept; then g takes as many steps of Adam on them, the student fixed as it was when it answered. In the first
    phase, g's warm-up, the student learns without help (g = 0). g is not part of the student: nothing of it is saved
    with it, and its only extra cost is its own small network's. Several processes share what they kept, so that all
    have the same g.

    The loss of g: soft_weight * tau_S tau_T * the same first term + lambda * budget_excess + soft_weight * mean_i
    log(1 + K g_i). By a cosine over 20 phases lambda goes from 1 to 5 and delta from ``budget`` to ``last_budget``,
    then again (the authors': 50 and 20 epochs, delta falling further by the cycle, lambda with a dual update too).

    Args:
        teacher_temperature: tau_T. Default 4, the authors'.
        student_temperature: tau_S. Default 3.5, the authors'.
        soft_weight: default 0.9, the authors' l_nll.
        hard_weight: default 0.1, the authors' l_aux.
        top: K, at most all classes. Default 10, the authors' for 100 classes.
        budget: delta at first. Default 0.6, the authors'.
        last_budget: delta at last. Default 0.4, the authors'.
        period: steps of a phase. Default 50 (the authors': 3 epochs).
        learning_rate: of g's Adam. Default 0.001 (the authors use SGD).
    """

    teacher_temperature: float = 4.0
    student_temperature: float = 3.5
    soft_weight: float = 0.9
    hard_weight: float = 0.1
    top: int = 10
    budget: float = 0.6
    last_budget: float = 0.4
    period: int = 50
    learning_rate: float = 1e-3
    _distillation: Distillation | None = field(default=None, init=False, repr=False, compare=False)
    _phase: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("teacher_temperature", "student_temperature", "learning_rate"):
            require_setting(getattr(self, name) > 0, f"disk: {name}", getattr(self, name), "above 0")
        for name in ("soft_weight", "hard_weight", "budget", "last_budget"):
            require_setting(getattr(self, name) >= 0, f"disk: {name}", getattr(self, name), "0 or more")
        for name in ("top", "period"):
            require_setting(getattr(self, name) >= 1, f"disk: {name}", getattr(self, name), "1 or more")

    def begin(self, distillation: Distillation) -> None:
        """Make g, from the run's seed."""
        embeddings = distillation.targets.teacher_embeddings
        self._distillation = distillation
        self._helper = Helper(embeddings.shape[1], distillation.seed).to(embeddings.device, embeddings.dtype)
        self._optimizer = torch.optim.Adam(self._helper.parameters(), lr=self.learning_rate)
        self._phase = 0
        self._kept: list[tuple[Tensor, ...]] = []
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, step: DistillationStep) -> Tensor:
        """The term for a batch, a scalar."""
        self._last = step.rows, step.student_logits.detach()
        taught = taught_by(step.teacher_logits, step.labels, self.top, self.teacher_temperature)
        with torch.no_grad():
            log_help = self._helper(step.teacher_embedding) if self._phase else None
        return self._soft(step.student_logits, log_help, taught) + self.hard_weight * cross_entropy(
            step.student_logits, step.labels
        )

    def after_step(self) -> None:
        """Keep the batch; at the end of a phase let g take its turn."""
        assert self._last is not None
        self._kept.append(of_all_processes(*self._last))
        self._last = None
        if len(self._kept) == self.period:
            for rows, logits in self._kept:
                self._update_helper(rows, logits)
            self._kept = []
            self._phase += 1

    def state_dict(self) -> dict[str, Any]:
        """g, its Adam, the phase and the batches kept of it."""
        return {
            "helper": self._helper.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "phase": self._phase,
            "kept": [list(pair) for pair in self._kept],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume within the phase."""
        self._helper.load_state_dict(state["helper"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._phase = state["phase"]
        device = self._helper.inner.weight.device
        self._kept = [(rows.to(device), logits.to(device)) for rows, logits in state["kept"]]

    def _soft(self, student_logits: Tensor, log_help: Tensor | None, taught: Taught) -> Tensor:
        log_student = (student_logits / self.student_temperature).log_softmax(dim=-1)
        scale = self.soft_weight * self.student_temperature * self.teacher_temperature
        return scale * helped_loss(log_student, log_help, taught)

    def _update_helper(self, rows: Tensor, student_logits: Tensor) -> None:
        self._optimizer.zero_grad()
        self.helper_loss(rows, student_logits).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def helper_loss(self, rows: Tensor, student_logits: Tensor) -> Tensor:
        """The loss of g on rows [n] of the targets, given the student's outputs for them, [n, c]."""
        assert self._distillation is not None
        targets = self._distillation.targets
        teacher_logits, labels = targets.teacher_logits[rows], targets.labels[rows]
        log_help: Tensor = self._helper(targets.teacher_embeddings[rows])
        help_ = log_help.exp()
        taught = taught_by(teacher_logits, labels, self.top, self.teacher_temperature)
        budget = _cosine(self.budget, self.last_budget, self._phase)
        excess = budget_excess(student_logits, help_, teacher_logits, labels, budget)
        price = (min(self.top, teacher_logits.shape[-1]) * help_).log1p().mean()
        return (
            self._soft(student_logits, log_help, taught)
            + _cosine(*_PENALTY, self._phase) * excess
            + self.soft_weight * price
        )
