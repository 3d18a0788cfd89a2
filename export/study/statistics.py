"""What differences between systems are worth, over training seeds and over rows.

Seeds: the paired t test (Student 1908) and the exact sign-flip permutation test (Fisher 1935) of the differences at the
same seed; n seeds flip in 2^n ways, so three seeds cannot give a p below 0.25. Rows: the percentile bootstrap (Efron &
Tibshirani 1993, chapter 13), the same resampled rows for all systems and seeds, and the exact sign-flip test of what
the rows say. Each answers one question: another training, or another test set.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit
from scipy.stats import binom

from ...runtime.evaluation.bootstrap import Interval, percentile_interval, resample_counts
from ...runtime.evaluation.metrics import CALIBRATION_BINS, PROBABILITY_FLOOR, Floats
from .results import SystemResult

RESAMPLES = 1000
CONFIDENCE = 0.95
FEWEST_SEEDS = 3
"""For a test over seeds."""

_MOST_FLIPPED = 15  # seeds: 32,768 sign patterns; of more as many are drawn


@dataclass(frozen=True)
class Spread:
    """Values of several seeds.

    Attributes:
        n: how many.
        mean: of them.
        sd: their standard deviation (n - 1); None for one value.
    """

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class SeedTest:
    """Differences of two systems at the same seeds.

    Attributes:
        n: seeds.
        mean: of the differences.
        sd: of the differences; None for one seed.
        interval: by the t distribution; None for fewer than ``FEWEST_SEEDS`` seeds, as are the p-values.
        t_p_value: two-sided, of the t test.
        flip_p_value: two-sided, of the sign-flip permutation test.
    """

    n: int
    mean: float
    sd: float | None
    interval: Interval | None = None
    t_p_value: float | None = None
    flip_p_value: float | None = None


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of at least one value."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(len(values), float(np.mean(values)), sd)


def seed_test(differences: Sequence[float]) -> SeedTest:
    """What the differences at [n] seeds say about another seed; n at least 1."""
    of = spread(differences)
    if of.n < FEWEST_SEEDS or of.sd is None:
        return SeedTest(of.n, of.mean, of.sd)
    error = of.sd / math.sqrt(of.n)
    reach = float(stdtrit(of.n - 1, (1 + CONFIDENCE) / 2)) * error
    t_p_value = 0.0 if of.mean else 1.0  # where it is the same at every seed
    if error > 0:
        t_p_value = float(2 * stdtr(of.n - 1, -abs(of.mean) / error))
    return SeedTest(of.n, of.mean, of.sd, (of.mean - reach, of.mean + reach), t_p_value, sign_flip_p_value(differences))


def sign_flip_p_value(differences: ArrayLike, seed: int = 0) -> float:
    """Share of the sign patterns of [n] differences whose mean is at least as far from 0 as theirs.

    All 2^n patterns for up to 15 differences; of more, 2^15 drawn ones, with the observed pattern among them.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n <= _MOST_FLIPPED:
        flips = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        flips = np.random.default_rng(seed).integers(0, 2, size=(2**_MOST_FLIPPED, n))
        flips[0] = 0
    sums = np.abs((1 - 2 * flips) @ values)
    # The same sum in another order may differ in its last bits.
    return float(np.mean(sums >= abs(values.sum()) - 1e-9 * np.abs(values).sum()))


@dataclass(frozen=True)
class RowTest:
    """Two systems' answers to the same rows, those of all seeds.

    Attributes:
        first_only: answers that only the first system has right.
        second_only: answers that only the second has right.
        p_value: two-sided, of the sign-flip test over rows; with one seed it is McNemar's exact test.
    """

    first_only: int
    second_only: int
    p_value: float


def row_test(pairs: Sequence[tuple[SystemResult, SystemResult]]) -> RowTest | None:
    """Which system has more rows right; None where the rows do not match.

    The answers of several seeds to one row are not independent. So a row's lead, the seeds at which only the first has
    it right less those at which only the second has, takes its sign as a whole, and each sign is a fair coin's toss.

    Args:
        pairs: of each seed the first and the second system.
    """
    if not pairs or any(not np.array_equal(first.gold, pairs[0][0].gold) for pair in pairs for first in pair):
        return None
    right = [np.array([pair[side].right for pair in pairs]) for side in (0, 1)]
    leads = (right[0].astype(np.int64) - right[1]).sum(axis=0)
    only = [int(np.sum(right[side] & ~right[1 - side])) for side in (0, 1)]
    return RowTest(only[0], only[1], _lead_p_value(leads))


def _lead_p_value(leads: NDArray[np.int64]) -> float:
    """The chance that the [n] leads' sum is at least as far from 0, were each one's sign a fair coin's toss; exact."""
    sizes = np.bincount(np.abs(leads))
    chances = np.ones(1)  # of the sums -reach, -reach + 1, ..., reach
    for size, count in enumerate(sizes.tolist()):
        if size and count:
            tossed = np.zeros(2 * size * count + 1)
            tossed[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
            chances = np.convolve(chances, tossed)
    reach = len(chances) // 2
    far = np.abs(np.arange(-reach, reach + 1)) >= abs(int(leads.sum()))
    return min(1.0, float(chances[far].sum()))


K = TypeVar("K", bound=Hashable)

Draws = Mapping[str, Floats]
"""Metric -> its value on every resample, [RESAMPLES]."""


def resampled(
    task: str,
    systems: Mapping[K, SystemResult],
    teachers: Mapping[K, SystemResult | None],
    with_mcc: bool = False,
) -> dict[K, Draws]:
    """Every metric that is a sum over rows, on the same resamples for all systems of a task.

    Tasks are resampled independently of each other: the task's name is part of the seed.

    Args:
        task: its name.
        systems: by any key.
        teachers: the teacher of each, for its agreement, or None.
        with_mcc: add the Matthews correlation, which takes longest.

    Returns:
        key -> accuracy, nll, ece, teacher_agreement, mcc as far as they apply; without the systems whose rows are not
        those of the first.
    """
    if not systems:
        return {}
    gold = next(iter(systems.values())).gold
    kept = {key: one for key, one in systems.items() if np.array_equal(one.gold, gold)}
    sums = {key: _Sums.of(one, teachers.get(key), with_mcc) for key, one in kept.items()}
    true_rows = _one_hot(gold, _classes(gold)) if with_mcc else None
    parts: dict[K, list[Draws]] = {key: [] for key in kept}
    for counts in resample_counts(len(gold), RESAMPLES, zlib.crc32(task.encode())):
        true = None if true_rows is None else true_rows @ counts
        for key, one in sums.items():
            parts[key].append(one.resampled(counts, true))
    return {
        key: {name: np.concatenate([part[name] for part in found]) for name in found[0]} for key, found in parts.items()
    }


def difference_interval(first: Sequence[Floats], second: Sequence[Floats]) -> Interval:
    """The interval of the mean difference of draws that are paired: by seed in the lists, by resample in the arrays."""
    return percentile_interval(np.mean(first, axis=0) - np.mean(second, axis=0), CONFIDENCE)


@dataclass(frozen=True)
class _Sums:
    """What of one system's rows the metrics are sums of: [m, n] and where each metric's lines are in it."""

    rows: Floats
    lines: Mapping[str, slice]

    @classmethod
    def of(cls, one: SystemResult, teacher: SystemResult | None, with_mcc: bool) -> _Sums:
        n = len(one.gold)
        right = one.right.astype(np.float64)
        confidence = one.confidence.astype(np.float64)
        bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
        blocks = {
            "accuracy": right[None],
            "nll": -np.log(np.clip(one.gold_probability.astype(np.float64), PROBABILITY_FLOOR, 1.0))[None],
            "ece": _one_hot(bins, CALIBRATION_BINS) * (right - confidence),
        }
        if teacher is not None and len(teacher.gold) == n:
            blocks["teacher_agreement"] = (one.predicted == teacher.predicted).astype(np.float64)[None]
        if with_mcc:
            blocks["mcc"] = _one_hot(one.predicted, _classes(one.predicted))
        ends = np.cumsum([len(block) for block in blocks.values()]).tolist()
        lines = {name: slice(end - len(block), end) for (name, block), end in zip(blocks.items(), ends, strict=True)}
        return cls(np.concatenate(list(blocks.values())), lines)

    def resampled(self, counts: Floats, true: Floats | None) -> Draws:
        """Every metric on the resamples of ``counts`` [n, b], with the classes' rows ``true`` [c, b]: name -> [b]."""
        n = float(len(counts))
        sums = self.rows @ counts
        found = {name: sums[lines] for name, lines in self.lines.items()}
        metrics: dict[str, Floats] = {
            name: found[name][0] / n for name in ("accuracy", "nll", "teacher_agreement") if name in found
        }
        metrics["ece"] = np.abs(found["ece"]).sum(axis=0) / n
        if true is not None:
            metrics["mcc"] = _mcc(found["accuracy"][0], found["mcc"], true, n)
        return metrics


def _mcc(hits: Floats, answered: Floats, true: Floats, n: float) -> Floats:
    """``runtime.metrics.mcc`` of b resamples: hits [b], answered [c', b], true [c, b] -> [b]."""
    both = min(len(answered), len(true))
    covariance = hits * n - (answered[:both] * true[:both]).sum(axis=0)
    spread = (n * n - (answered**2).sum(axis=0)) * (n * n - (true**2).sum(axis=0))
    return np.asarray(np.divide(covariance, np.sqrt(spread), out=np.zeros_like(hits), where=spread > 0))


def _classes(answers: NDArray[np.int16]) -> int:
    return int(answers.max()) + 1


def _one_hot(values: NDArray[np.integer], classes: int) -> Floats:
    """[n] -> [classes, n], a row of zeros and ones each."""
    return np.asarray(np.arange(classes)[:, None] == values, dtype=np.float64)
