"""The local engine: processes on this machine that take parts from one list."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from ...errors import ReaugkdError
from .task import Settings
from .worker import work

ATTEMPTS = 3
"""Workers that a part may end before it is given up."""

_SECONDS = 15.0  # for a worker to end by itself


class _Worker:
    """A process and the part that it does.

    It is spawned, not forked: threads of ONNX Runtime do not survive a fork.
    """

    def __init__(self, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe: Connection[Any, Any]
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, settings), daemon=True, name="reaugkd batch")
        # It never sees Ctrl-C, which goes to every process of a terminal: the driver ends it.
        with _sigint_blocked():
            self.process.start()
        theirs.close()
        self.ready = False
        self.part: int | None = None
        self.rows = 0

    def begin(self, part: int) -> None:
        self.part, self.rows = part, 0
        self.pipe.send(part)

    def exit_words(self) -> str:
        """Wait for the end of the process that has closed its pipe, and say how it ended."""
        self.process.join(_SECONDS)
        code = self.process.exitcode
        self.pipe.close()
        return f"signal {-code} ({signal.Signals(-code).name})" if code is not None and code < 0 else f"code {code}"


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Keep Ctrl-C from this thread, and for good from the processes that it starts."""
    resource_tracker.ensure_running()  # the first start of a process would start it, and unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_local(
    settings: Settings,
    parts: Sequence[int],
    workers: int,
    advance: Callable[[int], object],
    rows_of: Callable[[int], int],
) -> dict[int, str]:
    """Do parts on this machine.

    A worker that ends is replaced, and its part is done again; a part that ends three workers is given up.

    Args:
        settings: of the job.
        parts: their numbers.
        workers: processes, at most.
        advance: called with the number of rows that are answered.
        rows_of: the number of rows of a part.

    Returns:
        The parts that were given up, with how their last worker ended.

    Raises:
        ReaugkdError: a worker cannot open the bundle or do a part for a reason that the user can correct, or workers
            end before they take a part.
    """
    pool = _Pool(settings, parts, rows_of)
    try:
        pool.run(min(workers, len(parts)), advance)
    finally:
        pool.close()
    return pool.given_up


class _Pool:
    """The workers of a job, and the parts that wait for them."""

    def __init__(self, settings: Settings, parts: Sequence[int], rows_of: Callable[[int], int]) -> None:
        self._settings, self._rows_of = settings, rows_of
        self._waiting = deque(parts)
        self._workers: list[_Worker] = []
        self._deaths: Counter[int] = Counter()
        self._early_deaths = 0
        self._answered = 0
        self.given_up: dict[int, str] = {}

    def run(self, count: int, advance: Callable[[int], object]) -> None:
        """Run until no part is left."""
        while self._waiting or any(worker.part is not None for worker in self._workers):
            busy = sum(worker.part is not None for worker in self._workers)
            while len(self._workers) < min(count, busy + len(self._waiting)):
                self._workers.append(_Worker(self._settings))
            for worker in list(self._workers):
                if worker.ready and worker.part is None and self._waiting:
                    self._begin(worker, self._waiting.popleft())
            pipes = {worker.pipe: worker for worker in self._workers}
            for pipe in wait(list(pipes)):
                self._receive(pipes[pipe])  # type: ignore[index]
            advance(self._answered + sum(worker.rows for worker in self._workers))

    def _begin(self, worker: _Worker, part: int) -> None:
        try:
            worker.begin(part)
        except OSError:  # it has died while it waited
            worker.part = None
            self._waiting.appendleft(part)
            self._ended(worker)

    def _receive(self, worker: _Worker) -> None:
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            self._ended(worker)
            return
        if kind == "ready":
            worker.ready, self._early_deaths = True, 0
        elif kind == "rows":
            worker.rows = value
        elif kind == "done" and worker.part is not None:
            self._answered += self._rows_of(worker.part)
            worker.part, worker.rows = None, 0
        elif kind == "error":
            raise value

    def _ended(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        words, part = worker.exit_words(), worker.part
        if part is not None:
            self._deaths[part] += 1
            if self._deaths[part] == ATTEMPTS:
                self.given_up[part] = words
            else:
                self._waiting.appendleft(part)
        elif not worker.ready:
            self._early_deaths += 1
            if self._early_deaths == ATTEMPTS:
                raise ReaugkdError(
                    "the workers end before they have opened the bundle",
                    path=self._settings.bundle,
                    found=words,
                    remedy="If memory is short, use fewer --workers.",
                )

    def close(self) -> None:
        """End all workers: at the end of the job they wait for a part, else they stop in the middle of one.

        A second Ctrl-C waits for their end.
        """
        with _sigint_blocked():
            for worker in self._workers:
                worker.process.terminate()
            for worker in self._workers:
                worker.process.join(_SECONDS)
                if worker.process.is_alive():
                    worker.process.kill()
                    worker.process.join()
                worker.pipe.close()
