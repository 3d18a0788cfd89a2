"""Answers for asynchronous programs, on threads of their own: lazily, in order, and without a wait in the event loop.

asyncio is imported where it is used: it takes 20 ms and more, and most runtimes never need it.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ...errors import ReaugkdError
from ..decision.abstention_goal import Abstain
from .prediction import Prediction
from .streaming import ITEMS_AHEAD, OnError, checked_on_error
from .text.inputs import Text

if TYPE_CHECKING:
    from asyncio import Future
    from concurrent.futures import ThreadPoolExecutor

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class AnswerThreads:
    """The threads that answer texts for asynchronous callers: begun with the first text, ended by `close`.

    Args:
        threads: the largest number of threads.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._begin()

    def _begin(self) -> None:
        self._pid, self._lock, self._closed = os.getpid(), threading.Lock(), False
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, answer: Callable[[], Answer]) -> Future[Answer]:
        """Let a thread compute an answer. A cancelled future is computed only if a thread has begun it already."""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        if self._pid != os.getpid():
            self._begin()  # a forked child has neither the threads nor, for certain, the lock of its parent
        with self._lock:
            if self._pool is None and not self._closed:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="reaugkd-async")
            if self._pool is not None:
                return asyncio.wrap_future(self._pool.submit(answer))
        loop = asyncio.get_running_loop()
        refused: Future[Answer] = loop.create_future()
        try:
            refused.set_result(answer())  # of a closed runtime: an error, at once
        except Exception as error:
            refused.set_exception(error)
        return refused

    def close(self) -> None:
        """End the threads after the texts that they have begun; a text that waits gets what its function then gives."""
        if self._pid == os.getpid():
            with self._lock:
                pool, self._pool, self._closed = self._pool, None, True
            if pool is not None:
                pool.shutdown(wait=True)


class AsynchronousAnswers(ABC):
    """The asynchronous methods of a runtime.

    Args:
        threads: the largest number of threads that answer texts.
    """

    def __init__(self, threads: int) -> None:
        self._answer_threads, self._ahead = AnswerThreads(threads), ITEMS_AHEAD * threads

    @abstractmethod
    def _answer_alone(self, text: Text, abstain: Abstain | str | None) -> Prediction:
        """The answer to one text, computed in the calling thread."""

    @abstractmethod
    def _checked_stream(self, items: object, abstain: Abstain | str | None) -> object:
        """Check the arguments of a stream before its first text."""

    async def apredict(self, text: Text, abstain: Abstain | str | None = None) -> Prediction:
        """`predict` without a wait in the event loop, with the same arguments, answers and errors.

        Up to ``threads`` texts are answered at a time, the others wait. A cancelled call drops its text if it waits.
        """
        return await self._answer_threads.submit(partial(self._answer_alone, text, abstain))

    @overload
    def apredict_many(
        self,
        texts: Iterable[Text] | AsyncIterable[Text],
        on_error: Literal["raise"] = "raise",
        abstain: Abstain | str | None = None,
    ) -> AsyncIterator[Prediction]: ...
    @overload
    def apredict_many(
        self, texts: Iterable[Text] | AsyncIterable[Text], on_error: OnError, abstain: Abstain | str | None = None
    ) -> AsyncIterator[Prediction | ReaugkdError]: ...

    def apredict_many(
        self,
        texts: Iterable[Text] | AsyncIterable[Text],
        on_error: OnError = "raise",
        abstain: Abstain | str | None = None,
    ) -> AsyncIterator[Prediction | ReaugkdError]:
        """`predict_many` without a wait in the event loop: ``async for answer in runtime.apredict_many(texts)``.

        An answer is returned as soon as it is there, in the order of the texts. At most eight texts per thread are read
        ahead of the last returned answer. Cancelling the task, or closing the iterator, drops the texts that wait.

        Args:
            texts: an asynchronous iterable; or any other, which is read in the event loop as answers are needed.
            on_error: same as `predict_many`.
            abstain: same as `predict`.

        Raises:
            UsageError: same as `predict_many`.
        """
        on_error = checked_on_error(on_error)
        self._checked_stream(texts, abstain)

        def answer(text: Text) -> Prediction | ReaugkdError:
            try:
                return self._answer_alone(text, abstain)
            except ReaugkdError as error:
                if on_error == "raise":
                    raise
                return error

        return in_order(lambda text: self._answer_threads.submit(partial(answer, text)), texts, self._ahead)


async def in_order(
    begin: Callable[[Item], Future[Answer]], items: Iterable[Item] | AsyncIterable[Item], ahead: int
) -> AsyncIterator[Answer]:
    """The answers in the order of the items, each as soon as it is there.

    Args:
        begin: begins to answer an item. What the future raises is raised in the item's place and ends the stream.
        items: what they raise is raised after the answers before it.
        ahead: the largest number of items that are begun and not returned.
    """
    import asyncio

    begun: asyncio.Queue[Future[Answer] | None] = asyncio.Queue()
    room = asyncio.Semaphore(ahead)

    async def read() -> None:
        try:
            await room.acquire()
            async for item in items if isinstance(items, AsyncIterable) else _asynchronous(items):
                begun.put_nowait(begin(item))
                await room.acquire()
        finally:
            begun.put_nowait(None)

    reader = asyncio.ensure_future(read())
    try:
        while (future := await begun.get()) is not None:
            answer = await future
            room.release()
            yield answer
        await reader
    finally:
        reader.cancel()
        await asyncio.wait([reader])
        _drop(reader)
        while not begun.empty():
            _drop(begun.get_nowait())


async def _asynchronous(items: Iterable[Item]) -> AsyncIterator[Item]:
    for item in items:
        yield item


def _drop(future: Future[Any] | None) -> None:
    """Cancel a future that nobody waits for; asyncio would log an error that nobody reads."""
    if future is not None and not future.cancel() and not future.cancelled():
        future.exception()
