"""Streams of items through one function: in the calling thread, or on several threads; lazily and in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from operator import length_hint
from typing import TYPE_CHECKING, Literal, TypeVar

from ...errors import UsageError

if TYPE_CHECKING:
    from concurrent.futures import Future

OnError = Literal["raise", "return"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_CHUNK = 4  # items that a thread answers at a time
_LOOK_AHEAD = 2  # chunks per thread that are running or waiting to be returned
ITEMS_AHEAD = _CHUNK * _LOOK_AHEAD
"""Items per thread that are begun and not yet returned."""


def checked_on_error(on_error: object) -> OnError:
    """The given way to treat a bad text.

    Raises:
        UsageError: it is neither ``"raise"`` nor ``"return"``.
    """
    if on_error == "raise":
        return "raise"
    if on_error == "return":
        return "return"
    raise UsageError("on_error is unknown", found=repr(on_error), expected="'raise' or 'return'")


def of_this_process(answers: Generator[Answer, None, None]) -> Iterator[Answer]:
    """The answers, only in the process that called this function.

    A forked child has none of its parent's threads, and locks that they held are never released: it would wait forever.

    Raises:
        UsageError: from the iterator, if a forked child asks for an answer.
    """
    return _of_process(answers, os.getpid())  # the process of this call, not of the first answer


def _of_process(answers: Generator[Answer, None, None], owner: int) -> Iterator[Answer]:
    with closing(answers):
        while True:
            if os.getpid() != owner:
                raise UsageError(
                    "a stream of answers was taken into a forked process",
                    found="a process other than the one that began the stream",
                    remedy="Call predict_many again in the process that needs the answers.",
                )
            try:
                answer = next(answers)
            except StopIteration:
                return
            yield answer


def one_by_one(answer: Callable[[Item], Answer], items: Iterable[Item]) -> Generator[Answer, None, None]:
    """The answers, computed lazily in the calling thread."""
    return (answer(item) for item in items)


def side_by_side(
    answer: Callable[[Item], Answer], items: Iterable[Item], threads: int
) -> Generator[Answer, None, None]:
    """The answers in order, computed by threads that work a few items ahead of the last returned answer.

    A thread takes up to four items at a time, because a change of threads costs a tenth of a short text's time. It
    takes fewer if the stream is known to be so short that a thread would have no work.

    Args:
        answer: called in the threads. What it raises is raised in the item's place and ends the stream.
        items: read in the calling thread as answers are needed, at most eight per thread ahead.
        threads: the number of threads.
    """
    # Imported here: it takes 2 ms, and most runtimes use one thread.
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(threads, thread_name_prefix="reaugkd")
    known = length_hint(items, _CHUNK * threads)
    size = max(1, min(_CHUNK, -(-known // threads)))

    def submitted() -> Iterator[Future[tuple[list[Answer], Exception | None]]]:
        chunk: list[Item] = []
        failed: Exception | None = None
        try:
            for item in items:
                chunk.append(item)
                if len(chunk) == size:
                    yield pool.submit(_answered, answer, chunk)
                    chunk = []
        except Exception as error:  # of the source: raised after the answers to the items before it
            failed = error
        if chunk:
            yield pool.submit(_answered, answer, chunk)
        if failed is not None:
            last: Future[tuple[list[Answer], Exception | None]] = Future()
            last.set_exception(failed)
            yield last

    waiting: deque[Future[tuple[list[Answer], Exception | None]]] = deque()
    try:
        for future in submitted():
            waiting.append(future)
            if len(waiting) >= threads * _LOOK_AHEAD:
                yield from _returned(*waiting.popleft().result())
        while waiting:
            yield from _returned(*waiting.popleft().result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _answered(answer: Callable[[Item], Answer], chunk: Sequence[Item]) -> tuple[list[Answer], Exception | None]:
    """The answers of a chunk, and the error that ended it."""
    answers: list[Answer] = []
    for item in chunk:
        try:
            answers.append(answer(item))
        except Exception as error:
            return answers, error
    return answers, None


def _returned(answers: list[Answer], error: Exception | None) -> Iterator[Answer]:
    yield from answers
    if error is not None:
        raise error
