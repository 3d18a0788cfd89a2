from __future__ import annotations

import io

import pytest

from reaugkd.runtime.output.progress import ProgressLine, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(written: str) -> str:
    """Return what a terminal shows after these characters."""
    line: list[str] = []
    at = 0
    for mark in written:
        if mark == "\r":
            at = 0
        else:
            line[at : at + 1] = [mark]
            at += 1
    return "".join(line).rstrip()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_shows_itself_after_two_seconds_and_goes_at_the_end(clock: Clock) -> None:
    out = Terminal()
    line = ProgressLine("eval", "row", out, clock=clock)
    for done, now, expected in (
        (1, 100.0, ""),
        (100, 101.9, ""),
        (200, 102.0, "eval: 200/1,000 rows, 8 s left"),
        (210, 102.4, "eval: 200/1,000 rows, 8 s left"),  # not yet again
        (500, 105.0, "eval: 500/1,000 rows, 5 s left"),
        (1000, 110.0, ""),
    ):
        clock.now = now
        line(done, 1000)
        assert shown(out.getvalue()) == expected
    assert "\n" not in out.getvalue()


def test_a_shorter_line_leaves_nothing_of_a_longer_one(clock: Clock) -> None:
    out = Terminal()
    line = ProgressLine("x", "row", out, clock=clock)
    for now, done in ((110.0, 1), (1100.0, 999_999)):
        clock.now = now
        line(done, 1_000_000)
    assert shown(out.getvalue()) == "x: 999,999/1,000,000 rows, 0 s left"


def test_without_a_total_it_shows_the_speed(clock: Clock) -> None:
    out = Terminal()
    line = ProgressLine("predict", "row", out, clock=clock)
    clock.now = 104.0
    line(8000)
    assert shown(out.getvalue()) == "predict: 8,000 rows, 2,000 a second"
    line.clear()
    line.clear()
    assert shown(out.getvalue()) == ""


def test_nothing_done_yet(clock: Clock) -> None:
    out = Terminal()
    line = ProgressLine("bench", "step", out, clock=clock)
    clock.now = 103.0
    line(0, 10)
    assert shown(out.getvalue()) == "bench: 0/10 steps, ? left"


def test_a_line_never_wraps(clock: Clock) -> None:
    out = Terminal()
    line = ProgressLine("evaluate", "row", out, columns=20, clock=clock)
    clock.now = 103.0
    line(123, 456)
    assert shown(out.getvalue()) == "evaluate: 123/456 r"


def test_logs_stay_clean(clock: Clock) -> None:
    out = io.StringIO()
    line = ProgressLine("eval", "row", out, clock=clock)
    for done in range(11):
        clock.now += 10
        line(done, 10)
    line.clear()
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (5000, "83 min"), (11_100, "3 h 05 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
