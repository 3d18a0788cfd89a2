from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.blending import blend, softmax, softmax_many
from reaugkd.runtime.decision.mixture_weight import BucketWeight, ExampleWeight, LogisticWeight


def softmax_by_hand(values: NDArray[np.floating], temperature: float) -> list[float]:
    top = max(float(value) for value in values)
    exponents = [math.exp((float(value) - top) / temperature) for value in values]
    return [value / math.fsum(exponents) for value in exponents]


def blend_by_hand(
    logits: NDArray[np.floating],
    similarities: NDArray[np.floating],
    soft_labels: NDArray[np.floating],
    config: BlendConfig,
) -> tuple[list[float], list[float]]:
    """p = w softmax(logits / T) + (1 - w) sum_j softmax_j(sim_j / tau) y_j / |y_j|, in Python floats, step by step."""
    student = softmax_by_hand(logits, config.student_temperature)
    weights = softmax_by_hand(similarities, config.tau)
    rows = [[float(value) / math.fsum(map(float, row)) for value in row] for row in soft_labels]
    retrieved = [math.fsum(a * row[c] for a, row in zip(weights, rows, strict=True)) for c in range(len(logits))]
    w = config.student_weight
    return [w * s + (1 - w) * r for s, r in zip(student, retrieved, strict=True)], weights


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float16], BlendConfig]:
    labels, k = draw(st.integers(2, 9)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = (draw(st.sampled_from([0.1, 3.0, 30.0])) * rng.standard_normal(labels)).astype(np.float32)
    similarities = -np.sort(-rng.uniform(-1, 1, k)).astype(np.float32)
    soft_labels = rng.dirichlet(np.full(labels, 0.3), size=k).astype(np.float16)
    config = BlendConfig(
        k=k,
        tau=draw(st.sampled_from([0.01, 0.05, 0.3, 2.0])),
        student_weight=draw(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0])),
        student_temperature=draw(st.sampled_from([0.5, 1.0, 2.5])),
    )
    return logits, similarities, soft_labels, config


@settings(max_examples=150, deadline=None)
@given(cases())
def test_blend_is_the_formula(
    case: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float16], BlendConfig],
) -> None:
    logits, similarities, soft_labels, config = case
    expected, weights = blend_by_hand(logits, similarities, soft_labels, config)
    got = blend(softmax(logits, config.student_temperature), similarities, soft_labels, config)
    assert {array.dtype for array in got[:3]} == {np.dtype(np.float32)}
    assert got.student_weight == config.student_weight
    np.testing.assert_allclose(got.probabilities, expected, atol=2e-5)
    np.testing.assert_allclose(got.weights, weights, atol=2e-5)
    for distribution in got[:3]:
        assert distribution.sum() == pytest.approx(1, abs=1e-5)
        assert (distribution >= 0).all()


def test_softmax_of_many_rows_is_that_of_each() -> None:
    logits = np.random.default_rng(0).normal(0, 20, (5, 4, 3))
    many = softmax_many(logits, 0.7)
    assert many.dtype == np.float64
    for row, one in zip(many.reshape(-1, 3), logits.reshape(-1, 3), strict=True):
        np.testing.assert_allclose(row, softmax_by_hand(one, 0.7), atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(cases())
def test_a_weight_of_one_is_the_student_bit_for_bit(
    case: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float16], BlendConfig],
) -> None:
    logits, similarities, soft_labels, config = case
    alone = BlendConfig(k=config.k, tau=config.tau, student_weight=1.0)
    student = softmax(logits)
    assert blend(student, similarities, soft_labels, alone).probabilities.tobytes() == student.tobytes()


forms: st.SearchStrategy[ExampleWeight] = st.one_of(
    st.builds(
        lambda middle, low, high: BucketWeight((-0.5, middle), (low, high, 0.5)),
        st.floats(-0.25, 0.75),
        st.floats(0, 1),
        st.floats(0, 1),
    ),
    st.builds(LogisticWeight, st.floats(-3, 3), st.tuples(*[st.floats(-3, 3)] * 5)),
)


@settings(max_examples=100, deadline=None)
@given(cases(), forms)
def test_a_weight_per_example_is_the_formula_with_the_share_of_this_text(
    case: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float16], BlendConfig], form: ExampleWeight
) -> None:
    logits, similarities, soft_labels, config = case
    student = softmax(logits, config.student_temperature)
    got = blend(student, similarities, soft_labels, dataclasses.replace(config, weight=form))
    constant = blend(student, similarities, soft_labels, config)
    assert got.retrieval_probabilities.tobytes() == constant.retrieval_probabilities.tobytes()
    assert got.weights.tobytes() == constant.weights.tobytes()
    assert got.student_weight == form.weight(student, got.retrieval_probabilities, similarities)
    same = dataclasses.replace(config, student_weight=got.student_weight)
    assert blend(student, similarities, soft_labels, same).probabilities.tobytes() == got.probabilities.tobytes()
    expected, _ = blend_by_hand(logits, similarities, soft_labels, same)
    np.testing.assert_allclose(got.probabilities, expected, atol=2e-5)


def test_extreme_logits_and_temperatures_stay_numbers() -> None:
    for scale in (1e-30, 1.0, 1e30):
        for temperature in (1e-6, 1.0, 1e6):
            got = softmax(np.array([-scale, 0.0, scale], np.float32), temperature)
            assert np.isfinite(got).all() and got.sum() == pytest.approx(1)


def test_softmax_leaves_its_input_alone() -> None:
    logits = np.array([1.0, 2.0], np.float32)
    wide = logits[None].astype(np.float64)
    softmax(logits), softmax_many(wide)
    assert logits.tolist() == [1.0, 2.0] and wide.tolist() == [[1.0, 2.0]]
