"""Scores by class, calibration bins and the error rate over coverage, against scikit-learn and direct counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from reaugkd.runtime.evaluation.diagnostics import class_scores, confusions, reliability, risk_coverage
from reaugkd.runtime.evaluation.metrics import METRICS, ScoredRows

LABELS = tuple("abcdef")


def scored(seed: int, n: int = 200, unseen: bool = True) -> ScoredRows:
    """Random predictions that are right more often than by chance; class f has no row, and is never predicted."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(-1 if unseen else 0, 5, n)
    p = rng.dirichlet(np.ones(6), n)
    p[:, 5] = 0
    p[np.arange(n), np.maximum(gold, 0)] += rng.random(n)
    return ScoredRows.of(p / p.sum(axis=1, keepdims=True), gold)


def test_scores_by_class_are_those_of_scikit_learn() -> None:
    system, baseline = scored(0), scored(1)
    baseline = ScoredRows(system.gold, baseline.predicted, baseline.gold_probability, baseline.confidence)
    found = class_scores(system, baseline, LABELS)
    assert [one.label for one in found] == list("abcde")
    columns = precision_recall_fscore_support(system.gold, system.predicted, labels=range(5))
    for one, precision, recall, f1, rows in zip(found, *columns, strict=True):
        assert (one.precision, one.recall, one.f1, one.rows) == pytest.approx((precision, recall, f1, rows))
    recalls = precision_recall_fscore_support(system.gold, baseline.predicted, labels=range(5))[1]
    assert [one.baseline_recall for one in found] == pytest.approx(recalls)
    assert sum(one.predicted for one in found) == len(system.gold)
    whole = scored(2, unseen=False)
    mean = np.mean([one.f1 for one in class_scores(whole, whole, LABELS)])
    assert mean == pytest.approx(METRICS["macro_f1"].value(whole))


def test_confusions_are_the_cells_of_the_matrix() -> None:
    rows = scored(3, unseen=False)
    gold, predicted = ([LABELS[one] for one in column] for column in (rows.gold, rows.predicted))
    matrix = confusion_matrix(gold, predicted, labels=LABELS)
    found = confusions(gold, predicted)
    assert {(one.gold, one.predicted): one.rows for one in found} == {
        (LABELS[i], LABELS[j]): matrix[i, j] for i, j in np.argwhere(matrix) if i != j
    }
    assert [one.rows for one in found] == sorted((one.rows for one in found), reverse=True)
    assert all(one.share == one.rows / gold.count(one.gold) for one in found)


def test_the_bins_add_up_to_the_calibration_error() -> None:
    rows = scored(4)
    bins = reliability(rows)
    assert sum(one.rows for one in bins) == len(rows.gold)
    error = sum(one.rows * abs(one.accuracy - one.confidence) for one in bins) / len(rows.gold)
    assert error == pytest.approx(METRICS["ece"].value(rows))
    for one in bins:
        inside = (rows.confidence > one.above) & (rows.confidence <= one.up_to)
        assert (one.rows, one.accuracy) == (inside.sum(), rows.correct[inside].mean())


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1))
def test_the_error_rate_over_coverage_by_thresholds(rows: list[tuple[int, bool]]) -> None:
    uncertainty, correct = np.array([one for one, _ in rows], float), np.array([right for _, right in rows], bool)
    thresholds = sorted(set(uncertainty))
    answered = [uncertainty <= threshold for threshold in thresholds]
    coverage, risk = risk_coverage(uncertainty, correct)
    assert coverage == pytest.approx([one.mean() for one in answered])
    assert risk == pytest.approx([(~correct[one]).mean() for one in answered])
