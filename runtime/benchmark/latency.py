"""Timing systems against each other: interleaved in one process, on the same inputs, in random order.

One after the other, two systems meet another clock frequency, another neighbour on the machine, another cache; a few
per cent of difference, which is what is looked for here, drown in that. So every visit to an input runs all systems
back to back, in an order drawn anew each time, and the statistics compare within visits.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np

from ..evaluation.bootstrap import Interval, percentile_interval
from ..evaluation.metrics import Floats, Ints

Task = Callable[[int], object]
"""Runs one system on the input with this number; what it returns is handed to ``after``."""

Clock = Callable[[], int]
"""Nanoseconds since any fixed moment."""

BLOCKS = 50
"""Stretches of consecutive visits that the bootstrap resamples as a whole."""

RESAMPLES = 1000


@dataclass(frozen=True)
class Quantiles:
    """Percentiles (linear between order statistics) in microseconds."""

    p50_us: float
    p95_us: float
    p99_us: float

    @classmethod
    def of(cls, microseconds: Floats) -> Quantiles:
        """Of [m] latencies."""
        return cls(*(float(value) for value in np.percentile(microseconds, [50, 95, 99])))


@dataclass(frozen=True)
class Overhead:
    """What one system costs over another.

    Attributes:
        p50_percent: the ratio of the two p50, minus 1, in per cent.
        p95_percent: the same of the two p95.
        mean_percent: the same of the two means; of a system that has more to do for a few texts only, the p50 says
            nothing of those.
        p50_us: the difference of the two p50.
        p95_us: the difference of the two p95.
        paired_p50_us: the p50 of the differences within each visit.
        ci95_percent: 95 % bootstrap interval of ``p50_percent``.
    """

    p50_percent: float
    p95_percent: float
    mean_percent: float
    p50_us: float
    p95_us: float
    paired_p50_us: float
    ci95_percent: Interval

    @classmethod
    def of(cls, system: Floats, baseline: Floats, seed: int = 0) -> Overhead:
        """Of [m] latencies of ``system`` over [m] of ``baseline``, both in microseconds and in the order of visits."""
        p50, p95 = np.percentile(system, [50, 95])
        base50, base95 = np.percentile(baseline, [50, 95])
        return cls(
            p50_percent=float(100 * (p50 / base50 - 1)),
            p95_percent=float(100 * (p95 / base95 - 1)),
            mean_percent=float(100 * (system.mean() / baseline.mean() - 1)),
            p50_us=float(p50 - base50),
            p95_us=float(p95 - base95),
            paired_p50_us=float(np.median(system - baseline)),
            ci95_percent=median_ratio_interval(system, baseline, seed),
        )


def median_ratio_interval(system: Floats, baseline: Floats, seed: int = 0) -> Interval:
    """95 % bootstrap interval of ``100 * (median(system) / median(baseline) - 1)``.

    Visits are resampled in blocks of consecutive ones, both systems together: what disturbs a machine lasts longer
    than one visit, and visits resampled one by one would make the interval too narrow.

    Args:
        system: [m] latencies, in the order of visits.
        baseline: [m], of the same visits.
        seed: of the resampling.
    """
    pairs = np.stack([system, baseline], axis=1)
    size = max(1, len(pairs) // BLOCKS)
    blocks = pairs[: len(pairs) // size * size].reshape(-1, size, 2)
    rng = np.random.default_rng(seed)
    ratios = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        medians = np.median(blocks[rng.integers(0, len(blocks), len(blocks))].reshape(-1, 2), axis=0)
        ratios[i] = medians[0] / medians[1]
    return percentile_interval(100 * (ratios - 1), 0.95)


def visits(inputs: int, count: int, seed: int) -> Ints:
    """[count] input numbers: every input once in random order, then all again in another, and so on."""
    rng = np.random.default_rng(seed)
    rounds = -(-count // inputs)
    return np.concatenate([rng.permutation(inputs) for _ in range(rounds)])[:count].astype(np.int64)


def interleave(
    tasks: Sequence[Task],
    order_of_inputs: Ints,
    *,
    seed: int = 0,
    clock: Clock = perf_counter_ns,
    after: Callable[[int, int, object], object] | None = None,
) -> Floats:
    """Run every task on every visited input and time each run.

    Args:
        tasks: the systems.
        order_of_inputs: [m] input numbers, as of ``visits``.
        seed: of the order of the tasks within a visit.
        clock: for tests.
        after: called as ``after(visit, task, result)`` after each run, outside the timed stretch.

    Returns:
        Microseconds [m, tasks].
    """
    rng = np.random.default_rng(seed)
    turns = rng.permuted(np.tile(np.arange(len(tasks)), (len(order_of_inputs), 1)), axis=1)
    taken = np.empty(turns.shape)
    with _no_garbage_collection():
        for visit, (which, turn) in enumerate(zip(order_of_inputs.tolist(), turns.tolist(), strict=True)):
            for task in turn:
                run = tasks[task]
                began = clock()
                result = run(which)
                ended = clock()
                taken[visit, task] = (ended - began) / 1e3
                if after is not None:
                    after(visit, task, result)
                result = None  # freed here, not within the next one's stretch
    return taken


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection strikes at random and takes as long as what is timed here."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
