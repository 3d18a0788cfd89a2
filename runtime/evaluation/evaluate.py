"""Evaluate a bundle on a labelled split: metrics of every system, bootstrap intervals, McNemar's test.

The systems, in the order of the table: teacher and float32 student (if the caller passes their probabilities), the
bundle's student, its neighbours alone, both blended (what the bundle predicts), and for a bundle with a gate the blend
with retrieval only for texts that the student is unsure of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ...errors import DataError, ReaugkdError, UsageError
from ..data import Split, label_indices
from ..data.dataset import UNSEEN
from ..data.split_labels import no_known_label
from ..decision.abstention_goal import Abstain
from ..inference.prediction import Prediction
from ..runtime import Runtime
from .bootstrap import Draws, McNemar, mcnemar, percentile_interval, resample_metrics
from .metrics import METRICS, Floats, Ints, ScoredRows, check
from .results import (
    BLEND,
    CONFIDENCE,
    GATED,
    RESAMPLES,
    RETRIEVAL,
    SEED,
    STUDENT,
    STUDENT_FP32,
    SYSTEMS,
    TEACHER,
    EvalReport,
    EvalRow,
    ScoreDifference,
)

Progress = Callable[[int, int], object]


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
    """Predict every row once and score every system on the predictions.

    A row with a label that the bundle does not have counts as wrong.

    Args:
        runtime: an open bundle; with ``retrieval="never"`` only the student is measured.
        split: labelled rows.
        label_names: the class names in the split, in the order of the runtime's labels. Default: those labels.
        extra: probabilities [n, c] of ``"teacher"`` and ``"student_fp32"`` on the same rows, computed by the training
            code. With the teacher's, every system gets the metrics that compare it with the teacher.
        split_name: for the report.
        data: where the rows came from, for the report. Default: the split's source.
        progress: called with (rows done, rows in total).

    Raises:
        LabelError: the split has no labels, or none that the bundle has.
        TextError: a text that cannot be predicted; the error names the row.
        DataError: the split has no rows.
        UsageError: ``label_names`` or ``extra`` do not match the bundle or the split.
    """
    answers = predict_split(runtime, split, label_names, extra=extra, progress=progress)
    return score_answers(answers, split_name, split.source if data is None else data)


@dataclass(frozen=True)
class SystemProbabilities:
    """Every system's probabilities on a split.

    Attributes:
        labels: the class names, in the order of the probabilities.
        systems: system -> probabilities float64 [n, c], in the order of ``SYSTEMS``.
        gold: [n], the class index of each row; -1 for a label that the bundle does not have.
        retrieved: share of the rows with retrieval.
        gated: share of the rows for which the gate retrieves; None without a gate.
    """

    labels: tuple[str, ...]
    systems: dict[str, Floats]
    gold: Ints
    retrieved: float
    gated: float | None

    def scored_rows(self) -> dict[str, ScoredRows]:
        """Every system's predictions as the metrics read them, with the teacher's where there is one."""
        teacher = self.systems.get(TEACHER)
        return {name: ScoredRows.of(p, self.gold, teacher) for name, p in self.systems.items()}


def score_answers(answers: SystemProbabilities, split_name: str, data: str) -> EvalReport:
    """Score every system on its answers.

    Args:
        answers: from ``predict_split``.
        split_name: for the report.
        data: where the rows came from, for the report.
    """
    systems, gold = answers.systems, answers.gold
    scored = answers.scored_rows()
    draws = resample_metrics(scored, METRICS, resamples=RESAMPLES, seed=SEED)
    rows = tuple(_row(name, scored[name], draws[name]) for name in systems)
    return EvalReport(
        rows=rows,
        n=len(gold),
        split=split_name,
        data=data,
        labels=answers.labels,
        retrieved=answers.retrieved,
        gated=answers.gated,
        differences=_differences(rows, draws),
        mcnemar=_mcnemar(systems, gold),
        unseen=int((gold == UNSEEN).sum()),
    )


def predict_split(
    runtime: Runtime,
    split: Split,
    label_names: Sequence[str] | None = None,
    *,
    extra: Mapping[str, ArrayLike] | None = None,
    progress: Progress | None = None,
    abstain: Abstain | str | None = None,
    each: Callable[[int, Prediction], object] | None = None,
) -> SystemProbabilities:
    """Predict every row once; the other arguments and the errors are the same as for ``evaluate_bundle``.

    Args:
        runtime: the open bundle.
        split: labelled rows.
        label_names: the class names in the split.
        extra: probabilities of ``"teacher"`` and ``"student_fp32"``.
        progress: called with (rows done, rows in total).
        abstain: same as `Runtime.predict`; it changes no probability.
        each: called with each row's place in the split, from 0, and its prediction.
    """
    labels = runtime.labels
    gold = _gold(labels, split, label_names)
    own, retrieved = _predict(runtime, labels, split, progress, abstain, each)
    gated, gate = None, runtime.gate
    if BLEND in own and gate is not None:
        unsure = own[STUDENT].max(axis=1) < gate.threshold
        own[GATED] = np.where(unsure[:, None], own[BLEND], own[STUDENT])
        gated = float(unsure.mean())
    systems = _systems(own, {} if extra is None else extra, gold)
    return SystemProbabilities(labels, systems, gold, retrieved, gated)


def _predict(
    runtime: Runtime,
    labels: tuple[str, ...],
    split: Split,
    progress: Progress | None,
    abstain: Abstain | str | None,
    each: Callable[[int, Prediction], object] | None,
) -> tuple[dict[str, Floats], float]:
    """Return the probabilities of the bundle's three systems from one pass, and the share of rows with neighbours.

    Raises:
        UsageError: an edit changed the labels meanwhile.
    """
    n, classes = len(split), len(labels)
    student, neighbours, blended = (np.zeros((n, classes)) for _ in range(3))
    retrieved = 0
    for row, prediction in enumerate(runtime.predict_many(split.inputs(), on_error="return", abstain=abstain)):
        if isinstance(prediction, ReaugkdError):
            # Skipping the row would change the test set, so fail and name the row.
            raise prediction.at(path=split.source, row=split.rows[row]) from prediction
        if prediction.labels != labels:
            raise UsageError(
                "an edit changed the bundle's labels while the rows were answered",
                path=split.source,
                row=split.rows[row],
                found=f"added or taken away: {', '.join(sorted({*labels} ^ {*prediction.labels}))}",
                remedy="Try again while nobody edits the bundle, or use a copy.",
            )
        student[row] = prediction.student_probabilities
        blended[row] = prediction.probabilities
        found = prediction.retrieval_probabilities
        if prediction.reason == "weight":  # they are no part of the answer, and scored all the same
            found = prediction.neighbours.probabilities()
        if found is not None:
            neighbours[row] = found
            retrieved += 1
        if each is not None:
            each(row, prediction)
        if progress is not None:
            progress(row + 1, n)
    probabilities = {STUDENT: student}
    if retrieved == n:
        # The neighbours alone can be scored only if every row has them.
        probabilities[RETRIEVAL] = neighbours
    if retrieved:
        probabilities[BLEND] = blended
    return probabilities, retrieved / n


def _gold(labels: tuple[str, ...], split: Split, label_names: Sequence[str] | None) -> Ints:
    names = labels if label_names is None else tuple(label_names)
    if len(names) != len(labels):
        raise UsageError(
            "the data's classes do not match the bundle's",
            path=split.source,
            found=f"{len(names)} names",
            expected=f"{len(labels)}, one for each label of the bundle",
        )
    gold = label_indices(split, names, unseen=True)
    if not len(gold):
        raise DataError("there are no rows to evaluate", path=split.source, found="0 rows", expected="at least one")
    if (gold == UNSEEN).all():
        raise no_known_label(split, names)
    return gold


def _systems(own: Mapping[str, Floats], extra: Mapping[str, ArrayLike], gold: Ints) -> dict[str, Floats]:
    """Return every system's probabilities float64 [n, c], in the order of the table.

    Raises:
        UsageError: ``extra`` has an unknown system, or probabilities of another shape.
    """
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
            raise UsageError(f"{name}'s probabilities have the wrong shape", found=np.shape(given), expected=str(shape))
        systems[name] = check(given, gold)[0]
    return systems


def _row(name: str, rows: ScoredRows, draws: Draws) -> EvalRow:
    scores = {metric.name: metric.value(rows) for metric in METRICS.values()}
    return EvalRow(name, scores, {metric: percentile_interval(values, CONFIDENCE) for metric, values in draws.items()})


def _differences(rows: Sequence[EvalRow], draws: Mapping[str, Draws]) -> dict[str, ScoreDifference]:
    scores = {row.system: row.scores for row in rows}
    if BLEND not in scores:
        return {}
    differences = {}
    for metric, values in draws[BLEND].items():
        first, second = scores[BLEND][metric], scores[STUDENT][metric]
        assert first is not None and second is not None  # a metric with draws has a value
        interval = percentile_interval(values - draws[STUDENT][metric], CONFIDENCE)
        differences[metric] = ScoreDifference(first - second, interval)
    return differences


def _mcnemar(systems: Mapping[str, Floats], gold: Ints) -> McNemar | None:
    if BLEND not in systems:
        return None
    return mcnemar(systems[STUDENT].argmax(axis=1) == gold, systems[BLEND].argmax(axis=1) == gold)
