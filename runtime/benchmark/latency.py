"""Interleaved timing of several systems: in one process, on the same inputs, in random order.

Measured one after the other, two systems differ in clock frequency, load and caches by more than the few per cent that
matter here. So every visit to an input runs all systems one after the other, in a new random order, and the statistics
compare latencies of the same visit. Before its measured run, a system answers other inputs: it finds the processor's
caches as in a program of its own, not as another system left them. Otherwise systems that share a session would win.
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
"""Runs one system on the input with this number; the result is passed to ``after``."""

Clock = Callable[[], int]
"""Returns nanoseconds since a fixed point in time."""

BLOCKS = 50
"""Number of blocks of consecutive visits for the block bootstrap."""

RESAMPLES = 1000

SETTLING = 5
"""Unmeasured runs before each measured one. With none, a session that only one of four systems uses seems 300 us slower
than one that three of them use; with three or more, the difference stays the same."""


@dataclass(frozen=True)
class Quantiles:
    """Percentiles of latencies in microseconds, by linear interpolation between order statistics."""

    p50_us: float
    p95_us: float
    p99_us: float

    @classmethod
    def of(cls, microseconds: Floats) -> Quantiles:
        """Compute the percentiles of latencies [m]."""
        return cls(*(float(value) for value in np.percentile(microseconds, [50, 95, 99])))


@dataclass(frozen=True)
class Overhead:
    """The latency of one system relative to a baseline.

    Attributes:
        p50_percent: the ratio of the two p50, minus 1, in per cent.
        p95_percent: the same of the two p95.
        mean_percent: the same of the two means, which include the few slow texts of a gated system.
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
        """Compare latencies [m] of two systems, in microseconds, in the order of visits."""
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
    """Compute the 95 % bootstrap interval of ``100 * (median(system) / median(baseline) - 1)``.

    Blocks of consecutive visits are resampled, both systems together: a disturbance lasts longer than one visit, so
    independent visits would give a too narrow interval.

    Args:
        system: latencies [m], in the order of visits.
        baseline: latencies [m] of the same visits.
        seed: seed of the resampling.
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
    """Return ``count`` input numbers: all inputs in random order, then all in another random order, and so on."""
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
    """Time every task on every visited input.

    Args:
        tasks: the systems.
        order_of_inputs: input numbers [m], from ``visits``.
        seed: seed of the order of tasks within a visit.
        clock: clock in nanoseconds; another one for tests.
        after: called as ``after(visit, task, result)`` after each run, outside of the measured time.

    Returns:
        Microseconds [m, tasks].
    """
    rng = np.random.default_rng(seed)
    turns = rng.permuted(np.tile(np.arange(len(tasks)), (len(order_of_inputs), 1)), axis=1)
    taken = np.empty(turns.shape)
    with _no_garbage_collection():
        order = order_of_inputs.tolist()
        for visit, (which, turn) in enumerate(zip(order, turns.tolist(), strict=True)):
            for task in turn:
                run = tasks[task]
                for earlier in range(1, SETTLING + 1):
                    run(order[(visit - earlier) % len(order)])
                began = clock()
                result = run(which)
                ended = clock()
                taken[visit, task] = (ended - began) / 1e3
                if after is not None:
                    after(visit, task, result)
                result = None  # freed outside of the measured time
    return taken


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection, which takes as long as a run and happens at random."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
