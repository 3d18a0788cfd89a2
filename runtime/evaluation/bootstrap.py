"""Bootstrap intervals over rows and the exact McNemar test.

The bootstrap resamples rows with replacement and gives percentile intervals (Efron & Tibshirani, "An Introduction to
the Bootstrap", 1993, chapter 13). All systems see the same resamples, so a difference of two systems is paired: rows
that are hard for both do not widen its interval. Only the rows vary; another training seed is not covered. The
calibration error of few rows is biased upwards, and more so in a resample: its interval leans upwards.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .metrics import METRICS, Floats, Resample, ScoredRows

K = TypeVar("K", bound=Hashable)
Draws = Mapping[str, Floats]
"""Metric -> its value on every resample, [resamples]."""

Interval = tuple[float, float]

# Resample counts held at once: 16 MB of float64. The chunks depend on n alone, hence so do the draws.
_CHUNK_VALUES = 2_000_000


@dataclass(frozen=True)
class McNemar:
    """The exact McNemar test of two classifiers on the same rows.

    Attributes:
        first_only: rows that only the first system has right.
        second_only: rows that only the second system has right.
        p_value: two-sided; the probability of a split at least as uneven if each such row were a fair coin toss.
    """

    first_only: int
    second_only: int
    p_value: float


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> McNemar:
    """Exact (binomial) McNemar test of two [n] arrays that say which rows each system has right.

    Raises:
        ValueError: the arrays are of different length.
    """
    if first_right.shape != second_right.shape:
        raise ValueError(f"the systems answered {first_right.shape} and {second_right.shape} rows")
    first_only = int(np.sum(first_right & ~second_right))
    second_only = int(np.sum(second_right & ~first_right))
    return McNemar(first_only, second_only, binomial_p_value(min(first_only, second_only), first_only + second_only))


def binomial_p_value(successes: int, n: int) -> float:
    """Two-sided p-value of ``successes`` heads or a more uneven split in ``n`` tosses of a fair coin; 1 for n = 0.

    The sum is exact: it uses whole numbers.
    """
    few = min(successes, n - successes)
    term = total = 1
    for i in range(few):
        term = term * (n - i) // (i + 1)
        total += term
    return min(1.0, 2 * total / (1 << n))


def resample_metrics(
    systems: Mapping[K, ScoredRows], metrics: Iterable[str], *, resamples: int, seed: int
) -> dict[K, Draws]:
    """Compute metrics of all systems on the same resamples of their rows.

    Args:
        systems: by any key; all with the same n gold labels.
        metrics: names in ``METRICS``.
        resamples: how many.
        seed: of the resampling. The same seed and n give the same resamples for any systems.

    Returns:
        key -> metric -> [resamples]; without the metrics that need a teacher which the system does not have.
    """
    chosen = [METRICS[name] for name in metrics]
    parts: dict[K, dict[str, list[Floats]]] = {key: {} for key in systems}
    n = len(next(iter(systems.values())).gold) if systems else 1
    for counts in resample_counts(n, resamples, seed):
        for key, rows in systems.items():
            sample = Resample(rows, counts)
            for metric in chosen:
                values = metric.resampled(sample)
                if values is not None:
                    parts[key].setdefault(metric.name, []).append(values)
    return {key: {name: np.concatenate(part) for name, part in found.items()} for key, found in parts.items()}


def resample_counts(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each row is drawn: arrays [n, b] whose b add up to ``resamples``; each column sums to n."""
    rng = np.random.default_rng(seed)
    chunk = max(1, min(resamples, _CHUNK_VALUES // n))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = rng.integers(0, n, size=(size, n))
        cells = drawn * size + np.arange(size)[:, None]
        yield np.bincount(cells.ravel(), minlength=n * size).reshape(n, size).astype(np.float64)


def percentile_interval(values: Floats, confidence: float) -> Interval:
    """Interval of the central ``confidence`` share of the values (linear interpolation between order statistics)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
