"""The weight per example against its formula in Python floats, one text at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reaugkd import UsageError
from reaugkd.runtime.decision.mixture_weight import (
    BucketWeight,
    ExampleWeight,
    LogisticWeight,
)

Row = NDArray[np.float32]
Case = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def features_by_hand(student: Row, retrieved: Row, similarities: Row) -> list[float]:
    def entropy(probabilities: Row) -> float:
        terms = [p * math.log(p) for p in map(float, probabilities) if p > 0]
        return -math.fsum(terms) / math.log(len(probabilities)) if len(probabilities) > 1 else 0.0

    top, last = float(similarities[0]), float(similarities[-1])
    agree = max(range(len(student)), key=lambda label: student[label]) == max(
        range(len(student)), key=lambda label: retrieved[label]
    )
    return [top, top - last, entropy(retrieved), entropy(student), float(agree)]


def logistic_by_hand(weight: LogisticWeight, features: list[float]) -> float:
    terms = [a * x for a, x in zip(weight.coefficients, features, strict=True)]
    return 1 / (1 + math.exp(-math.fsum([weight.intercept, *terms])))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Return student and retrieved [n, c] and similarities [n, k], with certain, uniform and zero probabilities."""
    n, classes, k = draw(st.integers(1, 6)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    concentration = draw(st.sampled_from([0.02, 0.5, 50.0]))
    student, retrieved = rng.dirichlet(np.full(classes, concentration), size=(2, n)).astype(np.float32)
    if draw(st.booleans()):
        retrieved = np.eye(classes, dtype=np.float32)[rng.integers(classes, size=n)]
    if draw(st.booleans()):
        student = np.full((n, classes), 1 / classes, np.float32)
    return student, retrieved, -np.sort(-rng.uniform(-1, 1, size=(n, k))).astype(np.float32)


numbers = st.floats(-8, 8)
logistics = st.builds(LogisticWeight, numbers, st.tuples(*[numbers] * 5))


@st.composite
def buckets(draw: st.DrawFn) -> BucketWeight:
    edges = sorted(draw(st.lists(st.floats(-1, 1), max_size=5, unique=True)))
    weights = draw(st.lists(st.floats(0, 1), min_size=len(edges) + 1, max_size=len(edges) + 1))
    return BucketWeight(tuple(edges), tuple(weights))


def many(weight: ExampleWeight, case: Case) -> NDArray[np.float64]:
    student, retrieved, similarities = case
    return weight.weight_many(student, retrieved, similarities.astype(np.float64))


@settings(max_examples=150, deadline=None)
@given(case=cases(), weight=logistics)
def test_the_logistic_of_one_text_and_of_many_are_the_formula(case: Case, weight: LogisticWeight) -> None:
    alone = [weight.weight(*one) for one in zip(*case, strict=True)]
    assert {type(share) for share in alone} == {float}
    expected = [logistic_by_hand(weight, features_by_hand(*one)) for one in zip(*case, strict=True)]
    np.testing.assert_allclose(alone, expected, atol=2e-5)  # entropies in float32
    np.testing.assert_allclose(many(weight, case), expected, atol=1e-6)


@settings(max_examples=150, deadline=None)
@given(case=cases(), weight=buckets())
def test_the_bucket_of_one_text_and_of_many_is_the_last_whose_edge_is_reached(case: Case, weight: BucketWeight) -> None:
    alone = [weight.weight(*one) for one in zip(*case, strict=True)]
    assert {type(share) for share in alone} == {float}
    reached = [sum(float(row[0]) >= edge for edge in weight.edges) for row in case[2]]
    assert alone == [weight.weights[number] for number in reached]
    assert many(weight, case).tolist() == alone


def test_an_edge_belongs_to_the_range_above_it_and_is_not_rounded() -> None:
    """0.1 as float32 is above 0.1: in float32, NumPy would compare the two wrongly."""
    student = np.full(2, 0.5, np.float32)
    at = np.float32(0.1)
    above, below = float(at), float(np.nextafter(at, np.float32(0)))
    for edge, expected in ((above, 0.2), (below, 0.2), (np.nextafter(above, 1), 0.9), (0.1, 0.2)):
        weight = BucketWeight((float(edge),), (0.9, 0.2))
        assert weight.weight(student, student, np.array([at])) == expected
        assert many(weight, (student[None], student[None], np.array([[at]]))).tolist() == [expected]


def test_each_feature_by_hand() -> None:
    student, retrieved = np.array([0.5, 0.25, 0.25, 0.0], np.float32), np.array([1.0, 0, 0, 0], np.float32)
    similarities = np.array([0.75, 0.5, 0.25], np.float32)
    expected = [0.75, 0.5, 0.0, 0.75, 1.0]  # entropy of the student: 1.5 bits of 2
    for number, feature in enumerate(expected):
        chosen = LogisticWeight(0.0, tuple(4.0 * (at == number) for at in range(5)))  # type: ignore[arg-type]
        share = chosen.weight(student, retrieved, similarities)
        assert math.log(share / (1 - share)) == pytest.approx(4 * feature, abs=1e-6)
    other = LogisticWeight(0.0, (0.0, 0.0, 0.0, 0.0, 4.0))
    assert other.weight(student, retrieved[::-1].copy(), similarities) == 0.5  # they disagree


def test_the_largest_numbers_overflow_nowhere() -> None:
    student = np.array([0.5, 0.5], np.float32)
    for sign, expected in ((1.0, 1.0), (-1.0, 0.0)):
        case = (student[None], student[None], np.array([[1.0]], np.float32))
        huge = sign * 1e6
        weight = LogisticWeight(huge, (huge,) * 5)
        assert weight.weight(student, student, case[2][0]) == expected
        assert many(weight, case).tolist() == [expected]


def test_a_student_that_computes_no_number_gives_no_number() -> None:
    nothing, other = np.array([np.nan, np.nan], np.float32), np.array([0.5, 0.5], np.float32)
    weight = LogisticWeight(0.0, (1.0,) * 5)
    assert math.isnan(weight.weight(nothing, other, np.array([0.5], np.float32)))


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        (BucketWeight, ((0.5, 0.5), (0.1, 0.2, 0.3)), "edges"),
        (BucketWeight, ((0.5, 0.4), (0.1, 0.2, 0.3)), "edges"),
        (BucketWeight, ((float("nan"),), (0.1, 0.2)), "edges"),
        (BucketWeight, ((0.1, float("nan")), (0.1, 0.2, 0.3)), "edges"),
        (BucketWeight, ((float("inf"),), (0.1, 0.2)), "edges"),
        (BucketWeight, ((0.5,), (0.1,)), "weights"),
        (BucketWeight, ((), ()), "weights"),
        (BucketWeight, ((0.5,), (0.1, 0.2, 0.3)), "weights"),
        (BucketWeight, ((0.5,), (0.1, 1.1)), "weights"),
        (BucketWeight, ((0.5,), (-0.1, 1.0)), "weights"),
        (BucketWeight, ((0.5,), (float("nan"), 1.0)), "weights"),
        (LogisticWeight, (float("nan"), (0.0,) * 5), "intercept"),
        (LogisticWeight, (float("-inf"), (0.0,) * 5), "intercept"),
        (LogisticWeight, (0.0, (0.0,) * 4), "coefficients"),
        (LogisticWeight, (0.0, (0.0,) * 6), "coefficients"),
        (LogisticWeight, (0.0, (float("nan"),) * 5), "coefficients"),
        (LogisticWeight, (0.0, (2e6,) * 5), "coefficients"),
    ],
)
def test_unusable_numbers_are_named(kind: Any, values: tuple[object, ...], named: str) -> None:
    with pytest.raises(UsageError, match=f"the weight's {named}"):
        kind(*values)
