"""A stream of texts through one pipeline: one after the other, or side by side on several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from operator import length_hint
from typing import TYPE_CHECKING, Literal, Protocol

from ..errors import ReaugkdError, UsageError
from .prediction import Prediction
from .student import StudentSession
from .text import Text

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


def checked_on_error(on_error: OnError) -> OnError:
    """What is to be done with a bad text.

    Raises:
        UsageError: it is neither of the two.
    """
    if on_error not in ("raise", "return"):
        raise UsageError("on_error is unknown", found=on_error, expected="raise or return")
    return on_error


def one_by_one(
    pipeline: Answering, student: StudentSession, texts: Iterable[Text], on_error: OnError
) -> Iterator[Prediction | ReaugkdError]:
    """The answers, lazily, in the calling thread."""
    return (_attempt(pipeline, student, text, on_error) for text in texts)


def side_by_side(
    pipeline: Answering, student: StudentSession, texts: Iterable[Text], on_error: OnError, threads: int
) -> Iterator[Prediction | ReaugkdError]:
    """The answers in order, from threads that work a few texts ahead of the one that is handed out.

    A thread takes up to four texts at a time, as each change of threads costs as much as a tenth of a short text; fewer
    of a stream that is known to be so short that some thread would go without.

    Args:
        pipeline: answers.
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


def _attempts(pipeline: Answering, student: StudentSession, texts: Sequence[Text], on_error: OnError) -> _Attempts:
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


def _attempt(pipeline: Answering, student: StudentSession, text: Text, on_error: OnError) -> Prediction | ReaugkdError:
    if on_error == "raise":
        return pipeline.answer(student, text)
    try:
        return pipeline.answer(student, text)
    except ReaugkdError as error:
        return error
