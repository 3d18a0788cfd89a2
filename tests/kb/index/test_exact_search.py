"""The exact search against a full sort, and the choice of ``ef_search``."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.exact_search import EF_SEARCH_GRID, LEAST_EF_SEARCH, SLACK, exact_search, least_ef_search
from reaugkd.kb.index.hnsw import VectorIndex

Floats = NDArray[np.float32]


def unit_rows(rows: int, ndim: int, seed: int = 0) -> Floats:
    vectors = np.random.default_rng(seed).standard_normal((rows, ndim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@given(keys=st.integers(0, 60), queries=st.integers(0, 5), k=st.integers(1, 70), seed=st.integers(0, 99))
def test_everything_sorted_gives_the_same(keys: int, queries: int, k: int, seed: int) -> None:
    # Coordinates of few values, so that many keys are equally near, and exact in float32.
    rng = np.random.default_rng(seed)
    theirs, ours = (rng.integers(-1, 2, size=(rows, 3)).astype(np.float32) for rows in (keys, queries))
    rows, similarities = exact_search(theirs, ours, k)
    cosines = ours.astype(np.float64) @ theirs.T.astype(np.float64)
    assert rows.shape == similarities.shape == (queries, min(k, keys))
    for query in range(queries):
        expected = sorted(range(keys), key=lambda row: (-cosines[query, row], row))[:k]
        np.testing.assert_array_equal(similarities[query], cosines[query, expected])
        nearer = cosines[query, expected] > cosines[query, expected[-1]] if expected else []
        # Of those as near as the last, any may be taken; of the nearer ones, the first come first.
        assert rows[query].tolist()[: int(np.sum(nearer))] == expected[: int(np.sum(nearer))]


def test_more_queries_than_a_block() -> None:
    keys, queries = unit_rows(50, 8), unit_rows(600, 8, seed=1)
    expected = np.argsort(-(queries.astype(np.float64) @ keys.T.astype(np.float64)), axis=1)[:, :7]
    np.testing.assert_array_equal(exact_search(keys, queries, 7)[0], expected)


@pytest.fixture(scope="module")
def crowded() -> tuple[VectorIndex, Floats, Floats]:
    """Clusters with few edges between them; their keys; queries near the clusters."""
    keys = np.repeat(unit_rows(60, 24, seed=2), 50, axis=0) + 0.05 * unit_rows(3000, 24, seed=3)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    queries = keys[::15] + 0.3 * unit_rows(200, 24, seed=4)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return VectorIndex.build(keys, IndexConfig(24, dtype="i8", connectivity=4)), keys, queries


def recall_of(index: VectorIndex, keys: Floats, queries: Floats, k: int, width: int) -> float:
    exact = np.argsort(-(queries @ keys.T), axis=1, kind="stable")[:, :k]
    found = index.trial(queries, k, width)[0]
    return float(np.mean([len(set(one) & set(other)) / k for one, other in zip(exact, found, strict=True)]))


def test_the_least_ef_search_has_the_recall_of_the_largest(crowded: tuple[VectorIndex, Floats, Floats]) -> None:
    index, keys, queries = crowded
    chosen = least_ef_search(index, keys, queries, 32)
    recalls = {32 * width: recall_of(index, keys, queries, 32, 32 * width) for width in EF_SEARCH_GRID}
    assert recalls[64] < recalls[512] - SLACK  # or there is nothing to choose
    enough = [width for width, recall in recalls.items() if recall >= recalls[512] - SLACK]
    assert chosen.expansion_search == enough[0] and 64 < enough[0] < 512
    assert chosen.recall == pytest.approx(recalls[enough[0]], abs=0.002)  # equally near ones count as they come
    assert 32 < chosen.compared < 3000
    assert index._index.expansion_search == index.config.expansion_search == IndexConfig(24).expansion_search


def test_few_neighbours_are_still_searched_for_broadly(crowded: tuple[VectorIndex, Floats, Floats]) -> None:
    index, keys, queries = crowded
    assert least_ef_search(index, keys, queries, 1).expansion_search >= LEAST_EF_SEARCH


def test_more_neighbours_than_rows_are_all_rows(crowded: tuple[VectorIndex, Floats, Floats]) -> None:
    _, keys, queries = crowded
    assert least_ef_search(VectorIndex.build(keys[:5], IndexConfig(24)), keys[:5], queries, 32).recall == 1
