"""Metrics: read by Prometheus's own parser, added up over workers, going on over restarts and swaps."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.http_client import Client, serving

from reaugkd.runtime.monitoring.prometheus import Metric, exposition
from reaugkd.serve.metrics import SharedCounts, WorkerCounts, merged


def samples(client: Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels."""
    reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(reply.body.decode()):
        assert family.documentation and family.type != "unknown", family
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def value(found: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str, **labels: str) -> float:
    return found.get((name, tuple(sorted(labels.items()))), 0.0)


def test_requests_answers_and_histograms(known_bundle: Path) -> None:
    with serving(known_bundle) as client:
        for _ in range(5):
            client.post("/predict", {"inputs": "noon"})
        client.post("/v1/predict", {"inputs": ["jazz", "late"], "retrieval": "never"})
        client.post("/predict", {"inputs": ""})
        client.get("/nothing")
        client.get("/nothing/else")
        found = samples(client)
        assert value(found, "reaugkd_http_requests_total", route="/predict", code="200") == 5
        assert value(found, "reaugkd_http_requests_total", route="/predict", code="400") == 1
        assert value(found, "reaugkd_http_requests_total", route="other", code="404") == 2
        assert value(found, "reaugkd_retrieved_total", model="known") == 5
        assert value(found, "reaugkd_not_retrieved_total", model="known", reason="never") == 2
        assert value(found, "reaugkd_errors_total", model="known", error="TextError") == 1
        assert value(found, "reaugkd_latency_seconds_count", model="known") == 7
        assert value(found, "reaugkd_queue_depth") == 0
        name = "reaugkd_http_request_duration_seconds"
        assert value(found, f"{name}_count", route="/predict") == 6
        buckets = [
            number
            for (one, labels), number in found.items()
            if one == f"{name}_bucket" and ("route", "/predict") in labels
        ]
        assert buckets == sorted(buckets) and buckets[-1] == 6
        before = value(found, "reaugkd_latency_seconds_count", model="known")
        client.service.bundles["known"].refresh(force=True)
        client.post("/predict", {"inputs": "noon"})
        found = samples(client)
        assert value(found, "reaugkd_latency_seconds_count", model="known") == before + 1  # a swap resets nothing
        assert value(found, "reaugkd_bundle_swaps_total", model="known", result="taken") == 1


def counter(number: float, **labels: str) -> Metric:
    return Metric("answers_total", "counter", "Answers.", [("", labels, number)])


def gauge(name: str, number: float) -> Metric:
    return Metric(name, "gauge", "A state.", [("", {}, number)])


def test_workers_are_added_up_and_a_new_one_goes_on() -> None:
    shared = SharedCounts(2)
    first, second = WorkerCounts(shared, 0), WorkerCounts(shared, 1)
    second.share([counter(5, label="a"), counter(1, label="b"), gauge("queue_depth", 2), gauge("drift", 0.5)])
    found = {
        metric.name: list(metric.samples)
        for metric in first.all([counter(2, label="a"), gauge("queue_depth", 1), gauge("drift", 0.1)])
    }
    assert found == {
        "answers_total": [("", {"label": "a"}, 7), ("", {"label": "b"}, 1)],
        "queue_depth": [("", {}, 3)],
        "drift": [("", {}, 0.1)],  # an index cannot be added
    }
    again = WorkerCounts(shared, 1)  # the second worker has died: its counts stay, its state does not
    found = {metric.name: list(metric.samples) for metric in again.all([counter(1, label="a")])}
    assert found["answers_total"] == [("", {"label": "a"}, 8), ("", {"label": "b"}, 1)]
    assert found["queue_depth"] == [("", {}, 1)]


def test_a_reader_never_sees_half_of_what_is_written() -> None:
    shared = SharedCounts(1)
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            shared.write(0, [counter(number, label="x" * (number % 50)) for _ in range(1 + number % 7)])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(300):
            found = shared.read(0)
            numbers = {number for metric in found for _, _, number in metric.samples}
            assert len(numbers) <= 1 and len(found) in (0, *(1 + (int(number) % 7) for number in numbers))
    finally:
        over.set()
        thread.join()


def test_metrics_of_one_name_are_one_family() -> None:
    text = exposition(merged([[counter(1, model="a")], [counter(2, model="b")], [counter(3, model="a")]]))
    assert text.count("# TYPE") == 1
    (family,) = text_string_to_metric_families(text)
    assert {sample.labels["model"]: sample.value for sample in family.samples} == {"a": 4, "b": 2}


@pytest.mark.parametrize("workers", [1, 3])
def test_files_of_the_counts_have_no_name(workers: int) -> None:
    shared = SharedCounts(workers)
    assert [shared.read(worker) for worker in range(workers)] == [[]] * workers
