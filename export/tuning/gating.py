"""Certifying the gate's threshold on held-out rows.

A row is a loss of the threshold t where the gate leaves it to the student (largest probability at least t), the
student is wrong, and the blend would have been right. The accuracy that the gate costs is at most the rate of losses
R(t), which can only fall as t rises. The thresholds are tested from the highest down, each by the exact binomial test
of R(t) > epsilon at level delta, and the last one before the first failure is taken: as a fixed sequence of tests, the
procedure as a whole errs with probability delta at most (Learn then Test, Angelopoulos et al. 2021). That the
thresholds are the rows' own changes nothing: losses only grow on the way down, so that whoever goes too far has also
passed the highest threshold that costs more than epsilon, and that one does not depend on the rows.

What it does not cover: texts of another kind than the held-out rows, neighbours that the knowledge base gets later, and
that the blend was tuned on the same rows, where it therefore looks better than elsewhere, and the gate as a rule worse.
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
    """What a gate must keep to: at most ``epsilon`` accuracy lost, with confidence ``1 - delta``.

    Raises:
        UsageError: one of them is not above 0 and at most 1.
    """

    epsilon: float = 0.005
    delta: float = 0.05

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise UsageError(f"the gate's {name} is unusable", found=value, expected="more than 0, at most 1")


def certify(
    student: NDArray[np.floating],
    blend: NDArray[np.floating],
    gold: NDArray[np.integer],
    groups: NDArray[np.integer] | None = None,
    certificate: Certificate = Certificate(),
) -> Gate | None:
    """The lowest threshold that keeps to the certificate; None where the rows are too few or too many are lost.

    Where the student's share of every row is 1 the two never differ, and the student may always answer alone.

    Args:
        student: [n, c], the student's calibrated probabilities.
        blend: [n, c], those of the blend with neighbours from a knowledge base without these rows.
        gold: [n], class indices.
        groups: [n], of related rows: the test counts one of each, since it needs independent ones. Default: all are.
        certificate: epsilon and delta.
    """
    if len(gold) and np.array_equal(student, blend):
        return Gate(0.0, certificate.epsilon, certificate.delta, len(gold), 0, 0.0)
    # Rounded as the edge computes it: what is 1 to float32 is one value there, however far from 1 it is here.
    sure = student.max(axis=1, initial=0.0).astype(np.float32).astype(np.float64)
    lost = (student.argmax(axis=1) != gold) & (blend.argmax(axis=1) == gold) if len(gold) else gold != gold
    one_each = np.arange(len(gold)) if groups is None else np.unique(groups, return_index=True)[1]
    tested, rows = sure[one_each], len(one_each)
    # Highest first; all rows of one threshold come at once, as the gate takes them.
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
    """To six digits, never below: another compiler's last bit shall not open the gate further."""
    return min(1.0, float(np.ceil(threshold * 1e6) / 1e6))


def describe_gate(gate: Gate | None, epsilon: float) -> str:
    """A gate, or that there is none that loses at most ``epsilon``, in words."""
    if gate is None:
        return f"none: too few held-out rows to certify a loss of {epsilon:.2%}, or too many lost"
    return f"retrieves for {gate.retrieved:.1%} of the held-out rows, certified to lose at most {gate.epsilon:.2%}"
