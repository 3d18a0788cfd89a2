"""Tests over seeds against scipy and enumeration; resampled metrics against metrics of repeated rows."""

from __future__ import annotations

import itertools
import math
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from support.study_cells import gold_of, probabilities, system

from reaugkd.export.study.results import SystemResult, system_result
from reaugkd.export.study.statistics import (
    RESAMPLES,
    difference_interval,
    resampled,
    row_test,
    seed_test,
    sign_flip_p_value,
    spread,
)
from reaugkd.runtime.evaluation import metrics
from reaugkd.runtime.evaluation.bootstrap import mcnemar, resample_counts
from reaugkd.runtime.evaluation.metrics import METRICS

values = st.floats(-1, 1).map(lambda value: round(value, 6))


class TestSeeds:
    @given(st.lists(values, min_size=2, max_size=9))
    def test_spread(self, sample: list[float]) -> None:
        found = spread(sample)
        mean = math.fsum(sample) / len(sample)
        variance = math.fsum((value - mean) ** 2 for value in sample) / (len(sample) - 1)
        assert found.n == len(sample)
        assert found.mean == pytest.approx(mean, abs=1e-12)
        assert found.sd == pytest.approx(math.sqrt(variance), abs=1e-9)

    def test_one_value_has_no_spread(self) -> None:
        assert spread([0.25]) == spread((0.25,))
        assert (spread([0.25]).n, spread([0.25]).mean, spread([0.25]).sd) == (1, 0.25, None)

    def test_three_seeds_by_hand(self) -> None:
        found = seed_test([0.01, 0.02, 0.03])
        assert (found.n, found.mean, found.sd) == (3, pytest.approx(0.02), pytest.approx(0.01))
        # t of 2 degrees of freedom at 97.5 %: 4.30265
        reach = 4.302652729911275 * 0.01 / math.sqrt(3)
        assert found.interval == pytest.approx((0.02 - reach, 0.02 + reach), rel=1e-9)
        assert found.flip_p_value == 0.25

    def test_fewer_seeds_have_no_test(self) -> None:
        found = seed_test([0.1, 0.2])
        assert (found.n, found.interval, found.t_p_value, found.flip_p_value) == (2, None, None, None)
        assert seed_test([0.1]).sd is None

    @pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (0.25, 0.0)])
    def test_seeds_that_agree_exactly(self, value: float, p: float) -> None:
        found = seed_test([value] * 4)
        assert found.interval == (value, value) and found.t_p_value == p
        assert found.flip_p_value == (1.0 if not value else 2 / 16)

    @given(st.lists(st.integers(-50, 50), min_size=3, max_size=8))
    def test_every_sign_pattern_counts(self, sample: list[int]) -> None:
        observed = abs(Fraction(sum(sample)))
        patterns = list(itertools.product((1, -1), repeat=len(sample)))
        extreme = [
            abs(sum(sign * value for sign, value in zip(signs, sample, strict=True))) >= observed for signs in patterns
        ]
        assert sign_flip_p_value(np.array(sample) / 7) == sum(extreme) / len(patterns)

    def test_many_seeds_are_sampled(self) -> None:
        sample = np.random.default_rng(3).normal(0.4, 1, 24)
        p = sign_flip_p_value(sample)
        assert p == sign_flip_p_value(sample) > 0
        assert p == pytest.approx(float(stats.ttest_1samp(sample, 0).pvalue), abs=0.02)
        assert sign_flip_p_value(np.ones(20)) == pytest.approx(1 / 2**15, abs=2 / 2**15)


def repeated(one: SystemResult, p: np.ndarray, teacher: np.ndarray | None, counts: np.ndarray) -> dict[str, float]:
    """The metrics of one resample, its rows written out."""
    rows = np.repeat(np.arange(len(p)), counts.astype(int))
    gold = one.gold[rows].astype(np.int64)
    scores = metrics.score(p[rows], gold, None if teacher is None else teacher[rows])
    return {name: value for name, value in scores.items() if value is not None}


class TestRows:
    @settings(max_examples=20)
    @given(st.integers(0, 10**6), st.sampled_from(["one", "two", "other"]), st.booleans())
    def test_every_draw_is_the_metric_of_the_rows_drawn(self, seed: int, task: str, with_teacher: bool) -> None:
        gold = gold_of("one")
        # As float32, which is what is kept.
        p, t = (probabilities(40, seed + n).astype(np.float32).astype(np.float64) for n in (0, 1))
        one, teacher = system_result("student", p, gold), system_result("teacher", t, gold)
        teachers = {"x": teacher if with_teacher else None}
        found = {name: resampled(task, {"x": one}, teachers, name) for name in [*METRICS, "heldout_nll_blend"]}
        draws = {name: values["x"] for name, values in found.items() if values}
        assert set(draws) == METRICS.keys() - {"teacher_kl", *(() if with_teacher else ("teacher_agreement",))}
        counts = next(resample_counts(40, RESAMPLES, zlib.crc32(task.encode())))
        for number in range(0, RESAMPLES, 97):
            by_hand = repeated(one, p, t if with_teacher else None, counts[:, number])
            for name in draws:
                assert draws[name][number] == pytest.approx(by_hand[name], abs=1e-9), name

    def test_mcc_where_a_class_is_never_answered_or_never_true(self) -> None:
        gold = np.array([0, 0, 1, 1, 0, 1, 0, 1])
        p = np.full((8, 4), 0.1)
        p[np.arange(8), [0, 0, 3, 3, 3, 0, 0, 0]] = 0.7
        one = system_result("student", p, gold)
        draws = resampled("x", {0: one}, {0: None}, "mcc")[0]
        counts = next(resample_counts(8, RESAMPLES, zlib.crc32(b"x")))
        for number in range(0, RESAMPLES, 31):
            assert draws[number] == pytest.approx(repeated(one, p, None, counts[:, number])["mcc"], abs=1e-9)

    def test_tasks_are_drawn_apart_and_again_the_same(self) -> None:
        one = system("student", gold_of("one"), 1)
        first, again, other = (resampled(task, {0: one}, {0: None}, "accuracy")[0] for task in ("a", "a", "b"))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_other_rows_are_left_out(self) -> None:
        systems = {"a": system("student", gold_of("one"), 1), "b": system("student", gold_of("two"), 1)}
        assert list(resampled("x", systems, {}, "nll")) == ["a"]
        assert resampled("x", {}, {}, "nll") == {}

    def test_the_interval_is_paired(self) -> None:
        one, other = (system("student", gold_of("one"), seed) for seed in (1, 2))
        draws = resampled("x", {0: one, 1: other}, {}, "accuracy")
        first, second = draws[0], draws[1]
        assert difference_interval([first, second], [second, first]) == (0.0, 0.0)
        expected = np.quantile(first - second, [0.025, 0.975])
        assert difference_interval([first], [second]) == pytest.approx(tuple(expected))
        mean = np.quantile((first + second) / 2 - second, [0.025, 0.975])
        assert difference_interval([first, second], [second, second]) == pytest.approx(tuple(mean))

    def test_one_seed_has_mcnemars_test(self) -> None:
        first, second = system("a", gold_of("one"), 1), system("b", gold_of("one"), 2)
        expected, found = mcnemar(first.correct, second.correct), row_test([(first, second)])
        assert found is not None
        assert (found.first_only, found.second_only) == (expected.first_only, expected.second_only)
        assert found.p_value == pytest.approx(expected.p_value, rel=1e-9)

    @given(st.integers(0, 2**20), st.integers(1, 3), st.integers(1, 9))
    def test_rows_flip_as_a_whole(self, seed: int, seeds: int, rows: int) -> None:
        """Against every pattern of signs of the rows' leads."""
        generator = np.random.default_rng(seed)
        gold = np.zeros(rows, np.int64)
        pairs = [(answers("a", generator, gold), answers("b", generator, gold)) for _ in range(seeds)]
        leads = sum(a.correct.astype(int) - b.correct for a, b in pairs)
        sums = [abs(int(np.dot(signs, leads))) for signs in itertools.product((1, -1), repeat=rows)]
        expected = sum(value >= abs(int(leads.sum())) for value in sums) / len(sums)
        found = row_test(pairs)
        assert found is not None and found.p_value == pytest.approx(expected, rel=1e-9)
        assert found.first_only - found.second_only == leads.sum()

    def test_equal_answers_of_more_seeds_add_no_evidence(self) -> None:
        pair = system("a", gold_of("one"), 1), system("b", gold_of("one"), 2)
        one, three = row_test([pair]), row_test([pair] * 3)
        assert one is not None and three is not None and three.p_value == pytest.approx(one.p_value)
        assert three.first_only == 3 * one.first_only > 0

    def test_it_needs_the_same_rows(self) -> None:
        assert row_test([]) is None
        one, other = (system("a", gold_of(task), 1) for task in ("one", "two"))
        assert row_test([(one, other)]) is None and row_test([(one, one), (other, other)]) is None


def answers(name: str, generator: np.random.Generator, gold: NDArray[np.int64]) -> SystemResult:
    """A system that is right half the time."""
    return system_result(name, np.eye(2)[generator.integers(0, 2, len(gold))], gold)
