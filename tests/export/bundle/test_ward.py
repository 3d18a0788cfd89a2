"""Ward's merges against SciPy's and against the definition by sums of squares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.cluster import hierarchy

from reaugkd.errors import UsageError
from reaugkd.export.bundle import ward as module
from reaugkd.export.bundle.ward import Merges, ward

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def points_of(rows: int, seed: int, ndim: int = 5) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, ndim))


def merged(points: Floats, groups: Ints | None = None) -> Merges:
    return ward(points, np.zeros(len(points), np.int64) if groups is None else groups, lambda _done: None)


def partition(clusters: NDArray[np.integer]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(clusters == one).tolist()) for one in np.unique(clusters)}


def squares(points: Floats, clusters: Ints) -> float:
    """The sum of squared distances to the clusters' means."""
    return sum(
        float(((points[clusters == one] - points[clusters == one].mean(axis=0)) ** 2).sum())
        for one in np.unique(clusters)
    )


@given(rows=st.integers(2, 40), seed=st.integers(0, 999))
def test_merges_equal_scipys(rows: int, seed: int) -> None:
    points = points_of(rows, seed)
    found, tree = merged(points), hierarchy.linkage(points, "ward")
    np.testing.assert_allclose(found.costs, tree[:, 2] ** 2 / 2, rtol=1e-9)
    for count in {1, 2, rows // 2, rows}:
        if count:
            expected = hierarchy.cut_tree(tree, n_clusters=count).ravel()
            assert partition(found.clusters(count)) == partition(expected)


@given(rows=st.integers(2, 25), seed=st.integers(0, 999), values=st.integers(1, 3))
def test_the_cost_of_a_merge_is_the_increase_of_the_sum_of_squares(rows: int, seed: int, values: int) -> None:
    """Also for equal points and merges of equal cost."""
    points = np.random.default_rng(seed).integers(0, values, size=(rows, 2)).astype(np.float64)
    found = merged(points)
    assert found.fewest == 1 and (np.diff(found.costs) >= 0).all()
    sums = [squares(points, found.clusters(count)) for count in range(rows, 0, -1)]
    np.testing.assert_allclose(np.diff(sums), found.costs, atol=1e-9)
    different = len(np.unique(points, axis=0))
    assert squares(points, found.clusters(different)) == pytest.approx(0, abs=1e-9)  # equal points are merged first


@given(rows=st.integers(1, 40), groups=st.integers(1, 5), seed=st.integers(0, 999))
def test_groups_stay_apart_and_sizes_are_nested(rows: int, groups: int, seed: int) -> None:
    of_group = np.random.default_rng(seed).integers(0, groups, size=rows)
    found = merged(points_of(rows, seed), of_group)
    assert found.fewest == len(set(of_group.tolist()))
    finer = found.clusters(rows)
    assert finer.tolist() == list(range(rows))
    for count in range(rows - 1, found.fewest - 1, -1):
        clusters = found.clusters(count)
        assert len(set(clusters.tolist())) == count
        assert list(dict.fromkeys(clusters.tolist())) == list(range(count))  # in the order of their first rows
        assert len(set(zip(clusters.tolist(), of_group.tolist(), strict=True))) == count
        assert len(set(zip(finer.tolist(), clusters.tolist(), strict=True))) == count + 1
        finer = clusters


def test_many_rows_are_merged_in_parts_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 8)
    rng = np.random.default_rng(3)
    # Four distant clusters on a line, all far from the origin in another direction.
    points = np.concatenate([np.array([100 * crowd, 9999]) + rng.standard_normal((8, 2)) for crowd in range(4)])
    order = rng.permutation(32)
    seen: list[int] = []
    found = ward(points[order], np.zeros(32, np.int64), seen.append)
    assert seen == [8, 16, 24, 32]
    assert found.fewest == 4
    assert partition(found.clusters(4)) == partition(order // 8)
    again = ward(points[order], np.zeros(32, np.int64), seen.append)
    np.testing.assert_array_equal(found.pairs, again.pairs)


@pytest.mark.parametrize("count", [0, 1, 6, -3])
def test_impossible_numbers_of_clusters_are_refused(count: int) -> None:
    found = merged(points_of(5, 0), np.array([0, 0, 1, 1, 1]))
    with pytest.raises(UsageError, match=r"cannot be merged to this number.*2 to 5"):
        found.clusters(count)


def test_equal_points_end_the_chain() -> None:
    """Costs that differ only in the last bit, for which an asymmetric chain would not end."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows, ndim = int(rng.integers(150, 400)), int(rng.integers(100, 400))
        points = (1 + 1e-7 * rng.standard_normal((rows, ndim))).astype(np.float32)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        assert merged(points.astype(np.float64)).fewest == 1
