"""A stream of texts through one pipeline: one after the other, or side by side on several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from ..errors import ReaugkdError, UsageError
from .pipeline import Pipeline
from .prediction import Prediction
from .student import StudentSession
from .text import Text

if TYPE_CHECKING:
    from concurrent.futures import Future

OnError = Literal["raise", "return"]

_LOOK_AHEAD = 4  # texts in work or waiting for their turn, a thread


def checked_on_error(on_error: OnError) -> OnError:
    """What is to be done with a bad text.

    Raises:
        UsageError: it is neither of the two.
    """
    if on_error not in ("raise", "return"):
        raise UsageError("on_error is unknown", found=on_error, expected="raise or return")
    return on_error


def one_by_one(
    pipeline: Pipeline, student: StudentSession, texts: Iterable[Text], on_error: OnError
) -> Iterator[Prediction | ReaugkdError]:
    """The answers, lazily, in the calling thread."""
    return (_attempt(pipeline, student, text, on_error) for text in texts)


def side_by_side(
    pipeline: Pipeline, student: StudentSession, texts: Iterable[Text], on_error: OnError, threads: int
) -> Iterator[Prediction | ReaugkdError]:
    """The answers in order, from threads that work at most four texts each ahead of the one that is handed out.

    Args:
        pipeline: answers.
        student: a session that uses one thread a run.
        texts: read as answers are asked for, in the calling thread.
        on_error: as of `Runtime.predict_many`.
        threads: at work.
    """
    # Not at the top: it takes 2 ms to import, and most runtimes have one thread.
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(threads, thread_name_prefix="reaugkd")

    def submitted() -> Iterator[Future[Prediction | ReaugkdError]]:
        try:
            for text in texts:
                yield pool.submit(_attempt, pipeline, student, text, on_error)
        except Exception as error:  # of the source: it takes its turn after what was read before it
            failed: Future[Prediction | ReaugkdError] = Future()
            failed.set_exception(error)
            yield failed

    waiting: deque[Future[Prediction | ReaugkdError]] = deque()
    try:
        for future in submitted():
            waiting.append(future)
            if len(waiting) >= threads * _LOOK_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _attempt(pipeline: Pipeline, student: StudentSession, text: Text, on_error: OnError) -> Prediction | ReaugkdError:
    if on_error == "raise":
        return pipeline.answer(student, text)
    try:
        return pipeline.answer(student, text)
    except ReaugkdError as error:
        return error
