"""Short benchmarks for tests: the steps are those of real ones, the figures mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

from reaugkd.runtime.benchmark import bench, interleaved, latency
from reaugkd.runtime.report import collect

TEXTS_PER_PASS = 20


@contextmanager
def short_bench(**settings: int | None) -> Iterator[None]:
    """In this block, `bench` and `report` in this process take few samples, texts and resamples.

    Args:
        settings: of `BenchSettings`, where a command gives no other value.
    """
    short = partial(bench.BenchSettings, **{"warmup": 1, "passes": 1, "answers": 2, **settings})
    with (
        mock.patch.multiple(bench, FEWEST_SAMPLES=4, BenchSettings=short),
        mock.patch.object(collect, "BenchSettings", short),
        mock.patch.object(interleaved, "TEXTS_PER_PASS", TEXTS_PER_PASS),
        mock.patch.object(latency, "RESAMPLES", 20),
    ):
        yield
