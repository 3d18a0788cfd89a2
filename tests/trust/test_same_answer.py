"""The same text gets the same prediction, bit for bit, in any context and through any interface."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.command_line import ok, records
from support.workshop import Workshop

from reaugkd import Prediction, Runtime

WORDS = "wake clock bell song album rain storm the my please can you set give tomorrow evening unheard-of ?".split()
THREADS = (1, 2, 4)
# From one word to far beyond what the model reads: alone, the model is never padded, and no text is cut to another's.
texts_strategy = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map(" ".join), min_size=1, max_size=10
)


@pytest.fixture(scope="module")
def runtimes(workshop: Workshop) -> Iterator[dict[int, Runtime]]:
    """Runtimes of a trained student in dynamic int8, by the number of threads."""
    opened = {threads: Runtime.open(workshop.bundle, threads=threads) for threads in THREADS}
    assert opened[1].manifest.quantization["kind"] == "dynamic"
    yield opened
    for runtime in opened.values():
        runtime.close()


def bits(answer: Prediction | dict[str, Any]) -> tuple[object, ...]:
    """Return all numbers of a prediction, or of a record of the command line."""
    record = json.loads(json.dumps(answer.as_record(explain=True))) if isinstance(answer, Prediction) else answer
    vectors = [
        np.array(list(record[name].values()), np.float32).tobytes()
        for name in ("probabilities", "student_probabilities", "retrieval_probabilities")
    ]
    near = [(one["row"], one["similarity"], one["weight"], one["text"]) for one in record["neighbours"]]
    return (record["label"], record["probability"], record["student_weight"], *vectors, *near)


@settings(max_examples=30, deadline=None)
@given(texts=texts_strategy, order=st.randoms(use_true_random=False))
def test_company_order_and_threads_do_not_matter(
    runtimes: dict[int, Runtime], texts: list[str], order: random.Random
) -> None:
    alone = {text: runtimes[1].predict(text) for text in texts}
    padded = [*texts, "a", *texts[::-1], "rain " * 100]
    order.shuffle(padded)
    for runtime in runtimes.values():
        for stream in (texts, padded):
            expected = [alone.get(text) or runtimes[1].predict(text) for text in stream]
            assert list(runtime.predict_many(stream)) == expected
            assert [runtime.predict(text) for text in stream] == expected


@settings(max_examples=8, deadline=None)
@given(texts=texts_strategy, threads=st.sampled_from(THREADS))
def test_the_command_line_gives_the_same_numbers(
    workshop: Workshop, runtimes: dict[int, Runtime], texts: list[str], threads: int
) -> None:
    expected = [bits(runtimes[1].predict(text)) for text in texts]
    given = ["--format", "jsonl", "--explain", "--threads", threads]
    as_arguments = ok("predict", workshop.bundle, *given, "--", *texts).out
    as_stream = ok("predict", workshop.bundle, *given, "--input", "-", stdin="\n".join(texts).encode()).out
    for out in (as_arguments, as_stream):
        assert [bits(record) for record in records(out)] == expected


def test_a_new_process_gives_the_same_numbers(workshop: Workshop, runtimes: dict[int, Runtime], tmp_path: Path) -> None:
    """A prediction does not depend on earlier predictions or on random numbers of the process."""
    from support.command_line import finish, spawn

    texts = ["wake me at seven", "rain", "unheard-of " * 50]
    for runtime in runtimes.values():
        list(runtime.predict_many(["storm", *texts] * 3))
    done = finish(
        spawn("predict", workshop.bundle, *texts, "--format", "jsonl", "--explain", env={"HOME": str(tmp_path)})
    )
    assert done.code == 0, done.err
    assert [bits(record) for record in records(done.out)] == [bits(runtimes[1].predict(text)) for text in texts]
