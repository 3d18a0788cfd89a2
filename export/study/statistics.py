"""Statistical tests of differences between systems, over training seeds and over rows.

Over seeds: the paired t test (Student 1908) and the sign-flip permutation test (Fisher 1935) of the differences at the
same seed. n seeds have 2^n sign patterns, so three seeds cannot give p below 0.25. Over rows: the percentile bootstrap
(``runtime/evaluation/bootstrap.py``; the same resampled rows for all systems and seeds) and an exact sign-flip test.
The tests over seeds ask about another training run, the tests over rows about another test set.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ...runtime.evaluation.bootstrap import Interval, K, percentile_interval, resample_metrics
from ...runtime.evaluation.metrics import METRICS, Floats
from .results import SystemResult

RESAMPLES = 1000
CONFIDENCE = 0.95
FEWEST_SEEDS = 3
"""Smallest number of seeds for a test over seeds."""

_SIGN_PATTERNS = 2**15  # all patterns of up to 15 seeds; of more seeds this many random ones
_SAME = 1e-12  # differences with a smaller standard deviation are equal but for rounding


@dataclass(frozen=True)
class Spread:
    """Mean and spread of a metric over seeds.

    Attributes:
        n: number of values.
        mean: their mean.
        sd: their standard deviation (n - 1); None for one value.
    """

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class SeedTest:
    """Tests of the differences of two systems at the same seeds.

    Attributes:
        n: number of seeds.
        mean: mean difference.
        sd: standard deviation of the differences; None for one seed.
        interval: confidence interval by the t distribution. It and the p-values are None for fewer than
            ``FEWEST_SEEDS`` seeds.
        t_p_value: two-sided p-value of the t test.
        flip_p_value: two-sided p-value of the sign-flip permutation test.
    """

    n: int
    mean: float
    sd: float | None
    interval: Interval | None = None
    t_p_value: float | None = None
    flip_p_value: float | None = None


def spread(values: Sequence[float]) -> Spread:
    """Compute mean and standard deviation of at least one value."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(len(values), float(np.mean(values)), sd)


def seed_test(differences: Sequence[float]) -> SeedTest:
    """Test the differences at [n] seeds, n at least 1."""
    of = spread(differences)
    if of.n < FEWEST_SEEDS or of.sd is None:
        return SeedTest(of.n, of.mean, of.sd)
    flip_p_value = sign_flip_p_value(differences)
    if of.sd < _SAME:  # the t test divides by the standard deviation
        return SeedTest(of.n, of.mean, of.sd, (of.mean, of.mean), 0.0 if abs(of.mean) > _SAME else 1.0, flip_p_value)
    test = stats.ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(CONFIDENCE)
    return SeedTest(of.n, of.mean, of.sd, (float(low), float(high)), float(test.pvalue), flip_p_value)


def sign_flip_p_value(differences: ArrayLike, seed: int = 0) -> float:
    """Compute the share of sign patterns of [n] differences whose mean is at least as far from 0 as the observed mean.

    All 2^n patterns are used for up to 15 differences, and 2^15 random patterns for more.
    """

    def distance(values: Floats, axis: int) -> Floats:
        # The same sum in another order can differ in its last bits.
        return np.asarray(np.round(np.abs(np.mean(values, axis=axis)), 12))

    return float(
        stats.permutation_test(
            (np.asarray(differences, dtype=np.float64),),
            distance,
            permutation_type="samples",
            n_resamples=_SIGN_PATTERNS,
            alternative="greater",
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).pvalue
    )


@dataclass(frozen=True)
class RowTest:
    """Sign-flip test over rows of two systems' predictions on the same rows, all seeds together.

    Attributes:
        first_only: predictions that only the first system has right.
        second_only: predictions that only the second system has right.
        p_value: two-sided p-value; with one seed, that of McNemar's exact test.
    """

    first_only: int
    second_only: int
    p_value: float


def row_test(pairs: Sequence[tuple[SystemResult, SystemResult]]) -> RowTest | None:
    """Test which system has more rows right; None if the systems' rows differ.

    The predictions of several seeds on one row are not independent. So the test flips the sign of each row's lead as a
    whole. A row's lead is the number of seeds at which only the first system has it right, minus the number at which
    only the second has.

    Args:
        pairs: the first and the second system at each seed.
    """
    if not pairs or any(not np.array_equal(first.gold, pairs[0][0].gold) for pair in pairs for first in pair):
        return None
    right = [np.array([pair[side].correct for pair in pairs]) for side in (0, 1)]
    leads = (right[0].astype(np.int64) - right[1]).sum(axis=0)
    only = [int(np.sum(right[side] & ~right[1 - side])) for side in (0, 1)]
    return RowTest(only[0], only[1], _lead_p_value(leads))


def _lead_p_value(leads: NDArray[np.int64]) -> float:
    """Compute the exact probability that [n] leads with random signs have a sum at least as far from 0 as observed."""
    sizes = np.bincount(np.abs(leads))
    chances = np.ones(1)  # probability of each sum from -reach to reach
    for size, count in enumerate(sizes.tolist()):
        if size and count:
            tossed = np.zeros(2 * size * count + 1)
            tossed[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
            chances = np.convolve(chances, tossed)
    reach = len(chances) // 2
    far = np.abs(np.arange(-reach, reach + 1)) >= abs(int(leads.sum()))
    return min(1.0, float(chances[far].sum()))


def resampled(
    task: str,
    systems: Mapping[K, SystemResult],
    teachers: Mapping[K, SystemResult | None],
    metric: str,
) -> dict[K, Floats]:
    """Compute a metric on the same resamples of the rows for all systems of a task.

    Tasks are resampled independently: the seed is a hash of the task's name.

    Args:
        task: its name.
        systems: by any key.
        teachers: the teacher of each, for the agreement, or None.
        metric: a name in ``METRICS``; for any other name the result is empty.

    Returns:
        key -> [RESAMPLES]; without the systems whose gold labels differ from the first system's, and without those
        that lack what the metric needs (a teacher; for KL all probabilities, which a cell does not keep).
    """
    if not systems or metric not in METRICS:
        return {}
    gold = next(iter(systems.values())).gold
    rows = {key: one.scored_rows(teachers.get(key)) for key, one in systems.items() if np.array_equal(one.gold, gold)}
    draws = resample_metrics(rows, [metric], resamples=RESAMPLES, seed=zlib.crc32(task.encode()))
    return {key: found[metric] for key, found in draws.items() if found}


def difference_interval(first: Sequence[Floats], second: Sequence[Floats]) -> Interval:
    """Compute the interval of the mean difference of draws, paired by seed (the lists) and by resample (the arrays)."""
    return percentile_interval(np.mean(first, axis=0) - np.mean(second, axis=0), CONFIDENCE)
