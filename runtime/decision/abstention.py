"""The abstention rule: a text is left unanswered if its rejection score is above the threshold of a goal.

The score is in `rejection_score`, the fitted thresholds in `abstention_thresholds`, the goal in `abstention_goal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError
from .abstention_goal import Abstain, checked_abstain
from .abstention_thresholds import Abstention
from .rejection_score import Floats, Signal, Tails

_BELOW_EVERY_SCORE = -1.0
_MOST_POLICIES = 32


@dataclass(frozen=True)
class AbstentionPolicy:
    """The thresholds of one goal.

    Attributes:
        tails: the held-out distributions that the score is computed from.
        blend: the threshold for answers with neighbours.
        student: the threshold for answers of the student alone.
    """

    tails: Tails
    blend: float
    student: float

    def decide(
        self, student: Floats, retrieved: Floats | None, similarities: Floats, edited: tuple[float, float]
    ) -> tuple[float, Signal | None]:
        """The rejection score of one answer, and its largest signal if the text is to be left unanswered.

        Args:
            student: [c], the student's probabilities.
            retrieved: [c], the neighbours' probabilities; None without neighbours.
            similarities: [k], descending; not read without neighbours.
            edited: same as `Tails.rejection_score`.
        """
        score, signal = self.tails.rejection_score(student, retrieved, similarities, edited)
        threshold = self.student if retrieved is None else self.blend
        return score, signal if score > threshold else None


class AbstentionPolicies:
    """The abstention policies of a bundle: each goal is looked up once.

    Args:
        path: the bundle, for error messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[Abstain | str, bool], AbstentionPolicy] = {}

    def policy(self, abstention: Abstention | None, abstain: Abstain | str, retrieves: bool) -> AbstentionPolicy:
        """`policy_for` this bundle."""
        found = self._known.get((abstain, retrieves)) if isinstance(abstain, Abstain | str) else None
        if found is None:
            found = policy_for(abstention, abstain, self._path, retrieves)
            if len(self._known) >= _MOST_POLICIES:
                self._known.clear()
            self._known[abstain, retrieves] = found
        return found


def policy_for(abstention: Abstention | None, abstain: Abstain | str, path: Path, retrieves: bool) -> AbstentionPolicy:
    """The abstention policy of a bundle for a goal.

    Args:
        abstention: the bundle's thresholds; None if it has none.
        abstain: the goal.
        path: the bundle, for error messages.
        retrieves: whether answers have neighbours. A budget may still skip some searches: those texts are abstained
            from if the student alone cannot meet the goal.

    Raises:
        UsageError: the bundle has no thresholds, or none for this goal.
    """
    goal = checked_abstain(abstain)
    if abstention is None:
        raise UsageError(
            "the bundle has no abstention thresholds",
            path=path,
            expected="an abstention section in the manifest",
            remedy="Export it again with this version; or leave out abstain and use the probabilities.",
        )
    try:
        student = abstention.student.threshold(goal)
    except UsageError:
        if not retrieves:
            raise
        student = _BELOW_EVERY_SCORE
    return AbstentionPolicy(abstention.tails, abstention.blend.threshold(goal) if retrieves else student, student)
