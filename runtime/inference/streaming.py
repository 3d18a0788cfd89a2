"""A stream of texts through one pipeline: one after the other, or side by side on several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from operator import length_hint
from typing import TYPE_CHECKING, Literal, Protocol

from ...errors import ReaugkdError, UsageError
from .inputs import Text
from .prediction import Prediction
from .student import StudentSession

if TYPE_CHECKING:
    from concurrent.futures import Future

OnError = Literal["raise", "return"]

_MOST_AT_ONCE = 4  # texts that a thread answers in one go
_LOOK_AHEAD = 2  # such goes, in work or waiting for their turn, a thread

_Attempts = tuple[list[Prediction | ReaugkdError], Exception | None]
"""Answers, and what the text after the last of them raised."""


class Answering(Protocol):
    """What answers texts: a pipeline, or what stands around one."""

    def answer(self, student: StudentSession, text: Text, /) -> Prediction:
        """The answer to a text."""
        ...


Current = Callable[[], Answering]


def checked_on_error(on_error: OnError) -> OnError:
    """What is to be done with a bad text.

    Raises:
        UsageError: it is neither of the two.
    """
    if on_error not in ("raise", "return"):
        raise UsageError("on_error is unknown", found=on_error, expected="raise or return")
    return on_error


def of_this_process(
    answers: Generator[Prediction | ReaugkdError, None, None],
) -> Iterator[Prediction | ReaugkdError]:
    """The answers, to the process that asked for them.

    A forked child has neither the threads that work on its parent's stream nor anybody who would release the locks
    that those held: it would wait for ever.

    Raises:
        UsageError: a forked child asks for an answer.
    """
    return _of_process(answers, os.getpid())  # now, and not when the first answer is asked for


def _of_process(
    answers: Generator[Prediction | ReaugkdError, None, None], owner: int
) -> Iterator[Prediction | ReaugkdError]:
    over = object()
    with closing(answers):
        while True:
            if os.getpid() != owner:
                raise UsageError(
                    "a stream of answers was taken into a forked process",
                    found="another process than the one that began it",
                    remedy="Call predict_many again, in the process that wants the answers.",
                )
            answer = next(answers, over)
            if answer is over:
                return
            yield answer  # type: ignore[misc]


def one_by_one(
    pipeline: Current, student: StudentSession, texts: Iterable[Text], on_error: OnError
) -> Generator[Prediction | ReaugkdError, None, None]:
    """The answers, lazily, in the calling thread."""
    return (_attempt(pipeline, student, text, on_error) for text in texts)


def side_by_side(
    pipeline: Current, student: StudentSession, texts: Iterable[Text], on_error: OnError, threads: int
) -> Generator[Prediction | ReaugkdError, None, None]:
    """The answers in order, from threads that work a few texts ahead of the one that is handed out.

    A thread takes up to four texts at a time, as each change of threads costs as much as a tenth of a short text; fewer
    of a stream that is known to be so short that some thread would go without.

    Args:
        pipeline: gives what answers, anew for each text, as the knowledge base may be edited meanwhile.
        student: a session that uses one thread a run.
        texts: read as answers are asked for, in the calling thread; at most eight a thread beyond what is handed out.
        on_error: as of `Runtime.predict_many`.
        threads: at work.
    """
    # Not at the top: it takes 2 ms to import, and most runtimes have one thread.
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(threads, thread_name_prefix="reaugkd")
    known = length_hint(texts, _MOST_AT_ONCE * threads)
    at_once = max(1, min(_MOST_AT_ONCE, -(-known // threads)))

    def submitted() -> Iterator[Future[_Attempts]]:
        some: list[Text] = []
        failed: Exception | None = None
        try:
            for text in texts:
                some.append(text)
                if len(some) == at_once:
                    yield pool.submit(_attempts, pipeline, student, some, on_error)
                    some = []
        except Exception as error:  # of the source: it takes its turn after what was read before it
            failed = error
        if some:
            yield pool.submit(_attempts, pipeline, student, some, on_error)
        if failed is not None:
            last: Future[_Attempts] = Future()
            last.set_exception(failed)
            yield last

    waiting: deque[Future[_Attempts]] = deque()
    try:
        for future in submitted():
            waiting.append(future)
            if len(waiting) >= threads * _LOOK_AHEAD:
                yield from _handed_out(waiting.popleft().result())
        while waiting:
            yield from _handed_out(waiting.popleft().result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _attempts(pipeline: Current, student: StudentSession, texts: Sequence[Text], on_error: OnError) -> _Attempts:
    answers: list[Prediction | ReaugkdError] = []
    for text in texts:
        try:
            answers.append(_attempt(pipeline, student, text, on_error))
        except Exception as error:
            return answers, error
    return answers, None


def _handed_out(attempts: _Attempts) -> Iterator[Prediction | ReaugkdError]:
    answers, error = attempts
    yield from answers
    if error is not None:
        raise error


def _attempt(pipeline: Current, student: StudentSession, text: Text, on_error: OnError) -> Prediction | ReaugkdError:
    if on_error == "raise":
        return pipeline().answer(student, text)
    try:
        return pipeline().answer(student, text)
    except ReaugkdError as error:
        return error
