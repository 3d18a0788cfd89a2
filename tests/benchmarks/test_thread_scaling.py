"""Throughput on a clock that the streams set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import pytest
from support.tiny_bundle import tiny_texts

from reaugkd.benchmarks.sweep import thread_scaling as speedup
from reaugkd.benchmarks.sweep.thread_scaling import measure_streams
from reaugkd.runtime.inference.pipeline import Pipeline
from reaugkd.runtime.inference.retrieval_policy import RetrievalPolicy
from reaugkd.runtime.runtime import Runtime

TEXTS = tiny_texts(10, seed=5)


class Streams:
    """Stand-ins for the two kinds of streams that take a millisecond a text, or a quarter of it."""

    def __init__(self, answers: list[str]) -> None:
        self.now, self.answers, self.order = 0, answers, ""

    def one_by_one(self, *_: Any) -> Iterator[Any]:
        yield from self._run("1", 1_000_000, TEXTS)

    def side_by_side(self, *given: Any) -> Iterator[Any]:
        assert given[2] == 3
        yield from self._run("3", 250_000, self.answers)

    def _run(self, name: str, took: int, answers: list[Any]) -> Iterator[Any]:
        self.order += name
        for answer in answers:
            self.now += took
            yield answer


def measured(monkeypatch: pytest.MonkeyPatch, streams: Streams, passes: int = 4) -> speedup.Throughput:
    monkeypatch.setattr(speedup, "one_by_one", streams.one_by_one)
    monkeypatch.setattr(speedup, "side_by_side", streams.side_by_side)
    return measure_streams(None, None, TEXTS, 3, passes, lambda: streams.now)  # type: ignore[arg-type]


def test_rates_are_the_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(list(TEXTS))
    found = measured(monkeypatch, streams)
    assert found == speedup.Throughput({1: pytest.approx(1000), 3: pytest.approx(4000)}, pytest.approx(4.0), True)
    assert streams.order == "13" + "31" + "13" + "31" + "13"  # a warm-up, then each is first as often as the other


@pytest.mark.parametrize("others", [[*TEXTS[:-1], "other"], TEXTS[::-1], TEXTS[:-1]])
def test_other_answers_are_noticed(monkeypatch: pytest.MonkeyPatch, others: list[str]) -> None:
    assert not measured(monkeypatch, Streams(others)).identical


def test_real_streams(edge_bundle: Path) -> None:
    with Runtime.open(edge_bundle) as runtime:
        pipeline = Pipeline(runtime.manifest, runtime.tokenizer, runtime.knowledge_base, RetrievalPolicy())
        several = measure_streams(pipeline, runtime.student, TEXTS, 2, 1, perf_counter_ns)
        single = measure_streams(pipeline, runtime.student, TEXTS, 1, 2, perf_counter_ns)
    assert several.identical and set(several.per_s) == {1, 2}
    assert several.speedup == pytest.approx(several.per_s[2] / several.per_s[1])
    assert (single.speedup, single.identical, set(single.per_s)) == (None, True, {1})
