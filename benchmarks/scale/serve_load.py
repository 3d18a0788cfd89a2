"""Load test of `reaugkd serve` on this machine's loopback, bounded in time.

    python benchmarks/scale/serve_load.py BUNDLE TEXTS [--seconds 5] [--other BUNDLE]
        [--parts throughput,queue,swaps,slow]

TEXTS has one text a line. The client runs on the same machine and takes a part of its cores: `client_share` says how
much of one core. It has one thread, except in `swaps`. Parts:

throughput  texts per second over the in-process runtime's `predict_many` with the same threads, at 1, 8, 64
            connections; and milliseconds of processor time for a text in both, which other programs disturb less
queue       three times as many requests a second as the server answers: codes, and the 99th percentile of the answered
            ones over the time of a full queue (its texts / the texts that the server answers in a second)
swaps       8 connections while the bundle is replaced 20 times by --other (default: a copy) and edited 500 times: lost
            and wrong answers
slow        200 connections that send one byte a second, and the latency of others meanwhile

It prints one JSON object a part.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serve_client import request_of

from reaugkd import Runtime
from reaugkd.runtime.inference.session.threads import default_threads


class Connection:
    """One connection that is kept: plain sockets, because an HTTP library's own time would be most of the client's."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a request and return the code and the body; connects where there is no connection."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), 60)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request_of(path, body))
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._some()
        begin, _, rest = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", begin)[1])  # type: ignore[index]
        while len(rest) < length:
            rest += self._some()
        if b"connection: close" in begin:
            self.close()
        return int(begin[9:12]), rest

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _some(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the server has closed the connection")
        return data


@contextmanager
def served(bundle: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[str], list[str]]]:
    """Start a server; its port, its process and the lines of its log."""
    command = [sys.executable, "-m", "reaugkd.cli", "serve", str(bundle), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    news = threading.Condition()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with news:
                lines.append(line.rstrip())
                news.notify_all()

    threading.Thread(target=read, daemon=True).start()
    with news:
        if not news.wait_for(lambda: any("ready: " in line for line in lines), 120):
            raise TimeoutError(lines)
    port = int(lines[0].rpartition(":")[2])
    try:
        yield port, process, lines
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def in_process(bundle: Path, texts: list[str], threads: int, seconds: float) -> tuple[float, float]:
    """Texts per second of `predict_many`, and milliseconds of processor time for a text."""
    with Runtime.open(bundle, threads=threads) as runtime:
        list(runtime.predict_many(texts[:200]))
        begin, used, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - begin < seconds:
            count += len(list(runtime.predict_many(texts[:500])))
        return count / (time.perf_counter() - begin), 1e3 * (time.process_time() - used) / count


def processor_time(pid: int) -> float:
    """Seconds of processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loaded(
    port: int, connections: int, seconds: float, request: Callable[[Connection, int], Any], rate: float = 0.0
) -> tuple[list[tuple[float, Any]], list[str], float]:
    """The seconds and results of requests on some connections, what failed, and the requests' seconds in all.

    Args:
        port: the server's.
        connections: each sends a request after the other.
        seconds: how long.
        request: sends one, and returns its result.
        rate: requests per second of all connections; 0 for as many as are answered.
    """
    results: list[list[tuple[float, Any]]] = [[] for _ in range(connections)]
    failed: list[str] = []
    over = threading.Event()

    def work(number: int) -> None:
        connection, count, found = Connection(port), number, results[number]
        due = time.perf_counter() + (number / rate if rate else 0.0)
        while not over.wait(max(0.0, due - time.perf_counter())):
            begin = time.perf_counter()
            due += connections / rate if rate else 0.0
            try:
                result = request(connection, count)
            except (OSError, ConnectionError) as error:
                failed.append(repr(error))
                connection.close()
                continue
            found.append((time.perf_counter() - begin, result))
            count += connections
        connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    over.wait(seconds)
    over.set()
    for thread in threads:
        thread.join()
    return [one for some in results for one in some], failed, time.perf_counter() - begin


def clients(port: int, connections: int, seconds: float, texts: list[str], rate: float = 0.0) -> dict[str, Any]:
    """Load by a process of its own, which has another interpreter lock than the caller."""
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("serve_client.py")),
            *map(str, (port, connections, seconds, rate)),
        ],
        input="\n".join(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def throughput(bundle: Path, texts: list[str], seconds: float) -> dict[str, Any]:
    """The part `throughput`."""
    threads, found = default_threads(), []
    for connections in (1, 8, 64):
        alone, own = in_process(bundle, texts, min(threads, connections), seconds)
        with served(bundle, "--threads", str(threads)) as (port, process, _):
            clients(port, connections, 1.0, texts)
            before = processor_time(process.pid)
            one = clients(port, connections, seconds, texts)
            used = 1e3 * (processor_time(process.pid) - before) / sum(one["codes"].values())
        cost = {"in_process_cpu_ms": own, "server_cpu_ms": used}
        ratio = one["per_second"] / alone
        found.append({"connections": connections, "in_process": alone, "ratio": ratio, **cost, **one})
    return {"threads": threads, "connections": found}


def queue(bundle: Path, texts: list[str], seconds: float, places: int = 64) -> dict[str, Any]:
    """The part `queue`."""
    threads = default_threads()
    with served(bundle, "--threads", str(threads), "--queue", str(places)) as (port, _, _):
        capacity = clients(port, 8, seconds, texts)["per_second"]
        found = clients(port, 3 * places, seconds, texts, 3 * capacity)
    allowed = 1e3 * places / capacity
    return {"capacity": capacity, "allowed_ms": allowed, "p99_over_allowed": found["p99_ms"] / allowed, **found}


class Swaps:
    """The part `swaps`: every answer must be one that one of the bundles gives; the edits are of other texts."""

    def __init__(self, bundle: Path, other: Path | None, texts: list[str], folder: Path) -> None:
        self._originals, self._folder, self._texts = [bundle, other or bundle], folder, texts[:200]
        self.place = Path(shutil.copytree(bundle, folder / "bundle"))
        self._allowed: dict[str, list[list[tuple[str, float]]]] = {text: [] for text in self._texts}
        for original in self._originals:
            with Runtime.open(original) as runtime:
                for text in self._texts:
                    answer = runtime.predict(text)
                    self._allowed[text].append(list(zip(answer.labels, answer.probabilities.tolist(), strict=True)))
        self._label = self._allowed[self._texts[0]][0][0][0]
        self.wrong: list[str] = []
        self.edits, self.swaps = Counter[str](), 0

    def check(self, connection: Connection, number: int) -> int:
        """Ask for a text, and compare the answer."""
        text = self._texts[number % len(self._texts)]
        code, body = connection.post("/predict", json.dumps({"inputs": text}).encode())
        scores = {one["label"]: one["score"] for one in json.loads(body)} if code == 200 else {}
        # Edited bundles blend in numpy, with other roundings; a row of an edit may be a neighbour of a text.
        if not any(all(abs(scores.get(name, 2) - p) < 0.02 for name, p in one) for one in self._allowed[text]):
            self.wrong.append(f"{code} {text}")
        return code

    def edit(self, port: int, count: int) -> None:
        """Add rows, one after the other."""
        connection = Connection(port)
        for number in range(count):
            body = {"texts": f"zqx {number} vkw zqx", "label": self._label, "new_labels": True}
            self.edits[str(connection.post("/kb/add", json.dumps(body).encode())[0])] += 1
        connection.close()

    def swap(self, process: subprocess.Popen[str], lines: list[str], count: int) -> None:
        """Replace the bundle, and wait until the server has taken the new one."""
        for number in range(count):
            fresh = Path(shutil.copytree(self._originals[(number + 1) % 2], self._folder / f"new{number}"))
            seen = len(lines)
            self.place.rename(self._folder / f"old{number}")
            fresh.rename(self.place)
            process.send_signal(signal.SIGHUP)
            until = time.monotonic() + 60
            while not any("in place of" in line for line in lines[seen:]):
                if time.monotonic() > until:
                    raise TimeoutError(lines)
                time.sleep(0.02)
            self.swaps += 1


def swaps(bundle: Path, other: Path | None, texts: list[str], count: int = 20, edits: int = 500) -> dict[str, Any]:
    """The part `swaps`."""
    with tempfile.TemporaryDirectory() as folder:
        one = Swaps(bundle, other, texts, Path(folder))
        codes, failed = Counter[str](), list[str]()
        with served(one.place, "--allow-edits") as (port, process, lines):
            changes = [
                threading.Thread(target=one.edit, args=(port, edits)),
                threading.Thread(target=one.swap, args=(process, lines, count)),
            ]
            for change in changes:
                change.start()
            while any(change.is_alive() for change in changes):
                found, lost, _ = loaded(port, 8, 1.0, one.check)
                codes.update(str(code) for _, code in found)
                failed += lost
    examples = one.wrong[:3] + failed[:3]
    counted = {"swaps": one.swaps, "edit_codes": dict(one.edits)}
    return {"codes": dict(codes), "lost": len(failed), "wrong": len(one.wrong), "examples": examples, **counted}


def slow(bundle: Path, texts: list[str], seconds: float) -> dict[str, Any]:
    """The part `slow`."""
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
    with served(bundle) as (port, _, _):
        alone = clients(port, 1, seconds, texts)
        channels = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        over = threading.Event()

        def trickle() -> None:
            for at in range(len(head)):
                for channel in channels:
                    channel.sendall(head[at : at + 1])
                if over.wait(1.0):
                    break

        thread = threading.Thread(target=trickle)
        thread.start()
        beside = clients(port, 1, seconds, texts)
        over.set()
        thread.join()
        for channel in channels:
            channel.close()
    return {"p99_ms_alone": alone["p99_ms"], "p99_ms_beside": beside["p99_ms"], "codes": beside["codes"]}


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--parts", default="throughput,queue,swaps,slow")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    texts = [line for line in given.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    parts = {
        "throughput": lambda: throughput(given.bundle, texts, given.seconds),
        "queue": lambda: queue(given.bundle, texts, given.seconds),
        "swaps": lambda: swaps(given.bundle, given.other, texts),
        "slow": lambda: slow(given.bundle, texts, given.seconds),
    }
    for name in given.parts.split(","):
        print(json.dumps({"part": name, **parts[name]()}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
