"""The bounded queue: texts that wait or are answered, counted one by one, and the threads that answer them.

The limit counts texts, not requests, and a request is taken whole or not at all. Requests are not answered together in
one run of the model: on a processor this gains nothing, and the quantized model would give other answers
(docs/explanation/decisions).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from .http.errors import overloaded, too_late

_REST = 0.002
"""Seconds that the event loop rests between two groups of refusals. One by one, each refusal would wake its thread and
take a core and the interpreter's lock from the answers: with three times the requests, a third fewer answers."""

_ROUNDS = 3  # of the event loop before it rests: the steps from a finished answer to the socket

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Done(NamedTuple, Generic[Answer]):
    """The answers in the order of the items, and the seconds until a thread began."""

    answers: list[Answer]
    waited: float


class WorkQueue:
    """Threads that answer texts, and the limit of the texts that they have to answer.

    Args:
        threads: the number of threads; they run from `start` to `close`.
        most: the limit.
    """

    def __init__(self, threads: int, most: int) -> None:
        self._most, self._taken = most, 0
        self._lock, self._resting = threading.Lock(), False
        self._waiting: SimpleQueue[tuple[_Batch, int] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"reaugkd-{number}", daemon=True) for number in range(threads)
        ]

    @property
    def depth(self) -> int:
        """The number of texts that wait or are answered now."""
        return self._taken

    def check_room(self) -> None:
        """Refuse a request before it is read, if there is no room for a single text.

        Raises:
            HttpError: the queue is full.
        """
        if self._taken >= self._most:
            if not self._resting:
                self._resting = True
                self._rest(_ROUNDS)
            raise overloaded()

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads after the texts that wait."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    async def run(self, answer: Callable[[Item], Answer], items: Sequence[Item], seconds: float) -> Done[Answer]:
        """Answer items in the threads.

        Args:
            answer: called in the threads; it does not raise.
            items: at least one.
            seconds: the deadline; what has not begun by then is left out.

        Raises:
            HttpError: the queue is full, or the deadline is over.
        """
        count = len(items)
        with self._lock:
            if self._taken + count > self._most:
                raise overloaded()
            self._taken += count
        loop = asyncio.get_running_loop()
        batch = _Batch(answer, items, loop)
        timer = loop.call_later(seconds, batch.expire, seconds)
        for number in range(count):  # each by itself: handing over 2 to 16 at a time gains nothing that can be measured
            self._waiting.put((batch, number))
        try:
            return await batch.future
        finally:
            batch.over = True
            timer.cancel()

    def _rest(self, rounds: int) -> None:
        """Stop the event loop for a moment, after some more rounds."""
        if rounds:
            asyncio.get_running_loop().call_soon(self._rest, rounds - 1)
            return
        self._resting = False
        time.sleep(_REST)

    def _work(self) -> None:
        while (task := self._waiting.get()) is not None:
            batch, number = task
            batch.answer_one(number)
            with self._lock:
                self._taken -= 1
            batch.report()


class _Batch:
    """The texts of one request."""

    def __init__(self, answer: Callable[[Any], Any], items: Sequence[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._answer, self._items, self._loop = answer, items, loop
        self._answers: list[Any] = [None] * len(items)
        self._left, self._lock = len(items), threading.Lock()
        self._created, self._began = time.perf_counter(), 0.0
        self._failed: BaseException | None = None
        self.future: asyncio.Future[Done[Any]] = loop.create_future()
        self.over = False

    def expire(self, seconds: float) -> None:
        """End the request at its deadline."""
        if not self.future.done():
            self.future.set_exception(too_late(seconds))

    def answer_one(self, number: int) -> None:
        """Answer an item, in a thread, unless the request is over."""
        if not self._began:
            self._began = time.perf_counter()
        try:
            if not self.over:
                self._answers[number] = self._answer(self._items[number])
        except BaseException as error:  # a fault of this program: the request must end, and the thread go on
            self._failed = error

    def report(self) -> None:
        """Count an answered item, and end the request with the last one."""
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last and not self.over:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if self.future.done():
            return
        if self._failed is not None:
            self.future.set_exception(self._failed)
        else:
            self.future.set_result(Done(self._answers, self._began - self._created))
