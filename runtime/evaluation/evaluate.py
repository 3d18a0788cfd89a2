"""The evaluation: how good each system is on a labelled split, how faithful to the teacher, and how sure that is.

The systems, in the order of the table: the teacher and the fp32 student (where the training side hands in their
probabilities), the bundle's student, its neighbours alone, the two blended, which is what the bundle answers with, and
where it has a gate the same with retrieval for those texts alone that the student is not sure of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ...errors import DataError, ReaugkdError, UsageError
from ..data import Split, label_indices
from ..runtime import Runtime
from .bootstrap import Bootstrap, McNemar, bootstrap, mcnemar
from .metrics import METRICS, Floats, Ints, check, score
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
    Difference,
    EvalReport,
    EvalRow,
)

if TYPE_CHECKING:
    pass


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
class SystemProbabilities:
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
) -> SystemProbabilities:
    """Answer every row once, with the arguments and the errors of ``evaluate_bundle``."""
    gold = _gold(runtime, split, label_names)
    own, retrieved = _answer(runtime, split, progress)
    gated = None
    if BLEND in own and runtime.gate is not None:
        unsure = own[STUDENT].max(axis=1) < runtime.gate.threshold
        own[GATED] = np.where(unsure[:, None], own[BLEND], own[STUDENT])
        gated = float(unsure.mean())
    return SystemProbabilities(_systems(own, {} if extra is None else extra, gold), gold, retrieved, gated)


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
