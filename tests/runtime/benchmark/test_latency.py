"""Interleaved timing with a test clock."""

from __future__ import annotations

import gc
from collections import Counter
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reaugkd.runtime.benchmark import latency
from reaugkd.runtime.benchmark.latency import SETTLING, Overhead, Quantiles, interleave, median_ratio_interval, visits


class Clock:
    """A clock that only the tasks advance."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def test_each_run_is_timed_and_handed_on() -> None:
    clock = Clock()
    calls: list[tuple[int, int]] = []
    noted: list[tuple[int, int, object]] = []

    def task(number: int, cost: int) -> object:
        def run(which: int) -> str:
            calls.append((number, which))
            clock.now += cost * (which + 1) * 1000
            return f"{number}:{which}"

        return run

    def after(visit: int, which: int, result: object) -> None:
        clock.now += 10**9  # what is done with a result is not timed
        noted.append((visit, which, result))

    order = visits(4, 10, seed=0)
    taken = interleave([task(0, 1), task(1, 2), task(2, 5)], order, clock=clock, after=after)  # type: ignore[list-item]
    assert np.array_equal(taken, (order[:, None] + 1) * np.array([1.0, 2.0, 5.0]))
    # Before each measured run, the same system answers the inputs of the visits before, unmeasured.
    runs = [int(which) for earlier in range(SETTLING + 1) for which in np.roll(order, earlier)]
    assert sorted(calls) == sorted((number, which) for number in range(3) for which in runs)
    assert {result for _, _, result in noted} == {f"{number}:{which}" for number, which in calls}
    assert [visit for visit, _, _ in noted] == [visit for visit in range(10) for _ in range(3)]
    assert all(result == f"{which}:{order[visit]}" for visit, which, result in noted)


def test_the_order_of_the_systems_changes_and_favours_none() -> None:
    first: Counter[int] = Counter()
    turn: list[int] = []

    def task(number: int) -> object:
        return lambda which: turn.append(number)

    interleave([task(0), task(1)], visits(1, 400, seed=0), seed=1)  # type: ignore[list-item]
    each = SETTLING + 1
    for start in range(0, len(turn), 2 * each):
        one, other = turn[start : start + each], turn[start + each : start + 2 * each]
        assert len({*one}) == len({*other}) == 1 and {one[0], other[0]} == {0, 1}
        first[one[0]] += 1
    assert 160 < first[0] < 240


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_meanwhile(enabled: bool) -> None:
    before = gc.isenabled()
    states: list[bool] = []
    try:
        gc.enable() if enabled else gc.disable()
        interleave([lambda which: states.append(gc.isenabled())], visits(1, 3, seed=0))
        assert states == [False] * 3 * (SETTLING + 1)
        assert gc.isenabled() is enabled
        with pytest.raises(ZeroDivisionError):
            interleave([lambda which: 1 // 0], visits(1, 1, seed=0))
        assert gc.isenabled() is enabled
    finally:
        gc.enable() if before else gc.disable()


@given(st.integers(1, 20), st.integers(1, 100), st.integers(0, 9))
def test_every_input_is_visited_as_often_as_any_other(inputs: int, count: int, seed: int) -> None:
    order = visits(inputs, count, seed)
    times = np.bincount(order, minlength=inputs)
    assert len(order) == count and len(times) == inputs
    assert times.max() - times.min() <= 1
    assert np.array_equal(order, visits(inputs, count, seed))


def test_quantiles() -> None:
    assert Quantiles.of(np.arange(101.0)) == Quantiles(50.0, 95.0, 99.0)
    assert Quantiles.of(np.array([7.0])) == Quantiles(7.0, 7.0, 7.0)


latencies = arrays(np.float64, st.integers(2, 300), elements=st.floats(1, 1e6))


@given(latencies)
def test_quantiles_are_ordered(values: np.ndarray) -> None:
    found = Quantiles.of(values)
    assert values.min() <= found.p50_us <= found.p95_us <= found.p99_us <= values.max()


@settings(max_examples=20, deadline=None)
@given(latencies)
def test_a_system_costs_nothing_over_itself(values: np.ndarray) -> None:
    with mock.patch.object(latency, "RESAMPLES", 20):  # of which every one gives 0
        assert Overhead.of(values, values) == Overhead(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (0.0, 0.0))


def test_overhead_of_known_latencies() -> None:
    baseline = np.arange(1.0, 102.0)
    found = Overhead.of(2 * baseline, baseline)
    assert (found.p50_percent, found.p95_percent) == pytest.approx((100, 100))
    assert (found.p50_us, found.p95_us, found.paired_p50_us) == pytest.approx((51, 96, 51))
    assert found.ci95_percent == pytest.approx((100, 100))


def test_paired_differences_find_small_changes() -> None:
    """One microsecond more per visit is found exactly, although the texts vary a lot in length."""
    baseline = np.random.default_rng(0).uniform(100, 10_000, 500)
    found = Overhead.of(baseline + 1, baseline)
    assert found.paired_p50_us == pytest.approx(1)
    low, high = found.ci95_percent
    assert 0 < low <= found.p50_percent <= high < 0.1


@pytest.mark.slow
def test_the_interval_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(60):
        baseline = rng.lognormal(0, 0.1, 400)
        system = 1.05 * baseline * rng.lognormal(0, 0.02, 400)
        low, high = median_ratio_interval(system, baseline, seed=trial)
        covered += low <= 5 <= high
    assert covered >= 51  # 95 % of 60 is 57; fewer than 51 has a chance of less than 1 %


def test_slow_disturbances_widen_the_interval() -> None:
    """The same latencies, with long disturbances and shuffled."""
    rng = np.random.default_rng(2)
    stretches = np.repeat(rng.random(20) < 0.5, 50)
    baseline = np.full(1000, 10.0) + rng.normal(0, 0.1, 1000)
    system = baseline + np.where(stretches, 1.0, 0.0)
    mixed = rng.permutation(1000)
    low, high = median_ratio_interval(system, baseline)
    shuffled_low, shuffled_high = median_ratio_interval(system[mixed], baseline[mixed])
    assert high - low > shuffled_high - shuffled_low


def test_fewer_visits_than_blocks() -> None:
    low, high = median_ratio_interval(np.array([2.0, 2.0, 4.0]), np.array([1.0, 1.0, 1.0]))
    assert low == 100 and high == 300


def test_visits_do_not_follow_a_pattern() -> None:
    order = visits(50, 100, seed=0)
    assert not np.array_equal(order[:50], order[50:])
    assert any(abs(one - two) > 1 for one, two in pairwise(order.tolist()))
