"""A client of an ASGI application in this process."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from reaugkd import Prediction, Runtime
from reaugkd.serve.application import Application, create_app

LIMIT = 30.0
"""Seconds; what is waited for here takes none."""

HELD = "noon held"
"""The text that `Gate` holds."""


class Reply(NamedTuple):
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)


class Client:
    """Sends requests to an application, each in a loop of its own."""

    def __init__(self, app: Application, key: str | None = None) -> None:
        self.app, self.key = app, key

    @property
    def service(self) -> Any:
        return self.app.service

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, b"", headers)

    def post(self, path: str, value: object, **headers: str) -> Reply:
        return self.send("POST", path, json.dumps(value).encode(), {"content_type": "application/json", **headers})

    def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Reply:
        return asyncio.run(self.send_async(method, path, body, headers))

    async def send_async(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        plain, _, query = path.partition("?")
        named = {"host": "localhost", **headers}
        if self.key is not None:
            named.setdefault("authorization", f"Bearer {self.key}")
        scope = {
            "type": "http",
            "method": method,
            "path": plain,
            "query_string": query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in named.items()],
        }
        sent: list[Any] = []
        waiting = [{"type": "http.request", "body": body}]

        async def receive() -> Any:
            return waiting.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start, content = sent
        found = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        assert len(found) == len(start["headers"]), "a header is there twice"
        assert found.get("content-length") == str(len(content["body"])) or method == "HEAD"
        return Reply(start["status"], found, content["body"])


@contextmanager
def serving(bundles: Path | Mapping[str, Path], key: str | None = None, **options: Any) -> Iterator[Client]:
    """A client of a started application."""
    app = create_app(bundles, threads=options.pop("threads", 2), api_keys=[key] if key else [], **options)
    app.service.start()
    try:
        yield Client(app, key)
    finally:
        app.service.close()


class Gate:
    """Holds every prediction of `HELD` until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.begun = threading.Event(), threading.Semaphore(0)
        self.seen: list[str] = []
        predict = Runtime.predict

        def held(runtime: Runtime, text: Any, abstain: Any = None) -> Prediction:
            if text == HELD:
                self.seen.append(text)
                self.begun.release()
                assert self.open.wait(LIMIT)
            return predict(runtime, text, abstain)

        monkeypatch.setattr(Runtime, "predict", held)


class Deadlines:
    """Holds the timers of the running loop that are due after some seconds; a test ends them, not the clock.

    Args:
        seconds: only timers of this length, which no other one has.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._loop = seconds, asyncio.get_running_loop()
        self._call_later = self._loop.call_later
        self._held: list[asyncio.TimerHandle] = []
        self._loop.call_later = self._hold  # type: ignore[method-assign]

    def _hold(self, delay: float, call: Any, *arguments: Any, **more: Any) -> asyncio.TimerHandle:
        timer = self._call_later(1e6 if delay == self._seconds else delay, call, *arguments, **more)
        if delay == self._seconds:
            self._held.append(timer)
        return timer

    def end(self, number: int) -> None:
        """End the deadline of a request, by its place in the order in which they began."""
        timer = self._held[number]
        timer._run()
        timer.cancel()


async def until_depth(client: Client, depth: int) -> None:
    while client.service._queue.depth != depth:
        await asyncio.sleep(0)
