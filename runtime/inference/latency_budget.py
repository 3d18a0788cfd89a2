"""The latency budget: skips the search for a text that has used up its time.

The student's run takes most of a long text's time and cannot be interrupted. The search follows it and can be skipped:
it is skipped if the time spent and the estimated time of search and blend exceed the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

from ...errors import UsageError

_DECAY = 0.02
"""The share of the way to the undisturbed cost by which the estimate falls with each text."""

_FORGET = 0.0002
"""The share by which the undisturbed cost falls with each text without a search. If every search seems too slow, one is
tried again after a few thousand texts."""

_CEILING = 4
"""The largest estimate, in budgets."""

SEARCHES = 15
"""Searches of one cost measurement."""

_MAX_MS = 1e6


class Budget:
    """A time limit per text, and a conservative estimate of what search and blend cost under the current load.

    The estimate rises at once to the cost of a slower search, at most to four budgets, and falls by a fiftieth of the
    way to the undisturbed cost with each text. So under load it is near the slowest of about a hundred searches, and
    after one long pause searches resume within some hundred texts. It falls with texts without a search, too. The
    undisturbed cost is the lowest cost seen. It may have been measured on a busy machine and then exceed any budget, so
    it falls slowly without searches, until one is tried.

    Args:
        limit_ms: milliseconds per text, more than 0.
        cost_ns: nanoseconds of search and blend, measured on this machine.

    Raises:
        UsageError: the limit is unusable.
    """

    def __init__(self, limit_ms: float, cost_ns: float) -> None:
        self._limit_ns = checked_budget(limit_ms) * 1e6
        self._lowest = self._floor = self._estimate = cost_ns

    @property
    def estimate_us(self) -> float:
        """The estimated cost of search and blend in microseconds."""
        return self._estimate / 1e3

    def affords(self, spent_ns: int) -> bool:
        """Whether a search would end in time after so many nanoseconds."""
        return spent_ns + self._estimate <= self._limit_ns

    def learn(self, taken_ns: int | None) -> None:
        """Update the estimate with the time that search and blend took; None if they were skipped."""
        if taken_ns is None:
            self._floor *= 1 - _FORGET
        else:
            self._floor = self._lowest = min(self._lowest, taken_ns)
        fallen = self._estimate + (self._floor - self._estimate) * _DECAY
        self._estimate = fallen if taken_ns is None else max(fallen, min(taken_ns, _CEILING * self._limit_ns))


def checked_budget(limit_ms: object) -> float:
    """A latency budget in milliseconds.

    Raises:
        UsageError: it is not a number above 0 and at most 1,000,000.
    """
    if isinstance(limit_ms, int | float) and not isinstance(limit_ms, bool) and 0 < limit_ms <= _MAX_MS:
        return float(limit_ms)
    expected = f"milliseconds, more than 0, at most {_MAX_MS:,.0f}"
    raise UsageError("the budget is unusable", found=limit_ms, expected=expected)


def measured_cost(search: Callable[[int], object], before: Callable[[], object]) -> float:
    """The median time of 15 searches on this machine, in nanoseconds.

    It is measured when a runtime is opened, in some milliseconds, and not stored: load, clock frequency and container
    limits change it.

    Args:
        search: called with the number of the search.
        before: called before each search, outside of the measured time, to leave the caches as a prediction does.
    """
    taken = []
    for number in range(SEARCHES):
        before()
        began = perf_counter_ns()
        search(number)
        taken.append(perf_counter_ns() - began)
    return float(sorted(taken)[SEARCHES // 2])
