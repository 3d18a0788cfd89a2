"""Certify the threshold of the retrieval gate on held-out rows.

A row is a loss at threshold t if the student answers it alone (its largest probability is at least t) and is wrong,
and the blend would have been right. The accuracy loss of the gate is at most the loss rate R(t), which does not
increase with t. The thresholds are tested from the highest down, each by the exact binomial test of R(t) > epsilon at
level delta, and the last one before the first failure is used. Because the sequence of tests is fixed, the error
probability of the procedure is at most delta (Learn then Test, Angelopoulos et al. 2021). This holds although the
thresholds come from the rows: losses increase as t decreases, so a threshold that is too low is reached only after the
highest threshold with R(t) > epsilon has passed its test, and that threshold does not depend on the rows.

Not covered: texts unlike the held-out rows, rows added to the knowledge base later, and the tuning of the blend on the
same rows, which makes the blend look better there than elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from ...errors import UsageError
from ...runtime.decision.gating import Gate


@dataclass(frozen=True)
class Certificate:
    """The bounds of a gate: at most ``epsilon`` accuracy lost, with confidence ``1 - delta``.

    Raises:
        UsageError: a value is not above 0 and at most 1.
    """

    epsilon: float = 0.005
    delta: float = 0.05

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise UsageError(f"the gate's {name} is out of range", found=value, expected="more than 0, at most 1")

    @classmethod
    def of(cls, gate: Gate | None) -> Certificate:
        """Return the bounds of a gate, or the default ones for None."""
        return cls() if gate is None else cls(gate.epsilon, gate.delta)

    def possible(self, rows: int) -> bool:
        """Return whether so many independent rows prove the bounds if none of them is a loss."""
        return bool((1 - self.epsilon) ** rows <= self.delta)


def certify(
    student: NDArray[np.floating],
    blend: NDArray[np.floating],
    gold: NDArray[np.integer],
    groups: NDArray[np.integer] | None = None,
    certificate: Certificate = Certificate(),
) -> Gate | None:
    """Find the lowest certified threshold; None if there are too few rows or too many losses.

    If the mixture weight of all rows is 1, student and blend are equal and the threshold is 0.

    Args:
        student: [n, c], the student's calibrated probabilities.
        blend: [n, c], the blend's probabilities, with neighbours from a knowledge base without these rows.
        gold: [n], class indices.
        groups: [n], groups of related rows; the test needs independent rows and uses one row of each group. Default:
            all rows are independent.
        certificate: epsilon and delta.
    """
    if len(gold) and np.array_equal(student, blend):
        return Gate(0.0, certificate.epsilon, certificate.delta, len(gold), 0, 0.0)
    # Rounded as the runtime computes it: values that round to 1 in float32 are equal there.
    sure = student.max(axis=1, initial=0.0).astype(np.float32).astype(np.float64)
    lost = (student.argmax(axis=1) != gold) & (blend.argmax(axis=1) == gold) if len(gold) else gold != gold
    one_each = np.arange(len(gold)) if groups is None else np.unique(groups, return_index=True)[1]
    tested, rows = sure[one_each], len(one_each)
    # Highest first; rows with the same value are treated alike by the gate.
    thresholds = np.unique(tested)[::-1]
    losses = np.array([(lost[one_each] & (tested >= threshold)).sum() for threshold in thresholds])
    passed = binom.cdf(losses, rows, certificate.epsilon) <= certificate.delta
    count = len(passed) if passed.all() else int(np.argmin(passed))
    if count == 0:
        return None
    threshold = _rounded_up(float(thresholds[count - 1]))
    return Gate(
        threshold,
        certificate.epsilon,
        certificate.delta,
        rows,
        int(losses[count - 1]),
        float((sure < threshold).mean()),
    )


def _rounded_up(threshold: float) -> float:
    """Round up to six digits, so that rounding on another machine does not lower the threshold."""
    return min(1.0, float(np.ceil(threshold * 1e6) / 1e6))


def describe_gate(gate: Gate | None, epsilon: float, rows: str = "held-out rows") -> str:
    """Describe a gate for the terminal.

    Args:
        gate: the gate; None if there is none.
        epsilon: the loss to certify.
        rows: which rows certify it.
    """
    if gate is None:
        return f"none: too few {rows} to certify a loss of {epsilon:.2%}, or too many losses"
    return f"retrieves for {gate.retrieved:.1%} of the {rows}, certified to lose at most {gate.epsilon:.2%}"
