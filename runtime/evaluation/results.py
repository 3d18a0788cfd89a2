"""Results of an evaluation: the systems' scores, what retrieval changed, and fidelity to the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .bootstrap import Interval, McNemar
from .metrics import CALIBRATION_BINS, METRICS, PROBABILITY_FLOOR, Scores
from .typos import MIN_LETTERS, RATE

TEACHER, STUDENT_FP32 = "teacher", "student_fp32"
STUDENT, RETRIEVAL, BLEND, GATED = "student", "retrieval", "student+retrieval", "student+gated"


SYSTEMS = (TEACHER, STUDENT_FP32, STUDENT, RETRIEVAL, BLEND, GATED)
"""The systems in the order of the tables."""

RESAMPLES, CONFIDENCE, SEED = 1000, 0.95, 0
"""Settings of the bootstrap."""


@dataclass(frozen=True)
class EvalRow:
    """One row of the evaluation's table: a system, its scores and their bootstrap intervals."""

    system: str
    scores: Scores
    intervals: Mapping[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """Return the system, every metric, and ``intervals``."""
        intervals = {metric: list(interval) for metric, interval in self.intervals.items()}
        return {"system": self.system, **self.scores, "intervals": intervals}


@dataclass(frozen=True)
class ScoreDifference:
    """A score of the blend minus the student's, with the paired bootstrap interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class EvalReport:
    """Evaluation of one bundle on one split.

    Attributes:
        rows: the measured systems, in the order of ``SYSTEMS``.
        n: rows of data.
        split: the split's name.
        data: where the rows came from.
        labels: the class names, in the order of the probabilities.
        retrieved: share of the rows with retrieval.
        gated: share of the rows for which the gate retrieves; None without a gate.
        differences: metric -> student+retrieval minus student; empty if nothing was retrieved.
        mcnemar: student (first) against student+retrieval (second); None if nothing was retrieved.
        unseen: rows with a label that the bundle does not have; they count as wrong.
        fidelity: fidelity to the teacher on further kinds of rows (``fidelity.with_fidelity``); None if not measured.
    """

    rows: tuple[EvalRow, ...]
    n: int
    split: str
    data: str
    labels: tuple[str, ...]
    retrieved: float
    gated: float | None
    differences: Mapping[str, ScoreDifference]
    mcnemar: McNemar | None
    unseen: int = 0
    fidelity: Fidelity | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; the same input gives the same report."""
        return {
            "rows": [row.to_json() for row in self.rows],
            "n": self.n,
            "unseen": self.unseen,
            "split": self.split,
            "data": self.data,
            "labels": list(self.labels),
            "retrieved": self.retrieved,
            "gated": self.gated,
            "difference": self._difference_json(),
            "mcnemar": self._mcnemar_json(),
            "fidelity": None if self.fidelity is None else self.fidelity.to_json(),
            "bootstrap": {"resamples": RESAMPLES, "confidence": CONFIDENCE, "seed": SEED, "unit": "row"},
            "conventions": {
                "ece_bins": CALIBRATION_BINS,
                "probability_floor": PROBABILITY_FLOOR,
                "logarithm": "natural",
                "fidelity": None if self.fidelity is None else self.fidelity.meaning(),
            },
        }

    def _difference_json(self) -> dict[str, Any] | None:
        if not self.differences:
            return None
        metrics = {name: {"value": one.value, "interval": list(one.interval)} for name, one in self.differences.items()}
        return {"system": BLEND, "baseline": STUDENT, **metrics}

    def _mcnemar_json(self) -> dict[str, Any] | None:
        return None if self.mcnemar is None else {"first": STUDENT, "second": BLEND, **asdict(self.mcnemar)}


CLEAN, TYPOS, DISTILLATION = "clean", "typos", "distillation"

DISTILLATION_ROWS = 1000
"""Fidelity on distillation rows uses at most this many; a larger train split is sampled."""

FIDELITY_METRICS = tuple(metric.name for metric in METRICS.values() if metric.in_fidelity)
"""The metrics of the fidelity table."""

MEANING = {
    CLEAN: "the rows as they are",
    TYPOS: f"the same rows with typing errors in {100 * RATE:.0f} % of the words of {MIN_LETTERS} letters or more",
    DISTILLATION: f"up to {DISTILLATION_ROWS:,} training rows of the student; each is also in the knowledge base",
}
"""Description of each kind of rows, for the reports."""


@dataclass(frozen=True)
class FidelityRow:
    """One system on one kind of rows.

    Attributes:
        system: its name in the evaluation's table.
        n: rows of data.
        scores: its scores on these rows.
    """

    system: str
    n: int
    scores: Scores

    def to_json(self) -> dict[str, Any]:
        """Return the system, n and the metrics of the fidelity table."""
        return {"system": self.system, "n": self.n, **{name: self.scores[name] for name in FIDELITY_METRICS}}


@dataclass(frozen=True)
class Fidelity:
    """Every system on every kind of rows.

    Attributes:
        kinds: kind -> its systems, in the order of the evaluation's table.
    """

    kinds: Mapping[str, tuple[FidelityRow, ...]]

    def to_json(self) -> dict[str, Any]:
        """Return the systems' scores by kind."""
        return {kind: [row.to_json() for row in rows] for kind, rows in self.kinds.items()}

    def meaning(self) -> dict[str, str]:
        """Return the description of each measured kind of rows."""
        return {kind: MEANING[kind] for kind in self.kinds}
