"""The bootstrap against metrics of resampled rows; McNemar's test against scipy's binomial test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from reaugkd.runtime.evaluation import bootstrap as significance
from reaugkd.runtime.evaluation.bootstrap import (
    Draws,
    Interval,
    binomial_p_value,
    mcnemar,
    percentile_interval,
    resample_counts,
    resample_metrics,
)
from reaugkd.runtime.evaluation.metrics import METRICS, ScoredRows, score


def systems(seed: int, n: int, classes: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, classes, n)
    probabilities = {}
    for name, strength in (("weak", 0.5), ("strong", 2.5)):
        logits = rng.normal(size=(n, classes))
        logits[np.arange(n), gold] += strength
        probabilities[name] = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, gold


def draws_of(
    probabilities: dict[str, np.ndarray],
    gold: np.ndarray,
    teacher: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Draws]:
    rows = {name: ScoredRows.of(p, gold, teacher) for name, p in probabilities.items()}
    return resample_metrics(rows, METRICS, resamples=resamples, seed=seed)


def interval(values: np.ndarray) -> Interval:
    return percentile_interval(values, 0.95)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 7))
def test_every_draw_is_the_metric_of_the_rows_drawn(seed: int, n: int, classes: int) -> None:
    probabilities, gold = systems(seed, n, classes)
    draws = draws_of(probabilities, gold, probabilities["strong"], resamples=7, seed=seed)
    counts = np.concatenate(list(resample_counts(n, 7, seed)), axis=1).astype(int)
    for b in range(7):
        rows = np.repeat(np.arange(n), counts[:, b])
        for name, p in probabilities.items():
            expected = score(p[rows], gold[rows], probabilities["strong"][rows])
            assert {metric: draws[name][metric][b] for metric in METRICS} == pytest.approx(expected, abs=1e-12)


def test_resamples_are_n_rows_with_replacement_and_repeatable() -> None:
    counts = np.concatenate(list(resample_counts(50, 2000, seed=3)), axis=1)
    assert counts.shape == (50, 2000)
    assert (counts.sum(axis=0) == 50).all()
    # Each row is drawn Binomial(50, 1/50): once in the mean, variance 0.98.
    assert counts.mean(axis=1) == pytest.approx(np.ones(50), abs=0.1)
    assert counts.var() == pytest.approx(0.98, rel=0.05)
    again = np.concatenate(list(resample_counts(50, 2000, seed=3)), axis=1)
    assert np.array_equal(counts, again)
    other = np.concatenate(list(resample_counts(50, 2000, seed=4)), axis=1)
    assert not np.array_equal(counts, other)


def test_chunks_hold_every_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "_CHUNK_VALUES", 60)
    chunks = list(resample_counts(20, 8, seed=0))
    assert [chunk.shape for chunk in chunks] == [(20, 3), (20, 3), (20, 2)]
    probabilities, gold = systems(0, 20, 3)
    draws = draws_of(probabilities, gold, resamples=8)
    assert all(values.shape == (8,) for values in draws["weak"].values())


def test_intervals_have_the_theoretical_width() -> None:
    """For an accuracy the standard error is known: sqrt(p (1 - p) / n)."""
    probabilities, gold = systems(1, 1000, 4)
    p = score(probabilities["weak"], gold)["accuracy"]
    assert p is not None
    low, high = interval(draws_of(probabilities, gold, resamples=4000)["weak"]["accuracy"])
    error = np.sqrt(p * (1 - p) / 1000)
    assert low == pytest.approx(p - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(p + 1.96 * error, abs=0.2 * error)


def test_a_difference_is_paired() -> None:
    """The difference of a system and itself is 0 in every resample."""
    probabilities, gold = systems(2, 60, 3)
    draws = draws_of({"one": probabilities["weak"], "two": probabilities["weak"]}, gold, resamples=50)
    low, high = interval(draws["one"]["accuracy"])
    assert low < high
    assert interval(draws["one"]["accuracy"] - draws["two"]["accuracy"]) == (0.0, 0.0)


def test_a_clear_difference_excludes_zero() -> None:
    probabilities, gold = systems(3, 400, 4)
    draws = draws_of(probabilities, gold)
    low, high = interval(draws["strong"]["accuracy"] - draws["weak"]["accuracy"])
    strong, weak = (score(probabilities[name], gold)["accuracy"] or 0.0 for name in ("strong", "weak"))
    assert 0 < low < strong - weak < high


def test_without_a_teacher_there_are_no_teacher_intervals() -> None:
    probabilities, gold = systems(4, 20, 2)
    found = draws_of(probabilities, gold, resamples=5)
    assert set(found["weak"]) == METRICS.keys() - {"teacher_kl", "teacher_agreement"}


def test_percentile_interval() -> None:
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))
    assert percentile_interval(np.full(3, 2.0), 0.95) == (2.0, 2.0)


@given(st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_binomial_p_value_is_scipys(case: tuple[int, int]) -> None:
    successes, n = case
    expected = binomtest(successes, n, 0.5).pvalue if n else 1.0
    assert binomial_p_value(successes, n) == pytest.approx(expected, rel=1e-9)


def test_the_binomial_p_value_of_many_tosses() -> None:
    assert binomial_p_value(4900, 10_000) == pytest.approx(binomtest(4900, 10_000, 0.5).pvalue, rel=1e-9)
    assert binomial_p_value(0, 5000) == 0.0


def test_mcnemar_counts_only_the_rows_that_differ() -> None:
    first = np.array([1, 1, 1, 1, 1, 0, 0, 1], dtype=bool)
    second = np.array([1, 1, 0, 0, 0, 1, 0, 1], dtype=bool)
    result = mcnemar(first, second)
    assert (result.first_only, result.second_only) == (3, 1)
    assert result.p_value == pytest.approx(2 * (1 + 4) / 16)
    assert mcnemar(first, first).p_value == 1.0


def test_mcnemar_refuses_different_rows() -> None:
    with pytest.raises(ValueError, match="answered"):
        mcnemar(np.ones(3, dtype=bool), np.ones(4, dtype=bool))
