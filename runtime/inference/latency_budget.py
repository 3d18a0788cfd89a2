"""The budget: a text that has used up its time is answered without the search.

The student's run cannot be cut short, and it is what long texts spend their time on. The search comes after it and can
be left out: so it is, where what was spent and what a search has been seen to take add up to more than the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

from ...errors import UsageError

_FALL = 0.02
"""How much of the way back to the undisturbed cost the estimate takes with each text."""

_RECHECK = 0.0002
"""How much of the undisturbed cost is forgotten with each text without a search: where none can be afforded, so that
one is tried again after a few thousand texts."""

_CEILING = 4
"""Limits above which the estimate does not rise."""

SEARCHES = 15
"""Calls of the measurement."""

_MOST_MS = 1e6


class Budget:
    """A limit a text, and a high estimate of what search and blend take on this machine as it is now.

    The estimate rises to the slowest seen at once and falls by a fiftieth a text, so that under load it stands near the
    slowest of the last hundred or so; it falls with texts that do without a search, too, or one long pause would turn
    retrieval off for good. It never stands above four limits: from there it is back in some hundred texts, whether the
    pause was of a second or an hour. The undisturbed cost is the lowest seen; measured while the machine was busy it
    may be more than there ever is time for, so without searches it is slowly forgotten until one is tried.

    Args:
        limit_ms: milliseconds that a text may take, more than 0.
        cost_ns: nanoseconds of search and blend, measured on this machine.

    Raises:
        UsageError: a limit that cannot be meant.
    """

    def __init__(self, limit_ms: float, cost_ns: float) -> None:
        self._limit_ns = checked_budget(limit_ms) * 1e6
        self._lowest = self._floor = self._estimate = cost_ns

    @property
    def estimate_us(self) -> float:
        """What search and blend are reckoned to take, in microseconds."""
        return self._estimate / 1e3

    def affords(self, spent_ns: int) -> bool:
        """Whether a search is in time after so many nanoseconds."""
        return spent_ns + self._estimate <= self._limit_ns

    def learn(self, taken_ns: int | None) -> None:
        """Take in what search and blend took this time; None for a text without them."""
        if taken_ns is None:
            self._floor *= 1 - _RECHECK
        else:
            self._floor = self._lowest = min(self._lowest, taken_ns)
        fallen = self._estimate + (self._floor - self._estimate) * _FALL
        self._estimate = fallen if taken_ns is None else max(fallen, min(taken_ns, _CEILING * self._limit_ns))


def checked_budget(limit_ms: float) -> float:
    """A budget in milliseconds.

    Raises:
        UsageError: it is no number above 0, or beyond a quarter of an hour.
    """
    try:
        usable = 0 < limit_ms <= _MOST_MS
    except TypeError:
        usable = False
    if not usable:
        expected = f"milliseconds, more than 0, at most {_MOST_MS:,.0f}"
        raise UsageError("the budget is unusable", found=limit_ms, expected=expected)
    return float(limit_ms)


def measured_cost(search: Callable[[int], object], before: Callable[[], object]) -> float:
    """Nanoseconds that ``search`` takes here: the median of 15 calls, so that no pause meanwhile counts as its cost.

    Measured when a runtime is opened, which takes some milliseconds, and not kept in a file: another load, another
    clock frequency or another container on the same machine make another cost.

    Args:
        search: takes the call's number.
        before: called ahead of each, untimed: leaves the caches as a search finds them.
    """
    taken = []
    for number in range(SEARCHES):
        before()
        began = perf_counter_ns()
        search(number)
        taken.append(perf_counter_ns() - began)
    return float(sorted(taken)[SEARCHES // 2])
