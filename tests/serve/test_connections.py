"""Connections: what is written goes out in one piece, and not to a client that has gone; bodies that are not read."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from support.server_process import LIMIT, server

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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the server needs a system with fork")
@pytest.mark.parametrize("parser", ["httptools", "h11"])
def test_a_refused_request_is_answered_whatever_is_left_of_its_body(edge_bundle: Path, parser: str) -> None:
    """The client sends a part of its body after the answer. The connection stays in step, and nothing is reset."""
    without = "" if parser == "httptools" else "sys.modules['httptools'] = None; "
    code = f"import sys; {without}from reaugkd.cli import main; main()"
    head = b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n"
    python = (sys.executable, "-P", "-c", code)
    with (
        server(edge_bundle, python=python) as one,
        socket.create_connection(("127.0.0.1", one.port), LIMIT) as channel,
    ):
        for _ in range(3):
            channel.sendall(head + b"x" * 100_000)
            assert channel.recv(1000).startswith(b"HTTP/1.1 415 ")
            channel.sendall(b"x" * 900_000)
        channel.sendall(b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n")
        assert channel.recv(1000).startswith(b"HTTP/1.1 200 ")
        channel.sendall(head)
        assert channel.recv(1000).startswith(b"HTTP/1.1 415 ")
        with pytest.raises(OSError):  # not for ever
            while True:
                channel.sendall(b"x" * 100_000)
