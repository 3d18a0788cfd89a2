"""Statistics of a runtime's answers, for dashboards and drift detection.

`Statistics` counts 16 answers together: one alone, right after a run of the model, takes four times as long. `Stats` is
the result.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from typing import Any

from ..decision.abstention_thresholds import DriftReference
from ..decision.histogram import AGREEMENT_EDGES, LATENCY_EDGES, SIMILARITY_EDGES, Histogram, population_stability
from ..inference.prediction import Prediction

_LEAST_DRIFT = 200  # texts; with fewer, the index is noise
_QUANTILES = (0.5, 0.9, 0.99)
_TOGETHER = 16  # answers that are counted together


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
        from .prometheus import exposition, metrics_of  # here: most programs do not need it

        return exposition(metrics_of(self))


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
        self._waiting: deque[tuple[Any, ...]] = deque()  # threads append to it without the lock
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
        judged = answer.rejection_score is not None
        parts = (answer.label, answer.reason, answer.truncated, judged, answer.abstention, answer.timings)
        self._waiting.append((*parts, answer.student_probabilities, answer.retrieval_probabilities, answer.nearest))
        if len(self._waiting) >= _TOGETHER:
            with self._lock:
                self._count_waiting()

    def _count_waiting(self) -> None:
        """Count the answers that wait; the lock is held."""
        while self._waiting:
            label, reason, truncated, judged, abstention, timings, student, retrieved, nearest = self._waiting.popleft()
            self._labels[label] += 1
            self._reasons[reason] += 1
            self._truncated += truncated
            if judged:
                self._abstentions[abstention] += 1
            latency = sum(timings)
            self._latency[bisect_left(LATENCY_EDGES, latency)] += 1
            self._sums[2] += latency
            if retrieved is not None:
                agreement = float(student.dot(retrieved))
                self._similarity[bisect_left(SIMILARITY_EDGES, nearest)] += 1
                self._agreement[bisect_left(AGREEMENT_EDGES, agreement)] += 1
                self._sums[0] += nearest
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
            self._count_waiting()
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
