"""Statistics in Prometheus's text exposition format, version 0.0.4.

Counters start at the opening of a runtime, or at its last reset; Prometheus treats a smaller value as a restart.
Buckets are cumulative: each counts the values up to its ``le``. Latency has five edges per decade.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

from ..decision.histogram import PER_DECADE

_Samples = Iterable[tuple[str, Mapping[str, str], float]]
"""The suffix, labels and value of each sample of a metric."""


def exposition(stats: Mapping[str, Any]) -> str:
    """`Stats` as text."""
    by_label = [("", {"label": name}, count) for name, count in stats["labels"].items()]
    reasons = [("", {"reason": name}, count) for name, count in stats["not_retrieved"].items()]
    signals = [("", {"signal": name}, count) for name, count in stats["abstentions"].items()]
    errors = [("", {"error": name}, count) for name, count in stats["errors"].items()]
    drift = [("", {"histogram": name}, value) for name, value in stats["drift"].items() if value is not None]
    metrics = [
        _metric("answers_total", "counter", "Texts answered, by label.", by_label),
        _metric("errors_total", "counter", "Texts that could not be answered, by error class.", errors),
        _metric(
            "truncated_total",
            "counter",
            "Answers from the beginning of a text alone.",
            [("", {}, stats["truncated"])],
        ),
        _metric("retrieved_total", "counter", "Answers with neighbours.", [("", {}, stats["retrieved"])]),
        _metric("not_retrieved_total", "counter", "Answers of the student alone, by reason.", reasons),
        _metric("judged_total", "counter", "Answers with abstention requested.", [("", {}, stats["judged"])]),
        _metric("abstained_total", "counter", "Texts abstained from, by the strongest signal.", signals),
        _metric("top_similarity", "histogram", "Cosine of the nearest neighbour.", _buckets(stats["similarity"])),
        _metric(
            "agreement",
            "histogram",
            "Probability that student and neighbours draw the same label.",
            _buckets(stats["agreement"]),
        ),
        _metric(
            "latency_seconds",
            "histogram",
            "Latency of an answer.",
            _buckets(stats["latency_us"], every=PER_DECADE // 5, unit=1e-6),
        ),
        _metric(
            "drift",
            "gauge",
            "Population stability index against the held-out rows; above 0.25 the texts have changed.",
            drift,
        ),
    ]
    return "".join(metrics)


def _metric(name: str, kind: str, meaning: str, samples: _Samples) -> str:
    name = f"reaugkd_{name}"
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{suffix}{_labels(labels)} {_number(value)}" for suffix, labels, value in samples]
    return "\n".join(lines) + "\n"


def _buckets(histogram: Mapping[str, Any], every: int = 1, unit: float = 1.0) -> _Samples:
    below = list(accumulate(histogram["counts"]))
    for edge, count in list(zip(histogram["edges"], below, strict=False))[::every]:
        yield "_bucket", {"le": f"{edge * unit:.6g}"}, count
    yield "_bucket", {"le": "+Inf"}, below[-1]
    yield "_sum", {}, histogram["sum"] * unit
    yield "_count", {}, below[-1]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return repr(value)
