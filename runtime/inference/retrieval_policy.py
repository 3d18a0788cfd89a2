"""The retrieval policy: decides for each text, after the student's run, whether to search the knowledge base.

One rule combines the retrieval mode, the gate (`decision.gating`) and the latency budget (`latency_budget`). Abstention
needs the neighbours of every text, so its policy has no gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from ...errors import UsageError
from ..decision.blend_config import BlendConfig
from ..decision.gating import Gate
from .latency_budget import Budget

Name = TypeVar("Name", bound=str)

RetrievalMode = Literal["always", "gated", "never"]
RETRIEVAL_MODES: tuple[RetrievalMode, ...] = ("always", "gated", "never")

SearchMethod = Literal["auto", "graph", "usearch"]
SEARCH_METHODS: tuple[SearchMethod, ...] = ("auto", "graph", "usearch")

Reason = Literal["never", "empty", "weight", "sure", "budget"]
"""Why nothing was retrieved: the runtime was opened with ``"never"``, the knowledge base is empty, the blend gives
neighbours no weight, the student was sure enough for the gate, or a search would have exceeded the latency budget."""


@dataclass(frozen=True, slots=True)
class RetrievalPolicy:
    """A rule that decides whether to search.

    Attributes:
        off: the reason to search for no text at all; None to decide for each text.
        threshold: the student answers alone if its largest probability is at least this; None for no gate.
        budget: the latency budget; None for no limit.
    """

    off: Reason | None = None
    threshold: float | None = None
    budget: Budget | None = None

    def reason_to_skip(self, probability: float, spent_ns: int) -> Reason | None:
        """Why not to search for one text; None to search.

        Args:
            probability: the student's largest probability.
            spent_ns: nanoseconds spent on the text so far.
        """
        if self.off is not None:
            return self.off
        if self.threshold is not None and probability >= self.threshold:
            return "sure"
        if self.budget is not None and not self.budget.affords(spent_ns):
            return "budget"
        return None

    def learn(self, search_ns: int | None) -> None:
        """Update the budget's estimate with the time of search and blend; None if they were skipped."""
        if self.budget is not None:
            self.budget.learn(search_ns)


def retrieval_policy(
    mode: RetrievalMode, rows: int, gate: Gate | None, budget: Budget | None, weighs: bool = True
) -> RetrievalPolicy:
    """The policy of a runtime.

    Args:
        mode: the retrieval mode; ``"gated"`` without a gate retrieves for every text.
        rows: rows of the knowledge base.
        gate: the gate in force; None if there is none, or if abstention needs the neighbours of every text.
        budget: the latency budget; None for no limit.
        weighs: whether neighbours can change an answer.
    """
    off: Reason | None = "never" if mode == "never" else "empty" if not rows else None if weighs else "weight"
    return RetrievalPolicy(off, gate.threshold if mode == "gated" and gate is not None else None, budget)


def has_weight(config: BlendConfig) -> bool:
    """Whether the blend gives neighbours any weight."""
    return config.weight is not None or config.student_weight < 1.0


def checked_mode(retrieval: object) -> RetrievalMode:
    """The retrieval mode with this name.

    Raises:
        UsageError: there is no such mode.
    """
    return _checked(retrieval, RETRIEVAL_MODES, "the retrieval mode is unknown")


def checked_search(search: object) -> SearchMethod:
    """The search method with this name.

    Raises:
        UsageError: there is no such method.
    """
    return _checked(search, SEARCH_METHODS, "the search method is unknown")


def _checked(value: object, names: tuple[Name, ...], message: str) -> Name:
    for name in names:
        if isinstance(value, str) and value == name:
            return name
    *first, last = map(repr, names)
    raise UsageError(message, found=repr(value), expected=f"{', '.join(first)} or {last}")
