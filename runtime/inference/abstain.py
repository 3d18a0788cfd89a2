"""The abstention policy: thresholds of the rejection score, applied to predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import UsageError
from ..decision.abstention import Abstention
from ..decision.abstention_goal import Abstain, checked_abstain
from ..decision.rejection_score import Tails
from .prediction import Prediction

_BELOW_EVERY_SCORE = -1.0


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

    def apply(self, answer: Prediction) -> Prediction:
        """The answer with its rejection score, and with `abstention` set if the score is above the threshold."""
        score, signal = self.tails.rejection_score(
            answer.student_probabilities, answer.retrieval_probabilities, answer.similarities, answer.edited
        )
        threshold = self.blend if answer.retrieved else self.student
        return replace(answer, rejection_score=score, abstention=signal if score > threshold else None)


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
