"""A worker process of the local engine: it takes the numbers of parts from a pipe, and ends when the pipe closes."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from ...errors import ReaugkdError
from .task import Settings

_GRACE = 10.0  # seconds to remove the part's temporary file


def work(pipe: Connection[Any, Any], settings: Settings) -> None:
    """Do parts until the driver says None or is gone.

    It sends ``("ready", None)`` when it can take a part, ``("rows", n)`` while it does one, ``("done", None)`` after
    it, and ``("error", error)`` as its last message.

    Args:
        pipe: to the driver.
        settings: of the job.
    """
    stop = _Stop()
    for name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(name, stop.receive)
    sys.unraisablehook = _report_unraisable
    orders: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, orders), daemon=True).start()

    def advance(rows: int) -> None:
        stop.check()
        pipe.send(("rows", rows))

    try:
        worker = settings.open()
        stop.check()
        pipe.send(("ready", None))
        while (number := orders.get()) is not None:
            worker.do(number, advance)
            pipe.send(("done", None))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the driver is gone
    except MemoryError:
        sys.exit(1)  # the part is done again, by a process with more memory free
    except Exception as error:
        known = isinstance(error, ReaugkdError | OSError)
        pipe.send(("error", error if known else RuntimeError(traceback.format_exc())))


def _listen(pipe: Connection[Any, Any], orders: queue.SimpleQueue[int | None]) -> None:
    """Pass the orders on; when the driver is gone, end this process, in the middle of a part too."""
    try:
        while (number := pipe.recv()) is not None:
            orders.put(number)
        orders.put(None)
        return
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_GRACE)
    os._exit(1)


def _report_unraisable(lost: sys.UnraisableHookArgs) -> None:
    """Report an exception that Python cannot raise, but not that of `_Stop`, which `_Stop.check` raises again."""
    if not isinstance(lost.exc_value, SystemExit):
        sys.__unraisablehook__(lost)


class _Stop:
    """Ends this process by an exception, which removes the part's temporary file."""

    def __init__(self) -> None:
        self._received = False

    def receive(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal; a second one changes nothing.

        Raises:
            SystemExit: at the first one.
        """
        if not self._received:
            self._received = True
            sys.exit(1)

    def check(self) -> None:
        """End this process if the exception of the signal was lost, as it is in a callback of the garbage collector.

        Raises:
            SystemExit: a signal has come.
        """
        if self._received:
            sys.exit(1)
