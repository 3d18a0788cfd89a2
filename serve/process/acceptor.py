"""The connections of a server: it accepts as many as it may have open, and the others wait in the socket's queue.

An event loop's own server knows no limit, and asyncio's writes thousands of lines to the log when no file can be
opened any more.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Callable, Sized
from contextlib import suppress

_OWN_FILES = 100
"""Files that a process may need for itself: bundles and their replacements, the log, the event loop."""

_log = logging.getLogger("reaugkd.serve")


class Acceptor:
    """Accepts the clients of a listening socket in the running event loop.

    Args:
        listener: the socket.
        most: most connections that may be open.
        connections: those that are open.
        connect: makes the protocol of a new one.
    """

    def __init__(
        self, listener: socket.socket, most: int, connections: Sized, connect: Callable[[], asyncio.Protocol]
    ) -> None:
        self._listener, self._most, self._connections, self._connect = listener, most, connections, connect
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[object]] = set()
        self._reading, self._said = False, ""
        listener.setblocking(False)

    def resume(self) -> None:
        """Accept clients from now on, or again after there was no room; call this several times a second."""
        if not self._reading:
            self._loop.add_reader(self._listener, self._accept)
            self._reading = True

    async def close(self) -> None:
        """Accept those who have connected already, who would be lost with the socket, and close it."""
        self._pause()
        with suppress(OSError):  # there is no more
            while True:
                self._take()
        self._listener.close()
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _accept(self) -> None:
        why = f"{self._most} connections are open, and further clients wait: see --max-connections"
        try:
            while len(self._connections) + len(self._connecting) < self._most:
                self._take()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # no client waits any more
            return
        except OSError as error:  # no file can be opened
            why = f"clients wait, because they cannot be accepted: {error.strerror}"
        self._pause()
        if why != self._said:
            self._said = why
            _log.error("%s", why)

    def _take(self) -> None:
        client = self._listener.accept()[0]
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._connect, client))
        self._connecting.add(task)
        task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[object]) -> None:
        self._connecting.discard(task)
        if not task.cancelled():
            task.exception()  # the client has gone already

    def _pause(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._listener)
            self._reading = False


def allowed_connections(wanted: int) -> int:
    """The connections that a process may have open: the wanted ones, if the limit of open files can be raised to that.

    The limit is raised up to the system's. If that is too low, a line in the log says so.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OWN_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = min(wanted, max(soft - _OWN_FILES, soft // 2))
    if found < wanted:
        _log.warning("at most %d connections, because this process may open only %d files (ulimit -n)", found, soft)
    return found
