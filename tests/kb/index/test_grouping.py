"""The order of the rows in a shard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.exact_search import exact_search, unit
from reaugkd.kb.index.grouping import near_order
from reaugkd.kb.index.hnsw import VectorIndex
from reaugkd.kb.index.stored_keys import stored_form


def clustered(rows: int, clusters: int = 40, ndim: int = 32) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((clusters, ndim))
    return unit(centres[rng.integers(0, clusters, rows)] + 0.3 * rng.standard_normal((rows, ndim)))


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 400), different=st.integers(1, 400), seed=st.integers(0, 9))
def test_each_row_once_and_the_same_order_again(rows: int, different: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys = stored_form(rng.standard_normal((different, 4)).astype(np.float32), "i8")[rng.integers(0, different, rows)]
    order = near_order(keys)
    assert sorted(order.tolist()) == list(range(rows))
    assert near_order(keys).tolist() == order.tolist()


@pytest.mark.parametrize("dtype", ["i8", "f32"])
def test_near_rows_are_together(dtype: str) -> None:
    """Keys of a cluster have a cosine of 0.92, others of 0."""
    keys = stored_form(clustered(4000), dtype)
    ordered = unit(keys[near_order(keys)].astype(np.float64))
    near = np.mean([(ordered[step:] * ordered[:-step]).sum(axis=1).mean() for step in (1, 10, 30)])
    unordered = unit(keys.astype(np.float64))
    assert near > 0.6 and np.abs((unordered[1:] * unordered[:-1]).sum(axis=1).mean()) < 0.1


def test_a_graph_in_this_order_has_the_same_recall() -> None:
    keys, config = clustered(4000), IndexConfig(32, connectivity=8, expansion_search=32)
    queries = unit(clustered(4200)[4000:] + 0.01)
    shares = []
    for order in (np.arange(4000), near_order(keys)):
        exact = exact_search(keys[order], queries, 16)[0]
        found = VectorIndex.build(keys[order], config).search_many(queries, 16)[0]
        shares.append(np.mean([np.isin(true, some).mean() for true, some in zip(exact, found, strict=True)]))
    assert shares[0] > 0.9 and shares[1] > shares[0] - 0.02
