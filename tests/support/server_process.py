"""`reaugkd serve` in a process of its own, on a free port of this machine."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LIMIT = 60.0  # seconds; what is waited for here takes one


class Server:
    """A running server.

    Attributes:
        process: of the command.
        port: where it listens.
        lines: what it has logged so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.port = process, 0
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self.lines.append("(end)")
            self._news.notify_all()

    def wait_for(self, pattern: str, count: int = 1) -> str:
        """Wait until so many lines of the log match; returns the last of them."""

        def found() -> list[str]:
            return [line for line in self.lines if re.search(pattern, line)]

        def over() -> bool:
            return len(found()) >= count or "(end)" in self.lines

        with self._news:
            assert self._news.wait_for(over, LIMIT), self.lines
            assert len(found()) >= count, self.lines
            return found()[count - 1]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)

    def post(self, path: str, value: object, connection: http.client.HTTPConnection | None = None) -> tuple[int, Any]:
        """Send JSON; returns the code and the answer."""
        with once(connection or self.connect(), close=connection is None) as one:
            one.request("POST", path, json.dumps(value), {"Content-Type": "application/json"})
            response = one.getresponse()
            return response.status, json.loads(response.read())

    def get(self, path: str) -> tuple[int, bytes]:
        with once(self.connect(), close=True) as one:
            one.request("GET", path)
            response = one.getresponse()
            return response.status, response.read()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        return code


@contextmanager
def once(connection: http.client.HTTPConnection, close: bool) -> Iterator[http.client.HTTPConnection]:
    try:
        yield connection
    finally:
        if close:
            connection.close()


@contextmanager
def server(
    *arguments: Any, ready: bool = True, python: Any = None, name: str = "serve", **environment: str
) -> Iterator[Server]:
    """Start ``reaugkd serve ARGUMENTS --port 0``, wait until it is ready, and end all of it with the block.

    Another command with a server has another ``name``.
    """
    program = python or (sys.executable, "-P", "-c", "from reaugkd.cli import main; main()")
    command = [*map(str, program), name, *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    one = Server(process)
    try:
        if ready:
            one.port = int(one.wait_for(r"(listening on|page is at) http://\S+:\d+").rpartition(":")[2])
            workers = int(arguments[arguments.index("--workers") + 1]) if "--workers" in arguments else 1
            one.wait_for("ready: ", workers)
        yield one
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(LIMIT)
        one.end()
        assert process.stderr is not None
        process.stderr.close()


def replace_folder(new: Path, place: Path) -> None:
    """Put a folder into the place of another one by renames, as a deployment does."""
    old = place.with_name(f"{place.name}.old-{new.name}")
    place.rename(old)
    new.rename(place)


class Load:
    """Threads that send requests one after another until the block ends, and keep every answer.

    Args:
        count: the number of threads.
        work: sends one request, with the number of the thread and of its request; what it returns is kept.
    """

    def __init__(self, count: int, work: Callable[[int, int], Any]) -> None:
        self.results: list[Any] = []
        self.faults: list[BaseException] = []
        self._over, self._more = threading.Event(), threading.Condition()
        self._threads = [threading.Thread(target=self._run, args=(work, one), daemon=True) for one in range(count)]

    def _run(self, work: Callable[[int, int], Any], thread: int) -> None:
        number = 0
        while not self._over.is_set():
            try:
                result = work(thread, number)
            except BaseException as error:
                self.faults.append(error)
                result = error
            number += 1
            with self._more:
                self.results.append(result)
                self._more.notify_all()

    def wait_for_more(self, count: int) -> None:
        """Wait until so many further requests are answered."""
        with self._more:
            least = len(self.results) + count
            assert self._more.wait_for(lambda: len(self.results) >= least, LIMIT)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(LIMIT)
