"""The linear classifier of keys: scikit-learn's, in far less time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from reaugkd.kb.linear_classifier import LinearClassifier, chosen_rows, fit


def drawn(rows: int, labels: int, ndim: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Keys around one centre for each label, and labels of very different numbers of rows."""
    rng = np.random.default_rng(seed)
    gold = rng.choice(labels, rows, p=rng.dirichlet(np.full(labels, 2.0)))
    gold[:labels] = np.arange(labels)
    keys = rng.standard_normal((labels, ndim))[gold] + rng.standard_normal((rows, ndim)) * np.linspace(3, 0.1, ndim)
    return keys.astype(np.float32), gold


@pytest.mark.parametrize(("rows", "labels", "ndim"), [(60, 3, 3), (400, 5, 16), (900, 30, 24), (40, 8, 64)])
@pytest.mark.parametrize("warm", [False, True])
def test_it_is_the_balanced_logistic_regression_of_another_library(
    rows: int, labels: int, ndim: int, warm: bool
) -> None:
    keys, gold = drawn(rows, labels, ndim, seed=rows)
    start = fit(keys[: rows // 2], gold[: rows // 2], labels) if warm else None
    found = fit(7 * keys, gold, labels + 2, start, tolerance=1e-8)
    unit = keys.astype(np.float64) / np.linalg.norm(keys.astype(np.float64), axis=1, keepdims=True)
    expected = LogisticRegression(C=10.0, class_weight="balanced", max_iter=10_000, tol=1e-9).fit(unit, gold)
    queries = np.random.default_rng(1).standard_normal((200, ndim)).astype(np.float32)
    length = np.linalg.norm(queries, axis=1, keepdims=True)
    wanted = expected.predict_proba((queries / length).astype(np.float64))
    answers = np.array([found.probabilities(query, labels + 3) for query in queries])
    np.testing.assert_allclose(answers[:, :labels], wanted, atol=2e-3)
    assert (answers[:, labels:] == 0).all() and found.fitted.tolist() == [True] * labels + [False] * 2
    usual = np.array([fit(keys, gold, labels, start).probabilities(query, labels) for query in queries])
    np.testing.assert_allclose(usual, wanted, atol=0.05)


def test_the_same_rows_give_the_same_bytes() -> None:
    keys, gold = drawn(300, 6, 12, seed=3)
    one, two = fit(keys, gold, 6), fit(keys.copy(), gold.copy(), 6)
    assert one.weights.tobytes() == two.weights.tobytes() and one.bias.tobytes() == two.bias.tobytes()


def test_a_single_label_and_labels_that_a_former_classifier_lacks() -> None:
    keys, gold = drawn(50, 3, 8, seed=0)
    assert fit(keys, np.zeros(50, int), 1).probabilities(keys[0], 2).tolist() == [1.0, 0.0]
    one = fit(keys[gold < 2], gold[gold < 2], 3)
    both = fit(keys, gold, 3, one, tolerance=1e-8)
    np.testing.assert_allclose(both.weights, fit(keys, gold, 3, tolerance=1e-8).weights, atol=0.02)


def test_keys_that_lie_on_a_line() -> None:
    """The variances of all other axes are zero."""
    keys = np.outer(np.linspace(-1, 1, 40), np.ones(6)).astype(np.float32) + np.eye(6, dtype=np.float32)[0]
    found = fit(keys, (keys[:, 1] > 0).astype(int), 2)
    assert found.probabilities(keys[0], 2)[0] > 0.9 and found.probabilities(keys[-1], 2)[1] > 0.9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 5), max_size=60), st.integers(1, 12))
def test_of_each_label_rows_are_chosen_from_beginning_to_end(labels: list[int], most: int) -> None:
    gold = np.array(labels, np.int64)
    chosen = chosen_rows(gold, most)
    assert (np.diff(chosen) > 0).all() and (gold[chosen] >= 0).all()
    for label in range(6):
        rows, kept = np.flatnonzero(gold == label), chosen[gold[chosen] == label]
        assert len(kept) == min(most, len(rows))
        if len(kept) > 1:
            assert kept[0] == rows[0] and kept[-1] == rows[-1]


def test_probabilities_of_large_logits() -> None:
    found = LinearClassifier(np.full((2, 2), 1e4, np.float32), np.array([0, 1], np.float32))
    np.testing.assert_allclose(found.probabilities(np.ones(2, np.float32), 2), [0.26894, 0.73106], atol=1e-3)
