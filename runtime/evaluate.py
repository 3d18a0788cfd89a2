"""The evaluation: how good each system is on a labelled split, how faithful to the teacher, and how sure that is.

The systems, in the order of the table: the teacher and the fp32 student (where the training side hands in their
probabilities), the bundle's student, its neighbours alone, the two blended, which is what the bundle answers with, and
where it has a gate the same with retrieval for those texts alone that the student is not sure of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError, ReaugkdError, UsageError
from .data import Split, label_indices
from .engine import Runtime
from .metrics import CALIBRATION_BINS, METRICS, PROBABILITY_FLOOR, Floats, Ints, Scores, check, score
from .significance import Bootstrap, Interval, McNemar, bootstrap, mcnemar

if TYPE_CHECKING:
    from .fidelity import Fidelity

TEACHER, STUDENT_FP32 = "teacher", "student_fp32"
STUDENT, RETRIEVAL, BLEND, GATED = "student", "retrieval", "student+retrieval", "student+gated"
SYSTEMS = (TEACHER, STUDENT_FP32, STUDENT, RETRIEVAL, BLEND, GATED)

RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 0

Progress = Callable[[int, int], object]


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


def evaluate_bundle(
    runtime: Runtime,
    split: Split,
    label_names: Sequence[str] | None = None,
    *,
    extra: Mapping[str, ArrayLike] | None = None,
    split_name: str = "test",
    data: str | None = None,
    progress: Progress | None = None,
) -> EvalReport:
    """Answer every row once and score every system on the answers.

    Args:
        runtime: an open bundle; with ``retrieval="never"`` only the student is measured.
        split: labelled rows.
        label_names: the classes as the split writes them, in the order of the runtime's labels. Default: those labels.
        extra: probabilities [n, c] that the training side computed on the same rows, by ``"teacher"`` and
            ``"student_fp32"``. With the teacher's, every system gets its agreement with and its KL from the teacher.
        split_name: for the report.
        data: where the rows came from, for the report. Default: the split's source.
        progress: called with (rows done, rows in all).

    Raises:
        LabelError: the split has no labels, or one that the bundle does not know.
        TextError: a text that cannot be answered; it names the row.
        DataError: the split has no rows.
        UsageError: ``label_names`` or ``extra`` do not fit the bundle or the split.
    """
    answers = answer(runtime, split, label_names, extra=extra, progress=progress)
    systems, gold = answers.systems, answers.gold
    teacher = systems.get(TEACHER)
    draws = bootstrap(systems, gold, teacher, resamples=RESAMPLES, confidence=CONFIDENCE, seed=SEED)
    rows = tuple(_row(name, systems[name], gold, teacher, draws) for name in systems)
    return EvalReport(
        rows=rows,
        n=len(split),
        split=split_name,
        data=split.source if data is None else data,
        labels=tuple(runtime.labels),
        retrieved=answers.retrieved,
        gated=answers.gated,
        differences=_differences(rows, draws),
        mcnemar=_mcnemar(systems, gold),
    )


@dataclass(frozen=True)
class Answers:
    """Every system's answers to a split.

    Attributes:
        systems: system -> probabilities float64 [n, c], in the order of ``SYSTEMS``.
        gold: [n], the class index of each row.
        retrieved: share of the rows for which neighbours were looked up.
        gated: share of the rows for which the gate looks them up; None without a gate.
    """

    systems: dict[str, Floats]
    gold: Ints
    retrieved: float
    gated: float | None


def answer(
    runtime: Runtime,
    split: Split,
    label_names: Sequence[str] | None = None,
    *,
    extra: Mapping[str, ArrayLike] | None = None,
    progress: Progress | None = None,
) -> Answers:
    """Answer every row once, with the arguments and the errors of ``evaluate_bundle``."""
    gold = _gold(runtime, split, label_names)
    own, retrieved = _answer(runtime, split, progress)
    gated = None
    if BLEND in own and runtime.gate is not None:
        unsure = own[STUDENT].max(axis=1) < runtime.gate.threshold
        own[GATED] = np.where(unsure[:, None], own[BLEND], own[STUDENT])
        gated = float(unsure.mean())
    return Answers(_systems(own, {} if extra is None else extra, gold), gold, retrieved, gated)


def _answer(runtime: Runtime, split: Split, progress: Progress | None) -> tuple[dict[str, Floats], float]:
    """One pass gives all three of the bundle's systems, and the share of rows with neighbours."""
    n, classes = len(split), len(runtime.labels)
    student, neighbours, blended = (np.zeros((n, classes)) for _ in range(3))
    retrieved = 0
    for row, prediction in enumerate(runtime.predict_many(split.inputs(), on_error="return")):
        if isinstance(prediction, ReaugkdError):
            # The place the text came from; a row left out would make another test of it.
            raise prediction.at(path=split.source, row=split.rows[row]) from prediction
        student[row] = prediction.student_probabilities
        blended[row] = prediction.probabilities
        if prediction.retrieval_probabilities is not None:
            neighbours[row] = prediction.retrieval_probabilities
            retrieved += 1
        if progress is not None:
            progress(row + 1, n)
    probabilities = {STUDENT: student}
    if retrieved == n:
        # Alone, the neighbours can be judged only where they were always asked.
        probabilities[RETRIEVAL] = neighbours
    if retrieved:
        probabilities[BLEND] = blended
    return probabilities, retrieved / n


def _gold(runtime: Runtime, split: Split, label_names: Sequence[str] | None) -> Ints:
    labels = tuple(runtime.labels)
    names = labels if label_names is None else tuple(label_names)
    if len(names) != len(labels):
        raise UsageError(
            "the data's classes are not the bundle's",
            path=split.source,
            found=f"{len(names)} names",
            expected=f"{len(labels)}, one for each label of the bundle",
        )
    gold = label_indices(split, names)
    if not len(gold):
        raise DataError("there is nothing to evaluate on", path=split.source, found="0 rows", expected="at least one")
    return gold


def _systems(own: Mapping[str, Floats], extra: Mapping[str, ArrayLike], gold: Ints) -> dict[str, Floats]:
    """Every system's probabilities float64 [n, c], in the order of the table."""
    unknown = set(extra) - {TEACHER, STUDENT_FP32}
    if unknown:
        raise UsageError("unknown system", found=", ".join(sorted(unknown)), expected=f"{TEACHER} or {STUDENT_FP32}")
    shape = own[STUDENT].shape
    systems: dict[str, Floats] = {}
    for name in SYSTEMS:
        given = extra.get(name, own.get(name))
        if given is None:
            continue
        if np.shape(given) != shape:
            raise UsageError(f"{name} has probabilities of another shape", found=np.shape(given), expected=str(shape))
        systems[name] = check(given, gold)[0]
    return systems


def _row(name: str, p: Floats, gold: Ints, teacher: Floats | None, draws: Bootstrap) -> EvalRow:
    intervals = ((metric, draws.interval(name, metric)) for metric in METRICS)
    return EvalRow(name, score(p, gold, teacher), {metric: found for metric, found in intervals if found is not None})


def _differences(rows: Sequence[EvalRow], draws: Bootstrap) -> dict[str, Difference]:
    scores = {row.system: row.scores.as_dict() for row in rows}
    if BLEND not in scores:
        return {}
    differences = {}
    for metric in METRICS:
        first, second = scores[BLEND][metric], scores[STUDENT][metric]
        interval = draws.difference(BLEND, STUDENT, metric)
        if first is not None and second is not None and interval is not None:
            differences[metric] = Difference(first - second, interval)
    return differences


def _mcnemar(systems: Mapping[str, Floats], gold: Ints) -> McNemar | None:
    if BLEND not in systems:
        return None
    return mcnemar(systems[STUDENT].argmax(axis=1) == gold, systems[BLEND].argmax(axis=1) == gold)
