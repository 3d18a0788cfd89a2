"""The client of `serve_load.py`: a process with one thread, which takes little of the cores that the server needs.

    python benchmarks/scale/serve_client.py PORT CONNECTIONS SECONDS RATE < TEXTS

RATE is the requests per second of all connections, 0 for as many as are answered. It prints codes, times and the share
of one core that it took as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

import uvloop


def request_of(path: str, body: bytes) -> bytes:
    """A request with a body of JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class Asker(asyncio.Protocol):
    """A connection that is kept.

    Args:
        requests: asked for in turn, from the one with the connection's number.
        number: the connection's number; the others ask for those between.
        step: the number of connections.
        begin: when the first request is due, on the loop's clock.
        interval: seconds between two requests; 0 to send each when the one before it is answered.
        until: when to end.
    """

    def __init__(
        self, requests: list[bytes], number: int, step: int, begin: float, interval: float, until: float
    ) -> None:
        self._requests, self._next, self._step = requests, number, step
        self._due, self._interval, self._until = begin, interval, until
        self._loop = asyncio.get_running_loop()
        self._data, self._sent = b"", 0.0
        self.found: list[tuple[float, int]] = []
        self.over: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request when it is due."""
        self._transport: Any = transport
        self._loop.call_at(self._due, self._ask)

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        self._data += data
        begin, found, body = self._data.partition(b"\r\n\r\n")
        if not found or len(body) < int(begin.partition(b"content-length: ")[2].partition(b"\r")[0]):
            return
        self.found.append((time.perf_counter() - self._sent, int(begin[9:12])))
        self._due += self._interval
        if self._due > self._loop.time():
            self._loop.call_at(self._due, self._ask)
        else:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        """End; before `until`, a failure."""
        if not self.over.done():
            self.over.set_exception(error or ConnectionError("the server has closed the connection"))

    def _ask(self) -> None:
        self._data, self._sent = b"", time.perf_counter()
        if self._loop.time() >= self._until:
            self.over.set_result(None)
            self._transport.close()
            return
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += self._step


async def client(port: int, connections: int, seconds: float, rate: float) -> None:
    """Send requests, and print counts and times."""
    requests = [request_of("/predict", json.dumps({"inputs": line}).encode()) for line in sys.stdin.read().splitlines()]
    loop = asyncio.get_running_loop()
    used, begin, interval = time.process_time(), loop.time(), connections / rate if rate else 0.0
    askers = [
        Asker(requests, one, connections, begin + interval * one / connections, interval, begin + seconds)
        for one in range(connections)
    ]
    for asker in askers:
        await loop.create_connection(lambda asker=asker: asker, "127.0.0.1", port)
    failed = sum(
        error is not None for error in await asyncio.gather(*(one.over for one in askers), return_exceptions=True)
    )
    took, used = loop.time() - begin, time.process_time() - used
    found = [one for asker in askers for one in asker.found]
    times = sorted(time for time, code in found if code == 200)
    report = {
        "codes": dict(Counter(str(code) for _, code in found)),
        "failed": failed,
        "per_second": len(times) / took,
        "p50_ms": 1e3 * times[len(times) // 2],
        "p99_ms": 1e3 * times[int(0.99 * len(times))],
        "client_share": used / took,
    }
    print(json.dumps(report))  # noqa: T201


if __name__ == "__main__":
    port, connections, seconds, rate = map(float, sys.argv[1:])
    uvloop.run(client(int(port), int(connections), seconds, rate))
