"""The bounded queue and the deadline, with answers that wait for the test."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.http_client import HELD, LIMIT, Client, Deadlines, Gate, Reply, serving, until_depth

from reaugkd.serve import work_queue


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    one = Gate(monkeypatch)
    yield one
    one.open.set()


def request(client: Client, count: int) -> Any:
    body = json.dumps({"inputs": [[HELD]] * count}).encode()
    return client.send_async("POST", "/predict", body, {"content-type": "application/json"})


def test_texts_are_counted_and_a_request_is_taken_whole_or_not(edge_bundle: Path, gate: Gate) -> None:
    async def load(client: Client) -> list[Reply]:
        first = asyncio.create_task(request(client, 8))
        await until_depth(client, 8)
        second = asyncio.create_task(request(client, 5))
        await until_depth(client, 13)
        refused = [await request(client, count) for count in (4, 8)]  # 3 places are free
        third = asyncio.create_task(request(client, 3))
        await until_depth(client, 16)
        refused.append(await request(client, 1))
        assert all((one.status, one.headers["retry-after"]) == (429, "1") for one in refused)
        assert (await client.send_async("GET", "/health", b"", {})).status == 200  # full is not unhealthy
        gate.open.set()
        return [await task for task in (first, second, third)]

    with serving(edge_bundle, queue=16, max_batch=8) as client:
        replies = asyncio.run(load(client))
        assert [(one.status, len(one.value)) for one in replies] == [(200, 8), (200, 5), (200, 3)]
        assert client.service._queue.depth == 0
        assert client.post("/predict", {"inputs": "noon"}).status == 200
        assert 'http_requests_total{route="/predict",code="429"} 3' in client.get("/metrics").body.decode()


def test_past_the_deadline_the_texts_that_wait_are_left_out(edge_bundle: Path, gate: Gate) -> None:
    async def load(client: Client) -> Reply:
        deadlines = Deadlines(7.5)
        task = asyncio.create_task(request(client, 8))
        assert await asyncio.to_thread(gate.begun.acquire, timeout=LIMIT)
        deadlines.end(0)
        return await task

    with serving(edge_bundle, threads=1, deadline=7.5) as client:
        reply = asyncio.run(load(client))
        assert (reply.status, reply.value["error_type"]) == (504, "Overloaded")
        assert "deadline of 7.5 seconds" in reply.value["error"]
        assert client.service._queue.depth == 8  # the first text is with its thread: its place is not free
        gate.open.set()
        asyncio.run(until_depth(client, 0))
        assert gate.seen == [HELD]


def test_a_full_queue_refuses_before_it_reads(edge_bundle: Path, gate: Gate) -> None:
    """Whatever the body is; but who may not ask learns nothing about the queue."""

    async def load(client: Client) -> None:
        task = asyncio.create_task(request(client, 8))
        await until_depth(client, 8)
        headers = {"content-type": "text/plain"}
        for path in ("/predict", "/", "/classify", "/v1/predict", "/models/edge", "/v2/models/edge/infer"):
            reply = await client.send_async("POST", path, b"{", headers)
            assert (reply.status, reply.headers["retry-after"]) == (429, "1"), path
        reply = await client.send_async("POST", "/predict", b"{", {**headers, "authorization": "Bearer other"})
        assert reply.status == 401
        gate.open.set()
        assert (await task).status == 200
        assert (await client.send_async("POST", "/predict", b"{", headers)).status == 415

    with serving({"edge": edge_bundle}, key="key", queue=8, max_batch=8) as client:
        asyncio.run(load(client))


def test_refusals_come_in_groups(edge_bundle: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two groups, the event loop leaves the processor to the answers; with a free place it never rests."""
    rests: list[float] = []
    monkeypatch.setattr(work_queue, "time", SimpleNamespace(sleep=rests.append, perf_counter=time.perf_counter))

    async def load(client: Client) -> None:
        task = asyncio.create_task(request(client, 8))
        await until_depth(client, 8)
        assert not rests
        for group in (1, 2):
            refused = await asyncio.gather(*(request(client, 1) for _ in range(50)))
            assert {one.status for one in refused} == {429}
            while len(rests) < group:
                await asyncio.sleep(0)
        gate.open.set()
        await task
        assert (await request(client, 1)).status == 200 and rests == [work_queue._REST] * 2

    with serving(edge_bundle, queue=8, max_batch=8) as client:
        asyncio.run(load(client))


def test_a_client_that_goes_away_leaves_no_work_behind(edge_bundle: Path, gate: Gate) -> None:
    async def cancel(client: Client) -> None:
        task = asyncio.create_task(request(client, 8))
        await until_depth(client, 8)
        while not gate.seen:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serving(edge_bundle, threads=1) as client:
        asyncio.run(cancel(client))
        gate.open.set()
        asyncio.run(until_depth(client, 0))
        assert gate.seen == [HELD]


def test_answers_come_from_the_pool_and_as_many_at_a_time_as_it_has_threads(edge_bundle: Path, gate: Gate) -> None:
    names: set[str] = set()

    async def load(client: Client) -> None:
        task = asyncio.create_task(request(client, 8))
        for _ in range(3):
            assert await asyncio.to_thread(gate.begun.acquire, timeout=LIMIT)
        names.update(thread.name for thread in threading.enumerate() if thread.name.startswith("reaugkd-"))
        assert len(gate.seen) == 3
        gate.open.set()
        assert (await task).status == 200

    with serving(edge_bundle, threads=3) as client:
        asyncio.run(load(client))
    assert {"reaugkd-0", "reaugkd-1", "reaugkd-2", "reaugkd-watch"} <= names
