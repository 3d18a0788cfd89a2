"""The abstention policy: a goal as thresholds of the rejection score, applied to predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import UsageError
from ..decision.abstention import Abstention
from ..decision.abstention_goal import Abstain, checked_abstain
from ..decision.rejection_score import Tails
from .prediction import Prediction


@dataclass(frozen=True)
class AbstentionPolicy:
    """A goal as thresholds: of answers with neighbours, and without."""

    tails: Tails
    blend: float
    student: float

    def judged(self, answer: Prediction) -> Prediction:
        """The answer with its doubt, and with the reason where it is to be abstained from."""
        value, most = self.tails.rejection_score(answer)
        threshold = self.blend if answer.retrieved else self.student
        return replace(answer, rejection_score=value, abstention=most if value > threshold else None)


def policy_for(abstention: Abstention | None, abstain: Abstain | str, path: Path, retrieves: bool) -> AbstentionPolicy:
    """The judge of a bundle for a goal.

    Args:
        abstention: the bundle's.
        abstain: the goal.
        path: the bundle, for messages.
        retrieves: whether answers will have neighbours. Of those that have none nevertheless, because a budget is used
            up, none is given where the student alone cannot keep to the goal.

    Raises:
        UsageError: the bundle has no thresholds, or none for this goal.
    """
    goal = checked_abstain(abstain)
    if abstention is None:
        raise UsageError(
            "the bundle does not know when to abstain",
            path=path,
            expected="an abstention section in the manifest",
            remedy="Export it again with this version; or leave out abstain and look at the probabilities.",
        )
    try:
        student = abstention.student.threshold(goal)
    except UsageError:
        if not retrieves:
            raise
        student = -1.0  # below every doubt
    return AbstentionPolicy(abstention.tails, abstention.blend.threshold(goal) if retrieves else student, student)
