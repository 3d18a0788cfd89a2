"""One process that serves: from its start until a signal ends it.

The socket listens before the bundles are opened, and ``/health`` says 503 until they are; a worker that takes the place
of a dead one opens them first. SIGTERM: 503 again, texts are
still answered for some seconds so that load balancers can notice, then the requests at hand are finished. SIGINT, or a
second SIGTERM, leaves the waiting out. SIGHUP: the bundles are opened again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from ...errors import ReaugkdError
from ..application import Application
from ..metrics import WorkerCounts
from ..service import Service
from ..settings import ServerSettings
from .acceptor import Acceptor, allowed_connections
from .connections import Connection

_KEEP_ALIVE = 75  # seconds of an idle connection: more than the 60 of usual load balancers, which then never lose one

_FIRST_REQUEST = 1.0  # seconds that a new connection has for its request at the end

_log = logging.getLogger("reaugkd.serve")


def run_server(
    settings: ServerSettings,
    listener: socket.socket,
    drain_seconds: float,
    counts: WorkerCounts | None = None,
    on_ready: Callable[[], object] = lambda: None,
    parent: int | None = None,
    replacement: bool = False,
) -> None:
    """Serve until a signal ends it.

    Args:
        settings: what is served, and its limits.
        listener: the socket; it is closed at the end.
        drain_seconds: seconds between SIGTERM and the end.
        counts: the counts of all workers; None for a server of one process.
        on_ready: called when all bundles are open.
        parent: a pipe's end for reading, which closes when the process that started this one is gone.
        replacement: accept no client before the bundles are open, because other workers answer meanwhile.

    Raises:
        ReaugkdError: a bundle cannot be opened.
    """
    run = _Run(settings, listener, drain_seconds, counts, on_ready, parent, replacement)
    with asyncio.Runner(loop_factory=run.server.config.get_loop_factory()) as runner:
        runner.run(run.main())
    if run.failed is not None:
        raise run.failed


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, settings: ServerSettings) -> None:
        super().__init__(config)
        self._settings = settings

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `_Run`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept clients."""
        await super().startup([])
        assert sockets is not None
        most = allowed_connections(self._settings.max_connections)
        self._acceptor = Acceptor(sockets[0], most, self.server_state.connections, self._connection)

    async def on_tick(self, counter: int) -> bool:
        """Accept clients again, if there was no room."""
        self._acceptor.resume()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, but answer the clients that have connected: uvicorn would cut them off before they can ask."""
        await self._acceptor.close()
        loop = asyncio.get_running_loop()
        until = loop.time() + _FIRST_REQUEST
        while loop.time() < until and any(one.cycle is None for one in self.server_state.connections):  # type: ignore[union-attr]
            await asyncio.sleep(0.02)
        await super().shutdown(None)

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self._settings.max_body)


class _Run:
    def __init__(
        self,
        settings: ServerSettings,
        listener: socket.socket,
        drain_seconds: float,
        counts: WorkerCounts | None,
        on_ready: Callable[[], object],
        parent: int | None,
        replacement: bool,
    ) -> None:
        self._service = Service(settings, counts)
        self._listener, self._drain_seconds, self._on_ready, self._parent = listener, drain_seconds, on_ready, parent
        self._replacement = replacement
        self._starter = threading.Thread(target=self._start, name="reaugkd-start", daemon=True)
        self.failed: ReaugkdError | Exception | None = None
        self.server = _Server(
            uvicorn.Config(
                Application(self._service),
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE,
                # Requests end by their deadline. What is left are clients that do not send or read.
                timeout_graceful_shutdown=int(settings.deadline) + 1,
            ),
            settings,
        )

    async def main(self) -> None:
        """Answer requests while the bundles are opened and after it."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGTERM, self._terminate)
        self._loop.add_signal_handler(signal.SIGINT, self._stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._service.look_for_bundles)
        if self._parent is not None:
            self._loop.add_reader(self._parent, self._orphaned)
        self._starter.start()
        try:
            if self._replacement:
                await asyncio.to_thread(self._starter.join)
            await self.server.serve(sockets=[self._listener])
        finally:
            self._starter.join()
            self._service.close()

    def _start(self) -> None:
        try:
            self._service.start()
        except Exception as error:
            self.failed = error
            self._loop.call_soon_threadsafe(self._stop)
        else:
            self._on_ready()

    def _terminate(self) -> None:
        draining = self._service.state == "draining"
        was_ready = self._service.state == "ready"
        self._service.drain()
        if draining or not was_ready or not self._drain_seconds:
            self._stop()
        else:
            _log.info("draining for %g seconds", self._drain_seconds)
            self._loop.call_later(self._drain_seconds, self._stop)

    def _stop(self) -> None:
        self._service.drain()
        self.server.should_exit = True

    def _orphaned(self) -> None:
        assert self._parent is not None
        self._loop.remove_reader(self._parent)
        _log.error("the process that started this worker is gone")
        self._stop()
