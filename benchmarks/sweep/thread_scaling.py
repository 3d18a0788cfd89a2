"""Throughput of `Runtime.predict_many` on one thread and on several, measured alternately."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reaugkd.runtime.benchmark.latency import Clock
from reaugkd.runtime.inference.pipeline import Pipeline
from reaugkd.runtime.inference.prediction import Prediction
from reaugkd.runtime.inference.streaming import one_by_one, side_by_side
from reaugkd.runtime.inference.text.inputs import Text


@dataclass(frozen=True)
class Throughput:
    """Throughput of a stream on one thread and on several.

    Attributes:
        per_s: texts per second by number of threads, the median pass.
        speedup: throughput of several threads relative to one, the median of the passes; None with one thread.
        identical: whether several threads gave the same answers, bit for bit and in the same order.
    """

    per_s: dict[int, float]
    speedup: float | None
    identical: bool


def measure_streams(pipeline: Pipeline, texts: Sequence[Text], threads: int, passes: int, clock: Clock) -> Throughput:
    """Predict the texts on one thread and on several, ``passes`` times each; the order alternates.

    Args:
        pipeline: the pipeline that predicts, with one thread per run.
        texts: the stream; long enough that the start of threads does not matter.
        threads: the larger number of threads; with 1 there is no comparison.
        passes: passes over the texts, after one for warm-up, in which the answers are compared.
        clock: clock in nanoseconds; another one for tests.
    """

    def stream(count: int) -> Iterator[Prediction]:
        if count == 1:
            return one_by_one(pipeline.answer, texts)
        return side_by_side(pipeline.answer, texts, count)

    counts = sorted({1, threads})
    first, *others = [list(stream(count)) for count in counts]
    rates: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(passes):
        for count in counts if number % 2 else reversed(counts):
            began = clock()
            deque(stream(count), maxlen=0)
            rates[count].append(1e9 * len(texts) / (clock() - began))
    speedups = [several / one for one, several in zip(rates[1], rates[counts[-1]], strict=True)]
    return Throughput(
        per_s={count: statistics.median(found) for count, found in rates.items()},
        speedup=statistics.median(speedups) if others else None,
        identical=all(other == first for other in others),
    )
