"""What a difference between two systems is worth: bootstrap intervals and the exact McNemar test.

The bootstrap resamples rows with replacement and gives percentile intervals (Efron & Tibshirani, "An Introduction to
the Bootstrap", 1993, chapter 13). Every system sees the same resamples, so that a difference of two systems is paired:
rows that are hard for both do not widen its interval. The rows are all that varies; another training seed is not
covered. The calibration error of few rows is biased upwards, and more so in a resample: its interval leans that way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .metrics import METRICS, Floats, Ints, confidence_bins, row_kl, row_nll

Interval = tuple[float, float]

# Resample counts held at once: 16 MB of float64. The chunks depend on n alone, hence so do the draws.
_CHUNK_VALUES = 2_000_000


@dataclass(frozen=True)
class McNemar:
    """The exact McNemar test of two classifiers on the same rows.

    Attributes:
        first_only: rows that only the first system has right.
        second_only: rows that only the second system has right.
        p_value: two-sided; the chance of a split at least as uneven if each such row were a fair coin's toss.
    """

    first_only: int
    second_only: int
    p_value: float


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> McNemar:
    """The exact (binomial) test on two [n] arrays saying which rows each system has right.

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

    Summed in whole numbers, so neither underflow nor rounding plays a part.
    """
    few = min(successes, n - successes)
    term = total = 1
    for i in range(few):
        term = term * (n - i) // (i + 1)
        total += term
    return min(1.0, 2 * total / (1 << n))


@dataclass(frozen=True)
class Bootstrap:
    """Every metric of every system on every resample.

    Attributes:
        draws: system -> metric -> [resamples]; a metric that needs a teacher is missing without one.
        confidence: of the intervals, 0 to 1.
    """

    draws: Mapping[str, Mapping[str, Floats]]
    confidence: float

    def interval(self, system: str, metric: str) -> Interval | None:
        """The metric's percentile interval, or None where the metric was not computed."""
        values = self.draws[system].get(metric)
        return None if values is None else percentile_interval(values, self.confidence)

    def difference(self, system: str, baseline: str, metric: str) -> Interval | None:
        """The percentile interval of ``system`` minus ``baseline``, paired by resample."""
        first, second = self.draws[system].get(metric), self.draws[baseline].get(metric)
        if first is None or second is None:
            return None
        return percentile_interval(first - second, self.confidence)


def percentile_interval(values: Floats, confidence: float) -> Interval:
    """The central ``confidence`` share of the values (linear interpolation between order statistics)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap(
    systems: Mapping[str, Floats],
    gold: Ints,
    teacher: Floats | None = None,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Score every system on the same resamples of the rows.

    Args:
        systems: name -> probabilities [n, c], as ``metrics.check`` returns them.
        gold: [n], class indices.
        teacher: [n, c], the teacher's probabilities, for agreement and KL; None leaves the two out.
        resamples: how many; 1000 gives a 95 % interval's ends to about a tenth of its width.
        confidence: of the intervals, 0 to 1.
        seed: of the resampling. The same seed and row count give the same resamples for any systems.
    """
    statistics = {name: _RowStatistics.of(p, gold, teacher) for name, p in systems.items()}
    by_gold = _Groups.of(gold)
    parts: dict[str, dict[str, list[Floats]]] = {name: {metric: [] for metric in METRICS} for name in systems}
    for counts in resample_counts(len(gold), resamples, seed):
        true = by_gold.sums(counts)
        for name, rows in statistics.items():
            for metric, values in rows.resampled(counts, by_gold, true).items():
                parts[name][metric].append(values)
    draws = {
        name: {metric: np.concatenate(values) for metric, values in metrics.items() if values}
        for name, metrics in parts.items()
    }
    return Bootstrap(draws, confidence)


def resample_counts(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each row is drawn: arrays [n, b], whose b add up to ``resamples``; each column sums to n."""
    rng = np.random.default_rng(seed)
    chunk = max(1, min(resamples, _CHUNK_VALUES // n))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = rng.integers(0, n, size=(size, n))
        cells = drawn * size + np.arange(size)[:, None]
        yield np.bincount(cells.ravel(), minlength=n * size).reshape(n, size).astype(np.float64)


@dataclass(frozen=True)
class _Groups:
    """Rows sorted by a key, so that the sums of each key's rows are one pass (``reduceat``)."""

    order: Ints
    starts: Ints
    keys: Ints
    """The distinct keys, ascending; one sum each."""

    @classmethod
    def of(cls, key: Ints) -> _Groups:
        order = np.argsort(key, kind="stable")
        keys, starts = np.unique(key[order], return_index=True)
        return cls(order, starts, keys)

    def sums(self, values: Floats) -> Floats:
        """[n, b] -> [len(keys), b]."""
        return np.asarray(np.add.reduceat(values[self.order], self.starts, axis=0))


@dataclass(frozen=True)
class _RowStatistics:
    """What of one system's rows the metrics are sums of."""

    columns: Mapping[str, Floats]
    """Metrics that are means over rows: name -> [n]."""
    right: NDArray[np.bool_]
    by_answer: _Groups
    by_bin: _Groups
    gap: Floats
    """Right (0 or 1) minus confidence, [n]."""

    @classmethod
    def of(cls, p: Floats, gold: Ints, teacher: Floats | None) -> _RowStatistics:
        answers = p.argmax(axis=1)
        right = answers == gold
        columns = {"accuracy": right.astype(np.float64), "nll": row_nll(p, gold)}
        if teacher is not None:
            columns["teacher_agreement"] = (answers == teacher.argmax(axis=1)).astype(np.float64)
            columns["teacher_kl"] = row_kl(p, teacher)
        gap = right - p.max(axis=1)
        return cls(columns, right, _Groups.of(answers), _Groups.of(confidence_bins(p)), gap)

    def resampled(self, counts: Floats, by_gold: _Groups, true: Floats) -> dict[str, Floats]:
        """Every metric on every resample: name -> [b]."""
        n = float(len(counts))
        means = np.stack(list(self.columns.values())) @ counts / n
        values = dict(zip(self.columns, means, strict=True))
        hits = by_gold.sums(counts * self.right[:, None])
        answered = self.by_answer.sums(counts)
        values["macro_f1"] = _macro_f1(hits, true, by_gold.keys, answered, self.by_answer.keys)
        values["mcc"] = _mcc(hits, true, by_gold.keys, answered, self.by_answer.keys)
        values["ece"] = np.abs(self.by_bin.sums(counts * self.gap[:, None])).sum(axis=0) / n
        return values


def _macro_f1(hits: Floats, true: Floats, true_keys: Ints, answered: Floats, answer_keys: Ints) -> Floats:
    """``metrics.macro_f1`` of b resamples: counts [classes, b] -> [b]; a class drawn on neither side does not count."""
    classes = np.union1d(true_keys, answer_keys)
    named = np.zeros((len(classes), true.shape[1]))
    named[np.searchsorted(classes, true_keys)] += true
    named[np.searchsorted(classes, answer_keys)] += answered
    f1 = np.zeros_like(named)
    f1[np.searchsorted(classes, true_keys)] = 2 * hits
    np.divide(f1, named, out=f1, where=named > 0)
    return np.asarray(f1.sum(axis=0) / (named > 0).sum(axis=0))


def _mcc(hits: Floats, true: Floats, true_keys: Ints, answered: Floats, answer_keys: Ints) -> Floats:
    """``metrics.mcc`` of b resamples: counts [classes, b] -> [b]."""
    n = true.sum(axis=0)
    _, in_true, in_answers = np.intersect1d(true_keys, answer_keys, return_indices=True)
    covariance = hits.sum(axis=0) * n - (true[in_true] * answered[in_answers]).sum(axis=0)
    spread = (n * n - (answered**2).sum(axis=0)) * (n * n - (true**2).sum(axis=0))
    return np.asarray(np.divide(covariance, np.sqrt(spread), out=np.zeros_like(n), where=spread > 0))
