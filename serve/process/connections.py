"""Connections that do not wait for ever: the head of a request must arrive in time, and must not be too large.

uvicorn limits neither the time until a head is complete nor, with httptools, its size. The body has its own limits
(`http.messages`).
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.server import ServerState

from ..http.messages import READ_SECONDS

MOST_HEAD = 65_536
"""Most bytes of the head of a request."""

_Base: Any = AutoHTTPProtocol


class _Joined:
    """A transport that sends at once what is written in one round of the event loop.

    uvicorn writes the head and the body of a response one after the other, and each would be a packet of its own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send data soon."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Close after what was written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts and not self._transport.is_closing():  # the client may have gone
            self._transport.write(b"".join(self._parts))
        self._parts.clear()


class Connection(_Base):  # type: ignore[misc]
    """A connection of uvicorn, by h11 or httptools.

    Args:
        config: of uvicorn.
        state: of uvicorn's server.
        most_unread: most bytes of a body whose request was refused before it was read. They are received, else the
            client would find its connection reset, and not read why.
    """

    _timer: asyncio.TimerHandle | None = None
    _received = 0  # bytes since the last request that was read

    def __init__(self, config: uvicorn.Config, state: ServerState, most_unread: int) -> None:
        super().__init__(config, state, {})
        self._most_unread = max(most_unread, MOST_HEAD)

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for a head."""
        super().connection_made(_Joined(transport, self.loop))
        self._wait()

    def connection_lost(self, error: Exception | None) -> None:
        """Stop to wait."""
        self._stop()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Take a part of a head or body."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # the head is complete
            self._stop()
            return
        unread = self.cycle is not None and self.cycle.more_body
        self._received += len(data)
        if self._received > (self._most_unread if unread else MOST_HEAD):
            self._give_up()
        elif self._timer is None:
            self._wait()

    def _wait(self) -> None:
        self._timer = self.loop.call_later(READ_SECONDS, self._give_up)

    def _stop(self) -> None:
        self._received = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._stop()
        self.transport.close()
