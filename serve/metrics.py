"""Metrics of a server: requests, the queue, and the counts of its runtimes, added up over workers.

With several workers a scrape reaches any one of them. So each writes its counts to a shared file once a second, and the
one that is asked adds up all. A worker that takes the place of another one continues its counts.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..runtime.monitoring.prometheus import Metric, buckets

DURATIONS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Edges of the histogram of seconds of a request."""

_NOT_ADDED = frozenset({"drift"})  # the first one holds


def merged(parts: Iterable[Sequence[Metric]]) -> list[Metric]:
    """Metrics added up by name and labels; of what cannot be added, the first value."""
    heads: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for metric in (metric for part in parts for metric in part):
        heads.setdefault(metric.name, metric)
        found = values.setdefault(metric.name, {})
        for suffix, labels, value in metric.samples:
            key = suffix, tuple(labels.items())
            if key not in found:
                found[key] = value
            elif metric.name not in _NOT_ADDED:
                found[key] += value
    return [
        head._replace(samples=[(suffix, dict(labels), value) for (suffix, labels), value in values[name].items()])
        for name, head in heads.items()
    ]


def labelled(metrics: Iterable[Metric], **more: str) -> list[Metric]:
    """The metrics with further labels."""
    return [
        metric._replace(samples=[(suffix, {**more, **labels}, value) for suffix, labels, value in metric.samples])
        for metric in metrics
    ]


def counters(metrics: Iterable[Metric]) -> list[Metric]:
    """The metrics that only grow."""
    return [metric for metric in metrics if metric.kind != "gauge"]


class RequestCounts:
    """Counts of requests by route and code, and of their seconds by route."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._counts: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()

    def count(self, route: str, code: int, seconds: float) -> None:
        """Count a request; only the event loop's thread calls this."""
        self._requests[route, code] += 1
        self._counts.setdefault(route, [0] * (len(DURATIONS) + 1))[bisect_left(DURATIONS, seconds)] += 1
        self._seconds[route] += seconds  # type: ignore[assignment]

    def metrics(self) -> list[Metric]:
        """The counts so far."""
        requests = [("", {"route": route, "code": str(code)}, n) for (route, code), n in self._requests.items()]
        durations = [
            (suffix, {"route": route, **labels}, value)
            for route, counts in self._counts.items()
            for suffix, labels, value in buckets({"edges": DURATIONS, "counts": counts, "sum": self._seconds[route]})
        ]
        return [
            Metric("http_requests_total", "counter", "Requests, by route and code.", requests),
            Metric("http_request_duration_seconds", "histogram", "Seconds of a request, by route.", durations),
        ]


class SharedCounts:
    """The counts of all workers, in one nameless file for each, which forked processes share.

    Args:
        workers: the number of workers.
    """

    def __init__(self, workers: int) -> None:
        self._files = [_nameless_file() for _ in range(workers)]

    def write(self, worker: int, metrics: Sequence[Metric]) -> None:
        """Replace the counts of a worker."""
        content = json.dumps(metrics).encode()
        head = b"%016d%016d" % (len(content), zlib.crc32(content))
        os.pwrite(self._files[worker], head + content, 0)

    def read(self, worker: int) -> list[Metric]:
        """The counts of a worker; none before it has written any, or if it is writing all the time."""
        for _ in range(100):
            head = os.pread(self._files[worker], 32, 0)
            if not head:
                break
            with suppress(ValueError):
                size, check = int(head[:16]), int(head[16:])
                content = os.pread(self._files[worker], size, 32)
                if zlib.crc32(content) == check:
                    return [_metric(one) for one in json.loads(content)]
        return []

    def others(self, worker: int) -> list[list[Metric]]:
        """The counts of all other workers."""
        return [self.read(other) for other in range(len(self._files)) if other != worker]


class WorkerCounts:
    """The counts of one worker, continued from those of the one before it, and shared with the others.

    Args:
        shared: the files.
        worker: the worker's number.
    """

    def __init__(self, shared: SharedCounts, worker: int) -> None:
        self._shared, self._worker = shared, worker
        self._before = counters(shared.read(worker))
        self._lock = threading.Lock()

    def all(self, own: Sequence[Metric]) -> list[Metric]:
        """The counts of all workers, and the given ones of this one."""
        return merged([self.share(own), *self._shared.others(self._worker)])

    def share(self, own: Sequence[Metric]) -> list[Metric]:
        """Write this worker's counts for the others."""
        with self._lock:
            mine = merged([own, self._before])
            self._shared.write(self._worker, mine)
            return mine


def _metric(value: Any) -> Metric:
    name, kind, meaning, samples = value
    found: list[tuple[str, Mapping[str, str], float]] = [(suffix, labels, one) for suffix, labels, one in samples]
    return Metric(name, kind, meaning, found)


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("reaugkd-counts")
    file, path = tempfile.mkstemp(prefix="reaugkd-counts")
    os.unlink(path)  # noqa: PTH108  (a string of mkstemp)
    return file
