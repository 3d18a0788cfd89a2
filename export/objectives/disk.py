"""DiSK (Kag et al., ICLR 2023): distillation with a helper network g(x) (scaffold) that is used in training only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm, logsigmoid, one_hot

from ..modeling.execution.distributed import of_all_processes
from ..modeling.execution.seeds import mix_seed
from .base import Distillation, DistillationStep, Objective
from .registry import register, require_setting

_HIDDEN = 64  # units of g
_STREAM = -1  # not a step's number, so that g's initial weights have their own seed
# From the authors' code.
_MAX_CE = 5.0
_PENALTY = (1.0, 5.0)
_CYCLE = 20  # phases from the first to the last value of the budget


class Helper(nn.Module):
    """The helper g: maps the teacher's embedding [n, hidden] to log g [n], with g in (0, 1).

    A small fully connected network; the authors use a convolutional head.
    """

    def __init__(self, hidden: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix_seed(seed, _STREAM))
            self.inner = nn.Linear(hidden, _HIDDEN)
            self.outer = nn.Linear(_HIDDEN, 1)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return log g, so that rounding cannot make g 0."""
        inner = self.inner(layer_norm(embedding, embedding.shape[-1:])).relu()
        return logsigmoid(self.outer(inner).squeeze(-1))


@dataclass(frozen=True)
class Taught:
    """The teacher's terms for n rows, shared by the student's loss and the loss of g.

    Args:
        target: [n, c], t: the teacher's tempered probabilities of the classes m, not normalised (as in the
            authors' code).
        classes: [n, c], m: True for the teacher's top K classes and the gold class.
    """

    target: Tensor
    classes: Tensor


def taught_by(teacher_logits: Tensor, labels: Tensor, top: int, temperature: float) -> Taught:
    """Compute m = top-K or gold, and t = m * softmax(m * l / tau_T + (1 - m) * min_c l).

    Args:
        teacher_logits: [n, c], l.
        labels: [n], gold labels.
        top: K.
        temperature: tau_T.
    """
    count = teacher_logits.shape[-1]
    classes = one_hot(labels, count).bool()
    classes = classes.scatter(-1, teacher_logits.topk(min(top, count), dim=-1).indices, True)
    least = teacher_logits.amin(dim=-1, keepdim=True)
    target = torch.where(classes, teacher_logits / temperature, least).softmax(dim=-1)
    return Taught(target.masked_fill(~classes, 0.0), classes)


def helped_loss(log_student: Tensor, log_help: Tensor | None, taught: Taught) -> Tensor:
    """Compute -mean_i sum_y t_y log(s_y + g m_y) from logarithms, because s and g may both be close to 0.

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
    """Compute relu((1/n_wrong) sum_i g_i * min(CE_i, max) - budget), n_wrong the number of rows the student gets wrong.

    As in the authors' code, except that the divisor is at least 1: theirs is 0 if no row is wrong. CE_i is the
    cross-entropy of the student with the teacher's class. The sum is over all rows, so fewer wrong rows
    allow less help.
    """
    wrong = (student_logits.argmax(dim=-1) != labels).sum()
    loss = cross_entropy(student_logits, teacher_logits.argmax(dim=-1), reduction="none").clamp(max=_MAX_CE)
    return ((help_ * loss).sum() / wrong.clamp(min=1) - budget).relu()


def _cosine(first: float, last: float, phase: int) -> float:
    """Interpolate from ``first`` to ``last`` by a half cosine over each cycle of phases."""
    return last + (first - last) * (1 + math.cos(math.pi * (phase % _CYCLE) / _CYCLE)) / 2


@register("disk")
@dataclass
class Scaffold(Objective):
    """Soft-label cross-entropy in which the helper g adds probability, and cross-entropy with the gold labels.

    soft_weight * tau_S tau_T * -mean_i sum_y t_y log(s_y + g(x_i) m_y) + hard_weight * CE(student, gold).

    A large g reduces the student's loss on a row; a budget and a penalty keep g small. The equations are from the
    authors' poster and code; they report images only. The term includes soft labels, so it replaces ``soft_labels``.

    Student and g are trained in turns, in phases of ``period`` steps. In a phase the student is trained with g fixed,
    and its logits are kept. Then g takes as many steps of Adam on these logits. In the first phase the student is
    trained without help (g = 0). g is not saved with the student. Several processes keep whole batches, so that all
    have the same g.

    The loss of g is soft_weight * tau_S tau_T * the same first term + lambda * budget_excess + soft_weight * mean_i
    log(1 + K g_i). Over each cycle of 20 phases, lambda goes from 1 to 5 and delta from ``budget`` to ``last_budget``
    by a cosine (in the authors' code over 50 and 20 epochs, with a delta that falls from cycle to cycle, and with a
    dual update of lambda).

    Args:
        teacher_temperature: tau_T. Default 4, as in the authors' code.
        student_temperature: tau_S. Default 3.5, as in the authors' code.
        soft_weight: weight of the soft labels. Default 0.9, the authors' l_nll.
        hard_weight: weight of the gold labels. Default 0.1, the authors' l_aux.
        top: K, at most the number of classes. Default 10, as in the authors' code for 100 classes.
        budget: first value of delta. Default 0.6, as in the authors' code.
        last_budget: last value of delta. Default 0.4, as in the authors' code.
        period: number of steps of a phase. Default 50 (the authors: 3 epochs).
        learning_rate: of g's Adam. Default 0.001 (the authors use SGD).
    """

    needs = frozenset({"embeddings"})

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
        """Make g with the run's seed."""
        embeddings = distillation.targets.teacher_embeddings
        self._distillation = distillation
        self._helper = Helper(embeddings.shape[1], distillation.seed).to(embeddings.device, embeddings.dtype)
        self._optimizer = torch.optim.Adam(self._helper.parameters(), lr=self.learning_rate)
        self._phase = 0
        self._kept: list[tuple[Tensor, ...]] = []
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, step: DistillationStep) -> Tensor:
        """Return the loss term of a batch, a scalar."""
        self._last = step.rows, step.student_logits.detach()
        taught = taught_by(step.teacher_logits, step.labels, self.top, self.teacher_temperature)
        with torch.no_grad():
            log_help = self._helper(step.teacher_embedding) if self._phase else None
        return self._soft(step.student_logits, log_help, taught) + self.hard_weight * cross_entropy(
            step.student_logits, step.labels
        )

    def after_step(self) -> None:
        """Keep the batch; at the end of a phase, train g."""
        assert self._last is not None
        self._kept.append(of_all_processes(*self._last))
        self._last = None
        if len(self._kept) == self.period:
            for rows, logits in self._kept:
                self._update_helper(rows, logits)
            self._kept = []
            self._phase += 1

    def state_dict(self) -> dict[str, Any]:
        """Return g, its optimizer, the phase and the kept batches."""
        return {
            "helper": self._helper.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "phase": self._phase,
            "kept": [list(pair) for pair in self._kept],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state within a phase."""
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
        """Compute the loss of g.

        Args:
            rows: [n], indices into the targets.
            student_logits: [n, c], the student's logits for the rows.
        """
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
