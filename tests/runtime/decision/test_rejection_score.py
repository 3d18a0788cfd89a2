"""The signals computed by hand, the tails by counting, and one answer's score against the batch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_bundle import tiny_texts

from reaugkd import Runtime, UsageError
from reaugkd.runtime.decision.rejection_score import (
    SURVIVAL,
    EmpiricalSurvival,
    Tails,
    disagreement,
    distance,
    uncertainty,
)

values = st.lists(st.floats(0, 100), min_size=1, max_size=60)


def test_the_signals_by_hand() -> None:
    assert distance(np.array([0.9, 0.8, 0.7, 0.6, -1.0])) == pytest.approx(0.25)
    assert distance(np.array([0.9, 0.5])) == pytest.approx(0.3)
    assert uncertainty(np.array([0.5, 0.5])) == pytest.approx(2 * 0.25**0.1)
    assert uncertainty(np.array([1.0, 0.0])) == 0.0
    assert uncertainty(np.array([1.0000001, 0.0], np.float32)) == 0.0  # what rounding leaves is no number's root
    assert disagreement(np.array([0.7, 0.3]), np.array([0.2, 0.8])) == pytest.approx(1 - 0.14 - 0.24)


def test_the_signals_of_many_are_those_of_each() -> None:
    rng = np.random.default_rng(3)
    student, retrieved = rng.dirichlet(np.ones(5), 7), rng.dirichlet(np.ones(5), 7)
    near = -np.sort(-rng.random((7, 6)), axis=1)
    np.testing.assert_allclose(distance(near), [distance(row) for row in near])
    np.testing.assert_allclose(uncertainty(student), [uncertainty(row) for row in student])
    both = zip(student, retrieved, strict=True)
    np.testing.assert_allclose(disagreement(student, retrieved), [disagreement(*two) for two in both])


@given(values)
def test_a_tail_is_the_share_of_rows_at_least_as_large(found: list[float]) -> None:
    """At the stored quantiles, within the step between two of them."""
    tail = EmpiricalSurvival.of(np.array(found))
    least = min(level for level in SURVIVAL if level * (len(found) + 1) >= 1)
    for value, p in zip(tail.values, tail.p, strict=True):
        assert p in SURVIVAL
        share = np.mean(np.array(found) >= value - 1e-8)
        assert p <= max(share + 1 / len(found), least) + 1e-9
        assert tail.neg_log_p(value) == pytest.approx(-math.log(p))


@given(values, st.floats(-10, 120), st.floats(0, 50))
def test_surprise_only_rises(found: list[float], value: float, more: float) -> None:
    tail = EmpiricalSurvival.of(np.array(found))
    assert 0 <= tail.neg_log_p(value) <= tail.neg_log_p(value + more) + 1e-12
    assert tail.neg_log_p(value) == pytest.approx(float(tail.neg_log_ps(np.array([value]))[0]), abs=1e-9)


def test_the_largest_surprise_is_that_of_the_rows_there_were() -> None:
    assert EmpiricalSurvival.of(np.arange(5000.0)).neg_log_p(1e9) == pytest.approx(-math.log(0.001))
    assert EmpiricalSurvival.of(np.arange(99.0)).neg_log_p(1e9) == pytest.approx(-math.log(0.01))
    assert EmpiricalSurvival.of(np.array([3.0])).neg_log_p(1e9) == pytest.approx(-math.log(0.5))


@pytest.mark.parametrize(
    ("numbers", "shares"),
    [
        ((), ()),
        ((1.0,), ()),
        ((2.0, 1.0), (1.0, 0.5)),
        ((1.0, 2.0), (0.5, 1.0)),
        ((1.0,), (0.0,)),
        ((1.0,), (1.1,)),
        ((math.nan,), (1.0,)),
    ],
)
def test_numbers_that_are_no_tail(numbers: tuple[float, ...], shares: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="quantiles are unusable"):
        EmpiricalSurvival(numbers, shares)


def test_an_answers_score_is_the_weighted_sum_of_logarithms(edge_bundle: Path) -> None:
    """Compared with the formula in float64, from the answer's own numbers."""
    rng = np.random.default_rng(1)
    tails = Tails(
        EmpiricalSurvival.of(rng.random(300)),
        EmpiricalSurvival.of(rng.random(300) * 5),
        EmpiricalSurvival.of(rng.random(300)),
    )
    with Runtime.open(edge_bundle) as runtime:
        for text in tiny_texts(30, seed=5):
            answer = runtime.predict(text)
            assert answer.retrieval_probabilities is not None
            student = answer.student_probabilities.astype(np.float64)
            retrieved = answer.retrieval_probabilities.astype(np.float64)
            near = [one.similarity for one in answer.neighbours][:4]
            parts = {
                "distance": tails.distance.neg_log_p(1 - sum(near) / 4),
                "uncertainty": tails.uncertainty.neg_log_p(float(((student * (1 - student)) ** 0.1).sum())),
                "disagreement": 0.5 * tails.disagreement.neg_log_p(float(1 - student @ retrieved)),
            }
            found = tails.rejection_score(
                answer.student_probabilities, answer.retrieval_probabilities, answer.similarities
            )
            assert found.value == pytest.approx(sum(parts.values()), abs=1e-4)
            assert parts[found.signal] == pytest.approx(max(parts.values()), abs=1e-4)
            many = tails.rejection_scores(student[None], retrieved[None], answer.similarities[None].astype(np.float64))
            assert found.value == pytest.approx(float(many[0]), abs=1e-4)
            only = runtime.with_retrieval("never").predict(text)
            alone = tails.rejection_score(only.student_probabilities, None, only.similarities)
            assert alone.signal == "uncertainty" and alone.value == pytest.approx(parts["uncertainty"], abs=1e-4)
            assert alone.value == pytest.approx(float(tails.student_rejection_scores(student[None])[0]), abs=1e-4)
