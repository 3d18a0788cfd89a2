"""Statistics in Prometheus's text exposition format, version 0.0.4.

Counters start at the opening of a runtime, or at its last reset; Prometheus treats a smaller value as a restart.
Buckets are cumulative: each counts the values up to its ``le``. Latency has five edges per decade.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from ..decision.histogram import PER_DECADE

Samples = Iterable[tuple[str, Mapping[str, str], float]]
"""The suffix, labels and value of each sample of a metric."""


class Metric(NamedTuple):
    """A metric: its name without ``reaugkd_``, its kind (counter, gauge or histogram), its meaning and its samples."""

    name: str
    kind: str
    meaning: str
    samples: Samples


def exposition(metrics: Iterable[Metric]) -> str:
    """Metrics as text."""
    return "".join(map(_text, metrics))


def metrics_of(stats: Mapping[str, Any]) -> list[Metric]:
    """The metrics of `Stats`."""
    by_label = [("", {"label": name}, count) for name, count in stats["labels"].items()]
    reasons = [("", {"reason": name}, count) for name, count in stats["not_retrieved"].items()]
    signals = [("", {"signal": name}, count) for name, count in stats["abstentions"].items()]
    errors = [("", {"error": name}, count) for name, count in stats["errors"].items()]
    drift = [("", {"histogram": name}, value) for name, value in stats["drift"].items() if value is not None]
    return [
        Metric("answers_total", "counter", "Texts answered, by label.", by_label),
        Metric("errors_total", "counter", "Texts that could not be answered, by error class.", errors),
        Metric(
            "truncated_total",
            "counter",
            "Answers from the beginning of a text alone.",
            [("", {}, stats["truncated"])],
        ),
        Metric("retrieved_total", "counter", "Answers with neighbours.", [("", {}, stats["retrieved"])]),
        Metric("not_retrieved_total", "counter", "Answers of the student alone, by reason.", reasons),
        Metric("judged_total", "counter", "Answers with abstention requested.", [("", {}, stats["judged"])]),
        Metric("abstained_total", "counter", "Texts abstained from, by the strongest signal.", signals),
        Metric("top_similarity", "histogram", "Cosine of the nearest neighbour.", buckets(stats["similarity"])),
        Metric(
            "agreement",
            "histogram",
            "Probability that student and neighbours draw the same label.",
            buckets(stats["agreement"]),
        ),
        Metric(
            "latency_seconds",
            "histogram",
            "Latency of an answer.",
            buckets(stats["latency_us"], every=PER_DECADE // 5, unit=1e-6),
        ),
        Metric(
            "drift",
            "gauge",
            "Population stability index against the held-out rows; above 0.25 the texts have changed.",
            drift,
        ),
    ]


def _text(metric: Metric) -> str:
    name, kind, meaning, samples = metric
    name = f"reaugkd_{name}"
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{suffix}{_labels(labels)} {_number(value)}" for suffix, labels, value in samples]
    return "\n".join(lines) + "\n"


def buckets(
    histogram: Mapping[str, Any], every: int = 1, unit: float = 1.0
) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """The samples of a histogram.

    Args:
        histogram: its ``edges``, ``counts`` (one more than edges) and ``sum``.
        every: leave out the other edges.
        unit: factor for the edges and the sum.
    """
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
