"""Connections: what is written goes out in one piece, and not to a client that has gone."""

from __future__ import annotations

import asyncio
from typing import Any

from reaugkd.serve.process.connections import _Joined


class Transport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed, "uvloop raises an error, which would be in the log"
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def test_a_round_of_the_loop_is_one_write_and_nobody_writes_to_a_client_that_has_gone() -> None:
    async def work(end: str) -> list[bytes]:
        transport: Any = Transport()
        joined = _Joined(transport, asyncio.get_running_loop())
        joined.write(b"head")
        joined.write(b"body")
        assert not joined.is_closing()
        await asyncio.sleep(0)
        joined.write(b"next")
        if end == "closed by the server":
            joined.close()
        elif end == "closed by the client":
            transport.close()
        await asyncio.sleep(0)
        return list(transport.written)

    for end in ("open", "closed by the server"):
        assert asyncio.run(work(end)) == [b"headbody", b"next"]
    assert asyncio.run(work("closed by the client")) == [b"headbody"]
