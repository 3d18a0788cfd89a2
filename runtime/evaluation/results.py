"""The results of an evaluation: the systems compared, their scores, and their fidelity to the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .bootstrap import Interval, McNemar
from .metrics import CALIBRATION_BINS, PROBABILITY_FLOOR, Scores
from .typos import MIN_LETTERS, RATE

TEACHER, STUDENT_FP32 = "teacher", "student_fp32"


STUDENT, RETRIEVAL, BLEND, GATED = "student", "retrieval", "student+retrieval", "student+gated"


SYSTEMS = (TEACHER, STUDENT_FP32, STUDENT, RETRIEVAL, BLEND, GATED)


RESAMPLES = 1000


CONFIDENCE = 0.95


SEED = 0


@dataclass(frozen=True)
class EvalRow:
    """One system's line of the table: its scores, and the bootstrap interval of each score that there is."""

    system: str
    scores: Scores
    intervals: Mapping[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """System, the seven scores, ``intervals``."""
        intervals = {metric: list(interval) for metric, interval in self.intervals.items()}
        return {"system": self.system, **self.scores.as_dict(), "intervals": intervals}


@dataclass(frozen=True)
class Difference:
    """What a score of the blend is above the student's, with its paired interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class EvalReport:
    """The evaluation of one bundle on one split.

    Attributes:
        rows: the systems that could be measured, in the order of ``SYSTEMS``.
        n: rows of data.
        split: the split's name.
        data: where the rows came from.
        labels: the classes' names, in the order of the probabilities.
        retrieved: share of the rows for which neighbours were looked up.
        gated: share of the rows for which the gate looks them up; None without a gate.
        differences: score -> student+retrieval minus student; empty where nothing was retrieved.
        mcnemar: student (first) against student+retrieval (second); None where nothing was retrieved.
        fidelity: to the teacher, on further kinds of rows (``fidelity.with_fidelity``); None where not measured.
    """

    rows: tuple[EvalRow, ...]
    n: int
    split: str
    data: str
    labels: tuple[str, ...]
    retrieved: float
    gated: float | None
    differences: Mapping[str, Difference]
    mcnemar: McNemar | None
    fidelity: Fidelity | None = None

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; the same input gives the same report."""
        return {
            "rows": [row.to_json() for row in self.rows],
            "n": self.n,
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


CLEAN, SHIFTED, DISTILLATION = "clean", "shifted", "distillation"


DISTILLATION_ROWS = 1000
"""So many rows of the distillation are enough; a larger train split is sampled."""


FIDELITY_METRICS = ("accuracy", "teacher_agreement", "teacher_kl", "ece", "nll")
"""The figures of a system that tell its fidelity, and those they are read beside."""


MEANING = {
    CLEAN: "the rows as they are",
    SHIFTED: f"the same rows with typing errors, in {100 * RATE:.0f} % of the words of {MIN_LETTERS} letters or more",
    DISTILLATION: f"up to {DISTILLATION_ROWS:,} rows that the student was distilled on, answered as deployed: each is "
    "in the knowledge base itself",
}
"""What each kind's rows are, for the reports."""


@dataclass(frozen=True)
class FidelityRow:
    """One system on one kind of rows.

    Attributes:
        system: its name in the evaluation's table.
        n: rows of data.
        scores: its figures there.
    """

    system: str
    n: int
    scores: Scores

    def to_json(self) -> dict[str, Any]:
        """System, n and the five figures."""
        return {"system": self.system, "n": self.n, **{name: getattr(self.scores, name) for name in FIDELITY_METRICS}}


@dataclass(frozen=True)
class Fidelity:
    """Every system on every kind of rows.

    Attributes:
        kinds: kind -> its systems, in the order of the evaluation's table.
    """

    kinds: Mapping[str, tuple[FidelityRow, ...]]

    def to_json(self) -> dict[str, Any]:
        """Kind -> the systems' figures."""
        return {kind: [row.to_json() for row in rows] for kind, rows in self.kinds.items()}

    def meaning(self) -> dict[str, str]:
        """Kind -> what its rows are, in words."""
        return {kind: MEANING[kind] for kind in self.kinds}
