"""Statistics of a runtime's answers, for dashboards and drift detection.

`Statistics` counts each answer under a lock, in a small fraction of the answer's time; `Stats` is the result.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections import Counter
from typing import Any

from ..decision.abstention_thresholds import DriftReference
from ..decision.histogram import AGREEMENT_EDGES, LATENCY_EDGES, SIMILARITY_EDGES, Histogram, population_stability
from ..inference.prediction import Prediction

_LEAST_DRIFT = 200  # texts; with fewer, the index is noise
_QUANTILES = (0.5, 0.9, 0.99)


class Stats(dict[str, Any]):
    """Counts as JSON values.

    Keys:
        seconds: time since the runtime was opened or the counts were reset.
        predictions: texts answered, including texts abstained from.
        truncated: answers from the beginning of a text alone (`Prediction.truncated`).
        errors: texts that could not be answered, by error class.
        retrieved: answers with neighbours.
        not_retrieved: answers without neighbours, by ``Prediction.reason``.
        judged: answers with abstention requested.
        abstained: texts abstained from.
        abstentions: texts abstained from, by ``Prediction.abstention``.
        labels: answers, by label.
        similarity: histogram of the top neighbour's cosine: ``edges``, ``counts`` (one more than edges: up to the first
            edge, ..., above the last) and ``sum``.
        agreement: histogram of the probability that student and neighbours draw the same label.
        latency_us: histogram of the latency in microseconds, with ``p50``, ``p90`` and ``p99`` (error up to 6 %; None
            before the first answer).
        drift: population stability index of ``similarity`` and ``agreement`` against the bundle's held-out rows
            (`histogram.population_stability`); None without such a reference, with fewer than 200 texts retrieved for,
            or if a gate or a budget chose the texts.
    """

    def prometheus(self) -> str:
        """The counts in Prometheus's text format, version 0.0.4."""
        from .prometheus import exposition  # here: most programs do not need it

        return exposition(self)


class Statistics:
    """Counts answers; may be called from several threads.

    Args:
        reference: the reference for drift; None to report no drift.
    """

    def __init__(self, reference: DriftReference | None = None) -> None:
        self._reference = reference
        self._begin()

    def _begin(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._since = time.monotonic()
        self._truncated = 0
        self._labels: Counter[str] = Counter()
        self._reasons: Counter[str | None] = Counter()
        self._abstentions: Counter[str | None] = Counter()
        self._errors: Counter[str] = Counter()
        self._similarity = [0] * (len(SIMILARITY_EDGES) + 1)
        self._agreement = [0] * (len(AGREEMENT_EDGES) + 1)
        self._latency = [0] * (len(LATENCY_EDGES) + 1)
        self._sums = [0.0, 0.0, 0.0]

    def count(self, answer: Prediction) -> None:
        """Count an answer."""
        timings, retrieved = answer.timings, answer.retrieval_probabilities
        latency = timings[0] + timings[1] + timings[2] + timings[3]
        late = bisect_left(LATENCY_EDGES, latency)
        near = alike = 0
        similarity = agreement = 0.0
        if retrieved is not None:
            similarity = answer.nearest
            agreement = float(answer.student_probabilities.dot(retrieved))
            near, alike = bisect_left(SIMILARITY_EDGES, similarity), bisect_left(AGREEMENT_EDGES, agreement)
        with self._lock:
            self._labels[answer.label] += 1
            self._reasons[answer.reason] += 1
            self._truncated += answer.truncated
            if answer.rejection_score is not None:
                self._abstentions[answer.abstention] += 1
            self._latency[late] += 1
            self._sums[2] += latency
            if retrieved is not None:
                self._similarity[near] += 1
                self._agreement[alike] += 1
                self._sums[0] += similarity
                self._sums[1] += agreement

    def count_error(self, error: Exception) -> None:
        """Count a text that could not be answered."""
        with self._lock:
            self._errors[type(error).__name__] += 1

    def stats(self, reset: bool = False) -> Stats:
        """The counts so far.

        Args:
            reset: count from zero afterwards; no answer is lost or counted twice.
        """
        if self._pid != os.getpid():  # in a forked child, a thread of the parent may hold the lock forever
            self._begin()
        with self._lock:
            now = time.monotonic()
            labels, reasons = dict(self._labels), dict(self._reasons)
            abstentions, errors = dict(self._abstentions), dict(self._errors)
            counts = [tuple(one) for one in (self._similarity, self._agreement, self._latency)]
            sums, seconds, truncated = tuple(self._sums), now - self._since, self._truncated
            if reset:
                self._clear()
        edges = (SIMILARITY_EDGES, AGREEMENT_EDGES, LATENCY_EDGES)
        similarity, agreement, latency = (Histogram(*both) for both in zip(edges, counts, strict=True))
        requested = sum(abstentions.values())
        kept = abstentions.pop(None, 0)
        retrieved = reasons.pop(None, 0)
        chosen = bool(reasons.get("sure") or reasons.get("budget"))
        return Stats(
            seconds=seconds,
            predictions=latency.total,
            truncated=truncated,
            errors=_sorted(errors),
            retrieved=retrieved,
            not_retrieved=_sorted(reasons),
            judged=requested,
            abstained=requested - kept,
            abstentions=_sorted(abstentions),
            labels=_sorted(labels),
            similarity=_as_record(similarity, sums[0]),
            agreement=_as_record(agreement, sums[1]),
            latency_us={
                **_as_record(latency, sums[2]),
                **{f"p{share:.0%}".removesuffix("%"): latency.quantile(share) for share in _QUANTILES},
            },
            drift={
                "similarity": self._drift("similarity", similarity, chosen),
                "agreement": self._drift("agreement", agreement, chosen),
            },
        )

    def _drift(self, name: str, seen: Histogram, chosen: bool) -> float | None:
        """The index; None without a reference, with few texts, or if the gate or a budget chose the texts."""
        reference: Histogram | None = getattr(self._reference, name, None)
        if reference is None or reference.edges != seen.edges:  # written by a version with other edges
            return None
        if chosen or seen.total < _LEAST_DRIFT:
            return None
        return population_stability(reference, seen.counts)


def _sorted(counts: dict[Any, int]) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts)}


def _as_record(histogram: Histogram, total: float) -> dict[str, Any]:
    return {"edges": list(histogram.edges), "counts": list(histogram.counts), "sum": total}
