"""Parsing and validation of an abstention goal."""

from __future__ import annotations

import pytest

from reaugkd import Abstain, UsageError
from reaugkd.runtime.decision.abstention_goal import checked_abstain


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("coverage=95%", Abstain(coverage=0.95)),
        ("coverage:0.95", Abstain(coverage=0.95)),
        (" coverage = 100 % ", Abstain(coverage=1.0)),
        ("error=2%", Abstain(error=0.02)),
        ("error=.005", Abstain(error=0.005)),
        ("threshold=6.5", Abstain(threshold=6.5)),
        ("threshold=0", Abstain(threshold=0.0)),
    ],
)
def test_a_goal_in_words(text: str, goal: Abstain) -> None:
    assert Abstain.parse(text) == goal == checked_abstain(text) == checked_abstain(goal)


@pytest.mark.parametrize("text", ["", "95%", "coverage", "coverage=", "cover=5%", "threshold=5%", "error=nan", "a=b=c"])
def test_words_that_are_no_goal(text: str) -> None:
    with pytest.raises(UsageError, match=r"Write coverage=95%"):
        Abstain.parse(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"coverage": 0.0},
        {"coverage": 1.01},
        {"coverage": True},
        {"error": 0.0},
        {"error": 1.0},
        {"error": "2%"},
        {"threshold": -1.0},
        {"threshold": float("nan")},
        {},
        {"coverage": 0.9, "error": 0.1},
    ],
)
def test_numbers_that_are_no_goal(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Abstain(**wrong)


def test_other_things_are_no_goal() -> None:
    with pytest.raises(UsageError, match="an Abstain, or its text"):
        checked_abstain(0.95)
