"""What more threads are worth: the stream of `Runtime.predict_many` on one thread and on several, in turns."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reaugkd.runtime.benchmark.latency import Clock
from reaugkd.runtime.inference.inputs import Text
from reaugkd.runtime.inference.pipeline import Pipeline
from reaugkd.runtime.inference.prediction import Prediction
from reaugkd.runtime.inference.streaming import one_by_one, side_by_side
from reaugkd.runtime.inference.student import StudentSession


@dataclass(frozen=True)
class Throughput:
    """Texts of a stream answered by one thread, and by several.

    Attributes:
        per_s: texts a second by number of threads, the median pass.
        speedup: several threads over one, the median of the passes; None where one is all there is.
        identical: whether several threads gave the same answers, bit for bit and in the same order.
    """

    per_s: dict[int, float]
    speedup: float | None
    identical: bool


def measure_streams(
    pipeline: Pipeline, student: StudentSession, texts: Sequence[Text], threads: int, passes: int, clock: Clock
) -> Throughput:
    """Answer the texts by one thread and by several, ``passes`` times each, the one that begins changing.

    Args:
        pipeline: answers.
        student: a session that uses one thread a run.
        texts: the stream; enough of them that starting threads does not count.
        threads: the larger number; 1 compares nothing.
        passes: over the texts. One before them warms up, and is where the answers are compared.
        clock: for tests.
    """

    def stream(count: int) -> Iterator[Prediction]:
        if count == 1:
            return one_by_one(lambda text: pipeline.answer(student, text), texts)
        return side_by_side(lambda text: pipeline.answer(student, text), texts, count)

    counts = sorted({1, threads})
    first, *others = [list(stream(count)) for count in counts]
    rates: dict[int, list[float]] = {count: [] for count in counts}
    for lap in range(passes):
        for count in counts if lap % 2 else reversed(counts):
            began = clock()
            deque(stream(count), maxlen=0)
            rates[count].append(1e9 * len(texts) / (clock() - began))
    speedups = [several / one for one, several in zip(rates[1], rates[counts[-1]], strict=True)]
    return Throughput(
        per_s={count: statistics.median(found) for count, found in rates.items()},
        speedup=statistics.median(speedups) if others else None,
        identical=all(other == first for other in others),
    )
