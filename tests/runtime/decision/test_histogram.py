"""Histograms: counts, quantiles, and the population stability index by its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaugkd import UsageError
from reaugkd.runtime.decision.histogram import LATENCY_EDGES, Histogram, population_stability

EDGES = (0.0, 0.5, 1.0)


def test_a_value_on_an_edge_counts_below_it() -> None:
    found = Histogram.of(np.array([-1.0, 0.0, 0.1, 0.5, 0.7, 1.0, 1.1, 9.0]), EDGES)
    assert found.counts == (2, 2, 2, 2) and found.total == 8
    assert Histogram.of(np.array([]), EDGES).counts == (0, 0, 0, 0)


@given(st.lists(st.floats(11, 9e6), min_size=1, max_size=80), st.floats(0.01, 1))
def test_a_quantile_is_off_by_six_per_cent_at_most(values: list[float], share: float) -> None:
    found = Histogram.of(np.array(values), LATENCY_EDGES).quantile(share)
    true = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert found == pytest.approx(true, rel=0.06)


def test_no_values_have_no_quantile() -> None:
    assert Histogram.of(np.array([]), LATENCY_EDGES).quantile(0.5) is None


def test_the_stability_index_by_its_formula() -> None:
    reference = Histogram(EDGES, (10, 20, 30, 40))
    seen = (40, 30, 20, 10)
    p, q = (np.array(one) + 0.5 for one in (reference.counts, seen))
    p, q = p / p.sum(), q / q.sum()
    assert population_stability(reference, seen) == pytest.approx(float(((q - p) * np.log(q / p)).sum()))
    assert population_stability(reference, reference.counts) == 0.0


def test_small_buckets_of_the_reference_are_joined() -> None:
    """The first two, together 3 %, join the third; the last, 2 %, joins the one before it."""
    reference = Histogram((1.0, 2.0, 3.0, 4.0), (1, 2, 47, 48, 2))
    joined = Histogram((1.0,), (50, 50))
    assert population_stability(reference, (30, 0, 0, 60, 10)) == population_stability(joined, (30, 70))


def test_nothing_counted_is_no_shift_either_way() -> None:
    assert population_stability(Histogram(EDGES, (0, 0, 0, 0)), (1, 1, 1, 1)) is None
    assert population_stability(Histogram(EDGES, (1, 1, 1, 1)), (0, 0, 0, 0)) is None


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4), st.lists(st.integers(0, 50), min_size=4, max_size=4))
def test_the_index_is_finite_and_not_negative(first: list[int], second: list[int]) -> None:
    found = population_stability(Histogram(EDGES, tuple(first)), second)
    assert found is None or 0 <= found < 100


@pytest.mark.parametrize(
    ("edges", "counts"), [((1.0, 1.0), (0, 0, 0)), ((1.0,), (1,)), ((1.0,), (1, -1)), ((math.nan, 1.0), (0, 0, 0))]
)
def test_numbers_that_are_no_histogram(edges: tuple[float, ...], counts: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="a histogram is unusable"):
        Histogram(edges, counts)
