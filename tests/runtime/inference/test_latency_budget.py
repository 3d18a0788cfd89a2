from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_bundle import build_tiny_bundle, reseal, tiny_texts

from reaugkd import Runtime, UsageError
from reaugkd.runtime.inference import latency_budget as budgets
from reaugkd.runtime.inference.latency_budget import SEARCHES, Budget, measured_cost

TEXTS = tiny_texts(30, seed=2)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("budget") / "tiny")


def test_a_text_that_is_late_already_is_answered_by_the_student(path: Path) -> None:
    with Runtime.open(path, budget_ms=1e-6) as hurried:
        alone = hurried.with_retrieval("never")
        for text in TEXTS:
            found = hurried.predict(text)
            assert found.reason == "budget" and not found.retrieved and not found.neighbours
            assert found.probabilities.tobytes() == alone.predict(text).probabilities.tobytes()
        again: Runtime = pickle.loads(pickle.dumps(hurried))
        assert again.predict(TEXTS[0]).reason == "budget"


def test_with_all_the_time_in_the_world_nothing_changes(path: Path) -> None:
    with Runtime.open(path, budget_ms=1e6) as patient, Runtime.open(path, search="usearch") as usual:
        assert [patient.predict(text) for text in TEXTS] == [usual.predict(text) for text in TEXTS]


def test_the_time_spent_and_the_search_must_fit() -> None:
    budget = Budget(5.0, 1e6)  # 5 ms, of which a search takes 1
    assert budget.affords(0) and budget.affords(4_000_000)
    assert not budget.affords(4_000_001)


def test_the_estimate_rises_at_once_and_falls_slowly_to_the_undisturbed_cost() -> None:
    budget = Budget(5.0, 1e6)
    budget.learn(4_500_000)
    assert budget.estimate_us == 4500.0
    assert not budget.affords(1_000_000)
    budget.learn(2_000_000)
    assert budget.estimate_us == pytest.approx(4500 - 0.02 * 3500)
    for _ in range(400):  # texts without a search: one pause must not turn retrieval off for good
        budget.learn(None)
    assert budget.estimate_us == pytest.approx(1000, rel=0.1)
    assert budget.affords(3_900_000)


def test_a_cost_that_was_measured_under_load_is_forgotten() -> None:
    """Otherwise a runtime opened on a busy machine would never search."""
    budget, texts = Budget(5.0, 6e6), 0  # a search was seen to take 6 ms of 5
    while not budget.affords(1_000_000):
        budget.learn(None)
        texts += 1
    assert 2000 < texts < 3000  # 6 ms * 0.9998^n <= 4 ms, and the estimate follows
    budget.learn(200_000)
    for _ in range(300):
        budget.learn(200_000)
    assert budget.estimate_us == pytest.approx(200, rel=0.1)
    budget.learn(6_000_000)  # as slow again: the lowest stays known
    while not budget.affords(1_000_000):
        budget.learn(None)
        texts += 1
    assert texts < 3100


@given(st.lists(st.none() | st.integers(0, 10**10), max_size=50))
def test_the_estimate_is_never_below_the_last_search_nor_the_lowest(taken: list[int | None]) -> None:
    """The estimate is limited to four budgets."""
    budget = Budget(5.0, 1e6)
    lowest = 1e6
    for one in taken:
        budget.learn(one)
        lowest = min(lowest, 1e6 if one is None else one)
        assert budget.estimate_us >= min((one or 0) / 1e3, 20_000) * (1 - 1e-12)
        assert lowest / 1e3 * 0.99 <= budget.estimate_us <= 20_000


def test_the_way_back_from_a_pause_does_not_depend_on_how_long_it_was() -> None:
    ways = []
    for pause in (10**9, 10**12):
        budget, texts = Budget(5.0, 200_000), 0
        budget.learn(pause)
        while not budget.affords(1_000_000):
            budget.learn(None)
            texts += 1
        ways.append(texts)
    assert ways == [82, 82]  # 0.2 + 19.8 * 0.98^n <= 4 ms, and a little less


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf"), 1e7, "5"])
def test_invalid_budgets(path: Path, wrong: Any) -> None:
    with pytest.raises(UsageError, match="budget"):
        Runtime.open(path, budget_ms=wrong)


def test_an_empty_knowledge_base_has_no_search_to_measure(tmp_path: Path) -> None:
    with Runtime.open(build_tiny_bundle(tmp_path / "tiny", rows=0), budget_ms=1e-6) as runtime:
        assert runtime.predict(TEXTS[0]).reason == "empty"


def test_the_cost_is_that_of_the_calls_alone_and_pauses_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a test clock: the median of the calls, of which some take a thousand times as long."""
    now, calls = 0, []

    def spend(nanoseconds: int) -> None:
        nonlocal now
        now += nanoseconds

    def search(number: int) -> None:
        calls.append(number)
        spend(10**9 if number % 3 == 0 else 1000 + number)

    monkeypatch.setattr(budgets, "perf_counter_ns", lambda: now)
    cost = measured_cost(search, lambda: spend(10**6))
    assert calls == list(range(SEARCHES))
    assert cost == sorted(10**9 if number % 3 == 0 else 1000 + number for number in calls)[SEARCHES // 2] < 2000


def test_a_bundle_without_golden_texts_has_nothing_to_measure_on(tmp_path: Path) -> None:
    path = build_tiny_bundle(tmp_path / "tiny")
    reseal(path, golden=[])
    with Runtime.open(path, budget_ms=1e6) as runtime:
        assert runtime.predict(TEXTS[0]).retrieved
