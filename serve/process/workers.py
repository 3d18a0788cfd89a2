"""Worker processes that share one listening socket, and the process that starts and watches them.

The workers are forked before anything is loaded that starts threads. A worker that dies is replaced. If the first ones
cannot open the bundles, the server ends with their error.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import ReaugkdError

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds before a dead worker is replaced; twice as long after a short life
_SHORT_LIFE = 10.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

_log = logging.getLogger("reaugkd.serve")


@dataclass
class _Worker:
    """A place for a worker: its process, if it runs."""

    pid: int | None = None
    began: float = 0.0
    pause: float = _FIRST_PAUSE
    due: float = 0.0


class Supervisor:
    """Starts workers, forwards signals to them, and replaces those that die.

    Args:
        count: the number of workers.
        listener: the socket that they share.
        work: runs a worker, with its number, a function that it calls when it is ready, the end of a pipe that closes
            when this process is gone, and whether other workers have been ready already.
    """

    def __init__(
        self, count: int, listener: socket.socket, work: Callable[[int, Callable[[], object], int, bool], None]
    ) -> None:
        self._workers = [_Worker() for _ in range(count)]
        self._listener, self._work = listener, work
        self._ready, self._stopping, self._code = False, False, 0
        self._received: list[int] = []
        self._wake_reader, self._wake_writer = os.pipe()
        self._ready_reader, self._ready_writer = os.pipe()
        self._alive_reader, self._alive_writer = os.pipe()
        for file in (self._wake_reader, self._wake_writer, self._ready_reader):
            os.set_blocking(file, False)

    def run(self) -> int:
        """Run until all workers have ended after a signal.

        Returns:
            The exit code: 0 after a signal, else that of the first worker that could not start.
        """
        for number in _SIGNALS:
            signal.signal(number, self._receive)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        while True:
            self._forward()
            self._reap()
            if self._stopping and all(worker.pid is None for worker in self._workers):
                return self._code
            self._start_due()
            select.select([self._wake_reader, self._ready_reader], [], [], self._seconds_to_next_start())
            _drain(self._wake_reader)
            if _drain(self._ready_reader):
                self._ready = True

    def _receive(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._received.append(number)

    def _forward(self) -> None:
        while self._received:
            number = self._received.pop(0)
            if number != signal.SIGHUP and not self._stopping:
                self._stop()
            for worker in self._workers:
                if worker.pid is not None:
                    os.kill(worker.pid, number)

    def _stop(self) -> None:
        self._stopping = True
        self._listener.close()  # else clients would wait for a worker when the last one has gone

    def _reap(self) -> None:
        for number, worker in enumerate(self._workers):
            if worker.pid is None:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                worker.pid = None
                self._ended(number, worker, os.waitstatus_to_exitcode(status))

    def _ended(self, number: int, worker: _Worker, code: int) -> None:
        if self._stopping:
            return
        if code == ReaugkdError.exit_code and not self._ready:
            self._code = code
            self._received.append(signal.SIGINT)
            os.write(self._wake_writer, b"\0")
            return
        lived = time.monotonic() - worker.began
        worker.pause = min(2 * worker.pause, _LONGEST_PAUSE) if lived < _SHORT_LIFE else _FIRST_PAUSE
        worker.due = time.monotonic() + worker.pause
        _log.error("worker %d ended with code %d; another one starts in %g s", number, code, worker.pause)

    def _start_due(self) -> None:
        if self._stopping:
            return
        for number, worker in enumerate(self._workers):
            if worker.pid is None and time.monotonic() >= worker.due:
                worker.began, worker.pid = time.monotonic(), self._fork(number)

    def _seconds_to_next_start(self) -> float | None:
        due = [worker.due for worker in self._workers if worker.pid is None]
        return max(0.0, min(due) - time.monotonic()) if due and not self._stopping else None

    def _fork(self, number: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until the worker has handlers of its own
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            return pid
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for one in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(one, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            for file in (self._wake_reader, self._wake_writer, self._ready_reader, self._alive_writer):
                os.close(file)
            self._work(number, lambda: os.write(self._ready_writer, b"\0"), self._alive_reader, self._ready)
            code = 0
        except ReaugkdError as error:
            _log.error("%s", error)
            code = error.exit_code
        except BaseException:
            _log.exception("worker %d failed", number)
        finally:
            sys.stderr.flush()
            os._exit(code)  # not back into the caller's code, which is the other process's


def _drain(file: int) -> bytes:
    """What a pipe holds; nothing if it is empty."""
    try:
        return os.read(file, 4096)
    except BlockingIOError:
        return b""
