"""Histograms with fixed edges, their quantiles, and the population stability index of two histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...kb.storage.json_fields import JsonReader

SIMILARITY_EDGES = (0.0, 0.2, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99)
"""Edges of cosines, closest together where in-scope texts lie."""

AGREEMENT_EDGES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Edges of the probability that student and neighbours draw the same label."""

PER_DECADE = 20
LATENCY_EDGES = tuple(10 ** (1 + step / PER_DECADE) for step in range(6 * PER_DECADE + 1))
"""Edges in microseconds, 10 us to 10 s in steps of 12 %: the error of a quantile is at most 6 %."""

_LEAST_SHARE = 0.05


@dataclass(frozen=True)
class Histogram:
    """Counts of values between edges.

    Attributes:
        edges: strictly ascending; a value equal to an edge is counted below it.
        counts: one more than edges: up to the first edge, ..., above the last.

    Raises:
        UsageError: edges out of order, counts below 0, or not one more than edges.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        ascending = all(low < high for low, high in pairwise(self.edges))
        if not ascending or len(self.counts) != len(self.edges) + 1 or any(count < 0 for count in self.counts):
            raise UsageError("a histogram is unusable", found=self.counts, expected="counts, one more than edges")

    @classmethod
    def of(cls, values: NDArray[np.floating], edges: tuple[float, ...]) -> Histogram:
        """The histogram of values [n]."""
        places = np.searchsorted(np.array(edges), values, side="left")
        return cls(edges, tuple(np.bincount(places, minlength=len(edges) + 1).tolist()))

    @property
    def total(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """A quantile, as the geometric middle of its bucket; the edges must be above 0. None without values."""
        if not self.total:
            return None
        rank = max(1, math.ceil(share * self.total))
        place = next(place for place, below in enumerate(accumulate(self.counts)) if below >= rank)
        low, high = self.edges[max(place - 1, 0)], self.edges[min(place, len(self.edges) - 1)]
        return math.sqrt(low * high)


def population_stability(reference: Histogram, counts: Sequence[int]) -> float | None:
    """The population stability index (PSI) of counts against a reference.

        PSI = sum_i (q_i - p_i) ln(q_i / p_i)

    over buckets that are joined until each has at least a twentieth of the reference. Half a value is added to each
    bucket on both sides, so that an empty bucket gives a finite index. By convention, a PSI below 0.1 is no shift and
    above 0.25 a large one. Without a shift, n values give (buckets - 1) (1 / n + 1 / reference values) on average.

    Returns:
        The index, from 0; None if either histogram is empty.
    """
    if not (reference.total and sum(counts)):
        return None
    expected, seen = [0], [0]
    for many, few in zip(reference.counts, counts, strict=True):
        if expected[-1] >= _LEAST_SHARE * reference.total:
            expected.append(0)
            seen.append(0)
        expected[-1] += many
        seen[-1] += few
    if len(expected) > 1 and expected[-1] < _LEAST_SHARE * reference.total:
        last, latest = expected.pop(), seen.pop()
        expected[-1] += last
        seen[-1] += latest
    p = (np.array(expected) + 0.5) / (sum(expected) + 0.5 * len(expected))
    q = (np.array(seen) + 0.5) / (sum(seen) + 0.5 * len(seen))
    return float(((q - p) * np.log(q / p)).sum())


def read_histogram(section: JsonReader) -> Histogram:
    """Read a histogram of a manifest.

    Raises:
        BundleError: a field is missing or unusable.
    """
    edges, counts = tuple(section.items("edges", float)), tuple(section.items("counts", int))
    return section.make(Histogram, {"edges": edges, "counts": counts})
