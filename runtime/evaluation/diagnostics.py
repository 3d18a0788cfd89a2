"""Where a system is wrong, and how far its confidence can be trusted: by class, by pair of classes, by confidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import UNSEEN
from .metrics import CALIBRATION_BINS, Floats, Resample, ScoredRows, calibration_bin, class_f1


@dataclass(frozen=True)
class ClassScores:
    """A system's scores on one class.

    Attributes:
        label: the class.
        rows: rows of this class.
        predicted: rows that the system gives this class.
        precision: share of ``predicted`` that is right; None without any.
        recall: share of ``rows`` that is right; None without any.
        f1: the harmonic mean of both.
        baseline_recall: the recall of the system that this one is compared with.
    """

    label: str
    rows: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float
    baseline_recall: float | None


def class_scores(system: ScoredRows, baseline: ScoredRows, labels: Sequence[str]) -> tuple[ClassScores, ...]:
    """Score a system on every class that is a gold or a predicted class, in the order of the labels.

    Labels that the bundle does not have are not among them: no system can predict one.

    Args:
        system: the system.
        baseline: another system on the same rows, such as the student alone.
        labels: the class names.
    """
    sample = _whole(system)
    other = _recalls(_whole(baseline))
    own = _recalls(sample)
    scores = []
    for at, label in enumerate(sample.classes.tolist()):
        if label == UNSEEN:
            continue
        predicted, hits = int(sample.predicted[at, 0]), float(sample.hits[at, 0])
        scores.append(
            ClassScores(
                label=labels[label],
                rows=int(sample.gold[at, 0]),
                predicted=predicted,
                precision=hits / predicted if predicted else None,
                recall=own.get(label),
                f1=float(class_f1(sample)[at, 0]),
                baseline_recall=other.get(label),
            )
        )
    return tuple(scores)


def _whole(rows: ScoredRows) -> Resample:
    return Resample(rows, np.ones((len(rows.gold), 1)))


def _recalls(sample: Resample) -> dict[int, float]:
    """Class -> recall, for the classes with rows."""
    columns = sample.classes.tolist(), sample.gold[:, 0].tolist(), sample.hits[:, 0].tolist()
    return {label: hits / rows for label, rows, hits in zip(*columns, strict=True) if rows}


@dataclass(frozen=True)
class Confusion:
    """Rows of one class that a system gives another class.

    Attributes:
        gold: the label in the data.
        predicted: the system's label.
        rows: how many.
        share: of the rows of ``gold``.
    """

    gold: str
    predicted: str
    rows: int
    share: float


def confusions(gold: Sequence[str], predicted: Sequence[str]) -> tuple[Confusion, ...]:
    """Count the pairs of different labels, most frequent first.

    Args:
        gold: the label of each row in the data.
        predicted: the system's label of each row.
    """
    support = Counter(gold)
    pairs = Counter((one, other) for one, other in zip(gold, predicted, strict=True) if one != other)
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Confusion(one, other, rows, rows / support[one]) for (one, other), rows in ordered)


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows whose confidence is in one bin.

    Attributes:
        above: lower end of the bin, not included.
        up_to: upper end, included.
        rows: how many.
        confidence: their mean confidence.
        accuracy: the share that is right.
    """

    above: float
    up_to: float
    rows: int
    confidence: float
    accuracy: float


def reliability(rows: ScoredRows) -> tuple[ReliabilityBin, ...]:
    """The bins of the expected calibration error that have rows, lowest confidence first.

    The error is the sum over the bins of the share of rows times |accuracy - confidence|.
    """
    bins = calibration_bin(rows.confidence)
    found = []
    for number in range(CALIBRATION_BINS):
        inside = bins == number
        if inside.any():
            confidence, accuracy = float(rows.confidence[inside].mean()), float(rows.correct[inside].mean())
            ends = number / CALIBRATION_BINS, (number + 1) / CALIBRATION_BINS
            found.append(ReliabilityBin(*ends, int(inside.sum()), confidence, accuracy))
    return tuple(found)


def risk_coverage(uncertainty: Floats, correct: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Error rate of the answered rows at every coverage (El-Yaniv & Wiener, JMLR 2010, section 3).

    Rows are answered from the lowest uncertainty upwards. Rows of equal uncertainty are answered together, as a
    threshold does.

    Args:
        uncertainty: [n], higher is less certain.
        correct: [n], whether each row's answer is right.

    Returns:
        Coverages [m], ascending to 1, and the error rate at each, [m].
    """
    order = np.argsort(uncertainty, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(uncertainty[order]) > 0, True))
    wrong = np.cumsum(~correct[order])[ends]
    return (ends + 1) / len(order), wrong / (ends + 1)
