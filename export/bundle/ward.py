"""Agglomerative clustering of rows by Ward's criterion.

Merging two clusters of n_a and n_b rows raises the sum of squared distances to the clusters' means by

    n_a n_b / (n_a + n_b) * |mean_a - mean_b|^2

(Ward 1963). Always taking the cheapest merge gives a tree; leaving out its most expensive merges gives any number of
clusters. The tree is found with nearest neighbour chains (Murtagh 1983), in O(n^2) time and memory. To limit both, many
rows are first split in halves along their first principal component, recursively (Boley 1998); rows of different parts
are not merged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ..types import Floats, Ints

PART_ROWS = 1024
"""Largest number of rows that are compared pairwise; twice as many take twice the time and four times the memory."""


@dataclass(frozen=True)
class Merges:
    """The merges of n rows, cheapest first. The first m merges leave n - m clusters.

    Attributes:
        rows: n.
        pairs: int64 [merges, 2], a row of each of the two clusters.
        costs: float64 [merges], ascending: the increase of the sum of squared distances.
    """

    rows: int
    pairs: Ints
    costs: Floats

    @property
    def fewest(self) -> int:
        """Number of clusters after all possible merges."""
        return self.rows - len(self.pairs)

    def clusters(self, count: int) -> Ints:
        """Return the cluster of each row, [n], for ``count`` clusters, numbered in the order of their first rows.

        Raises:
            UsageError: ``count`` is less than `fewest` or more than the number of rows.
        """
        if not self.fewest <= count <= self.rows:
            expected = f"{self.fewest:,} to {self.rows:,}"
            raise UsageError("the rows cannot be merged to this number", found=f"{count:,}", expected=expected)
        first = np.arange(self.rows)
        for one, other in self.pairs[: self.rows - count]:
            roots = sorted((_root(first, one), _root(first, other)))
            first[roots[1]] = roots[0]
        # A parent comes before its children, so one pass from the front finds every root.
        for row in range(self.rows):
            first[row] = first[first[row]]
        return np.unique(first, return_inverse=True)[1].astype(np.int64)


def ward(points: NDArray[np.floating], groups: NDArray[np.integer], progress: Callable[[int], object]) -> Merges:
    """Find all merges of rows of the same group, cheapest first.

    Args:
        points: [n, d].
        groups: [n]; rows of different groups are not merged.
        progress: called with the number of finished rows.
    """
    pairs, costs, done = [np.zeros((0, 2), np.int64)], [np.zeros(0)], 0
    for group in np.unique(groups):
        for part in _parts(points, np.flatnonzero(groups == group)):
            merged, cost = _chain(points[part].astype(np.float64))
            pairs.append(part[merged])
            costs.append(cost)
            progress(done := done + len(part))
    joined = np.concatenate(costs)
    order = np.argsort(joined, kind="stable")
    return Merges(len(points), np.concatenate(pairs)[order], joined[order])


def _parts(points: NDArray[np.floating], rows: Ints) -> list[Ints]:
    """Split the rows into parts of at most `PART_ROWS` near rows."""
    if len(rows) <= PART_ROWS:
        return [rows]
    centred = points[rows].astype(np.float64)
    centred -= centred.mean(axis=0)
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    order = np.argsort(centred @ direction, kind="stable")
    halves = (np.sort(rows[half]) for half in np.array_split(order, 2))
    # The sign of an eigenvector is arbitrary, so the half with the first row comes first.
    return [part for half in sorted(halves, key=lambda half: int(half[0])) for part in _parts(points, half)]


def _chain(points: Floats) -> tuple[Ints, Floats]:
    """Find all merges of points [n, d]: pairs [n - 1, 2] and costs [n - 1], in the order in which they were found."""
    count = len(points)
    sizes = np.ones(count)
    squares = (points * points).sum(axis=1)
    between = np.maximum(squares[:, None] + squares - 2 * (points @ points.T), 0) / 2
    between = np.minimum(between, between.T)  # symmetric to the last bit, otherwise the chain may not end
    np.fill_diagonal(between, np.inf)
    pairs, costs = np.zeros((max(count - 1, 0), 2), np.int64), np.zeros(max(count - 1, 0))
    chain: list[int] = []
    for number in range(count - 1):
        if not chain:
            chain.append(int(np.argmax(sizes > 0)))
        while True:
            last = chain[-1]
            near = int(between[last].argmin())
            # On a tie the previous cluster wins, otherwise the chain would not end.
            if len(chain) > 1 and between[last, near] >= between[last, chain[-2]]:
                break
            chain.append(near)
        one, other = chain.pop(), chain.pop()
        pairs[number], costs[number] = (one, other), between[one, other]
        _merge(between, sizes, one, other)
    return pairs, costs


def _merge(between: Floats, sizes: Floats, one: int, other: int) -> None:
    """Merge ``other`` into ``one``; updates the costs of its merges by the formula of Lance and Williams (1967)."""
    both = sizes[one] + sizes[other]
    joined = (sizes[one] + sizes) * between[one] + (sizes[other] + sizes) * between[other]
    joined -= sizes * between[one, other]
    joined /= both + sizes
    joined[[one, other]] = np.inf
    between[one] = between[:, one] = joined
    between[other] = between[:, other] = np.inf
    sizes[one], sizes[other] = both, 0


def _root(first: Ints, row: int) -> int:
    while first[row] != row:
        first[row] = first[first[row]]  # path halving
        row = int(first[row])
    return row
