from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta

from reaugkd.errors import UsageError
from reaugkd.export.tuning.gating import Certificate, certify
from reaugkd.runtime.decision.gating import Gate

CERTIFICATE = Certificate(0.02, 0.1)


@pytest.mark.parametrize("wrong", [(0.0, 0.1), (float("nan"), 0.1), (0.1, 1.5), (-1.0, 0.1)])
def test_a_certificate_that_cannot_be_meant(wrong: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="more than 0, at most 1"):
        Certificate(*wrong)


Floats = NDArray[np.float64]


def answers(sure: list[float], right: list[bool]) -> Floats:
    """[n, 2]: the student's confidence, in class 0 where it is right (gold is 0 everywhere)."""
    p = np.array(sure)[:, None]
    pairs = np.concatenate([p, 1 - p], axis=1)
    return np.where(np.array(right)[:, None], pairs, pairs[:, ::-1])


def certified(
    sure: list[float], student: list[bool], blend: list[bool], groups: list[int] | None = None
) -> Gate | None:
    """Gates of rows with given right and wrong answers of the blend."""
    blends = answers([0.9] * len(blend), blend)
    return certify(
        answers(sure, student),
        blends,
        np.zeros(len(sure), int),
        None if groups is None else np.array(groups),
        CERTIFICATE,
    )


def reference(sure: list[float], lost: list[bool], certificate: Certificate) -> float | None:
    """The lowest threshold from the top whose Clopper-Pearson bound on the rate of losses is at most epsilon."""
    found, n = None, len(sure)
    for threshold in sorted(set(sure), reverse=True):
        k = sum(one and p >= threshold for p, one in zip(sure, lost, strict=True))
        upper = 1.0 if k == n else float(beta.ppf(1 - certificate.delta, k + 1, n - k))
        if upper > certificate.epsilon:
            break
        found = threshold
    return found


sures = st.integers(51, 100).map(lambda p: float(np.float32(p / 100)))
rows = st.tuples(sures, st.booleans(), st.sampled_from([True] * 30 + [False]))


@given(st.lists(rows, min_size=100, max_size=400))
def test_against_the_bound_of_clopper_and_pearson(drawn: list[tuple[float, bool, bool]]) -> None:
    sure = [p for p, _, _ in drawn]
    student = [right for _, _, right in drawn]  # seldom wrong
    blend = [right for _, right, _ in drawn]
    lost = [b and not s for s, b in zip(student, blend, strict=True)]
    found = certified(sure, student, blend)
    expected = reference(sure, lost, CERTIFICATE)
    if expected is None:
        assert found is None
        return
    assert found is not None and found.threshold == pytest.approx(expected, abs=1e-6) and found.threshold >= expected
    assert found.losses == sum(one and p >= expected for p, one in zip(sure, lost, strict=True))
    assert found.rows == len(sure)
    assert found.retrieved == np.mean(np.array(sure) < found.threshold)


def test_too_few_rows_certify_nothing() -> None:
    """Without a single loss, 0.98^n <= 0.1 needs 114 rows."""
    for n, certain in ((113, False), (114, True)):
        found = certified([0.9] * n, [True] * n, [True] * (n - 1) + [False])
        assert (found is not None) is certain


def test_the_certificate_holds_on_new_rows() -> None:
    """Whether the true rate of losses exceeds epsilon, over many draws: in a share delta of them at most.

    A row of confidence p is a loss with chance (1 - p) / 2, so the true rate at a threshold t is (1 - t)^2 / 2 for
    confidences uniform in [0.5, 1].
    """
    rng = np.random.default_rng(0)
    exceeded = 0
    for _ in range(400):
        sure = 0.5 + rng.random(500) / 2
        lost = rng.random(500) < (1 - sure) / 2
        student = answers(list(sure), list(~lost))
        blend = answers([0.9] * 500, [True] * 500)
        found = certify(student, blend, np.zeros(500, int), None, CERTIFICATE)
        exceeded += found is not None and (1 - found.threshold) ** 2 / 2 > CERTIFICATE.epsilon
    assert exceeded <= 400 * CERTIFICATE.delta + 2 * np.sqrt(400 * 0.1 * 0.9)


def test_related_rows_count_once() -> None:
    n = 120
    fine = [True] * n
    blend = [True] * (n - 1) + [False]
    assert certified([0.9] * n, fine, blend, list(range(n))) is not None
    assert certified([0.9] * n, fine, blend, [number // 2 for number in range(n)]) is None


def test_equal_answers_give_threshold_0() -> None:
    p = answers([0.6, 0.9, 0.7], [True, False, True])
    found = certify(p, p.copy(), np.zeros(3, int))
    assert found == Gate(0.0, 0.005, 0.05, 3, 0, 0.0)


def test_confidence_is_computed_as_in_the_runtime() -> None:
    """All of these are 1 to float32: the gate takes them together, so the 20 losses among them are not to be missed."""
    sure = [1 - 1e-12] * 380 + [1 - 1e-10] * 20
    student = [True] * 380 + [False] * 20
    assert {float(np.float32(p)) for p in sure} == {1.0}
    assert certified(sure, student, [True] * 400) is None
    assert certified(sure, [True] * 400, [True] * 399 + [False]) is not None


def test_no_rows_no_gate() -> None:
    assert certify(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, int)) is None
