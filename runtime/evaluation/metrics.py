"""The metrics of the evaluation. ``METRICS`` is the only list of them: a new metric is one entry there.

Agreement, KL and calibration error follow Stanton et al., "Does Knowledge Distillation Really Work?" (NeurIPS 2021):
agreement of the most probable class, mean KL(teacher || system) at temperature 1, expected calibration error over 10
equal-width bins. All arithmetic is float64 in numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Scores = Mapping[str, float | None]
"""One system's value of each metric, by name, in the order of ``METRICS``; None if the metric needs a teacher."""

CALIBRATION_BINS = 10
"""Equal-width bins of the expected calibration error, as in Stanton et al."""

PROBABILITY_FLOOR = 1e-12
"""Lower bound of a probability in a logarithm, so that a single zero does not make a mean infinite (NLL <= 27.6)."""


@dataclass(frozen=True)
class ScoredRows:
    """One system's predictions on n labelled rows, as the metrics read them.

    Attributes:
        gold: [n], the class index of each row; -1 for a label that is not one of the classes, which no system can have
            right.
        predicted: [n], the most probable class.
        gold_probability: [n], the probability of the gold class; 0 where that is -1.
        confidence: [n], the probability of the predicted class.
        teacher_predicted: [n], the teacher's most probable class; None without a teacher.
        teacher_kl: [n], KL(teacher || system) in nats; None if the teacher's probabilities are not known.
    """

    gold: Ints
    predicted: Ints
    gold_probability: Floats
    confidence: Floats
    teacher_predicted: Ints | None = None
    teacher_kl: Floats | None = None

    @classmethod
    def of(cls, probabilities: Floats, gold: Ints, teacher: Floats | None = None) -> ScoredRows:
        """From probabilities [n, c] and gold [n] as ``check`` returns them, and the teacher's probabilities [n, c]."""
        return cls(
            gold,
            probabilities.argmax(axis=1),
            np.where(gold < 0, 0.0, probabilities[np.arange(len(gold)), gold]),
            probabilities.max(axis=1),
            None if teacher is None else teacher.argmax(axis=1),
            None if teacher is None else row_kl(probabilities, teacher),
        )

    @property
    def correct(self) -> NDArray[np.bool_]:
        """[n], whether each row's predicted class is the gold one."""
        return np.asarray(self.predicted == self.gold)


class Resample:
    """Rows with the number of times that each is drawn, in b resamples at once.

    Args:
        rows: n rows.
        counts: [n, b], how often each row is drawn; each column sums to n. A column of ones is the rows themselves.
    """

    def __init__(self, rows: ScoredRows, counts: Floats) -> None:
        self.rows, self.counts, self.n = rows, counts, float(len(counts))

    @cached_property
    def classes(self) -> Ints:
        """[c], the classes that occur as gold or as predicted class, ascending."""
        return np.union1d(self.rows.gold, self.rows.predicted)

    @cached_property
    def gold(self) -> Floats:
        """[c, b], the drawn rows of each gold class."""
        return self._by_class(self.rows.gold, self.counts)

    @cached_property
    def predicted(self) -> Floats:
        """[c, b], the drawn rows of each predicted class."""
        return self._by_class(self.rows.predicted, self.counts)

    @cached_property
    def hits(self) -> Floats:
        """[c, b], the drawn rows of each gold class that are predicted correctly."""
        return self._by_class(self.rows.gold, self.counts * self.rows.correct[:, None])

    def _by_class(self, key: Ints, values: Floats) -> Floats:
        return sums_by_key(np.searchsorted(self.classes, key), values, len(self.classes))


def sums_by_key(key: Ints, values: Floats, keys: int) -> Floats:
    """Sum the rows of ``values`` [n, b] by their ``key`` [n], 0 to ``keys`` - 1: [keys, b]."""
    order = np.argsort(key, kind="stable")
    present, starts = np.unique(key[order], return_index=True)
    sums = np.zeros((keys, values.shape[1]))
    sums[present] = np.add.reduceat(values[order], starts, axis=0)
    return sums


def _correct(rows: ScoredRows) -> Floats:
    return rows.correct.astype(np.float64)


def _nll(rows: ScoredRows) -> Floats:
    return neg_log(rows.gold_probability)


def _agreement(rows: ScoredRows) -> Floats | None:
    return None if rows.teacher_predicted is None else (rows.predicted == rows.teacher_predicted).astype(np.float64)


def _kl(rows: ScoredRows) -> Floats | None:
    return rows.teacher_kl


def class_f1(sample: Resample) -> Floats:
    """F1 of every class of ``sample.classes``, [c, b]; 0 for a class that is in no drawn row."""
    named = sample.gold + sample.predicted
    return np.divide(2 * sample.hits, named, out=np.zeros_like(named), where=named > 0)


def _macro_f1(sample: Resample) -> Floats:
    """Unweighted mean of the classes' F1 over the classes that occur as gold or as predicted class, [b].

    The same as scikit-learn's ``f1_score(average="macro")``.
    """
    return np.asarray(class_f1(sample).sum(axis=0) / (sample.gold + sample.predicted > 0).sum(axis=0))


def _mcc(sample: Resample) -> Floats:
    """Multi-class Matthews correlation R_K (Gorodkin 2004), [b]; 0 where gold or prediction is a single class."""
    n = sample.n
    covariance = sample.hits.sum(axis=0) * n - (sample.gold * sample.predicted).sum(axis=0)
    spread = (n * n - (sample.predicted**2).sum(axis=0)) * (n * n - (sample.gold**2).sum(axis=0))
    return np.asarray(np.divide(covariance, np.sqrt(spread), out=np.zeros_like(covariance), where=spread > 0))


def calibration_bin(confidence: Floats) -> Ints:
    """The bin of each confidence, [n]: ``CALIBRATION_BINS`` of equal width over (0, 1], open below, closed above."""
    return np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)


def _ece(sample: Resample) -> Floats:
    """Expected calibration error, [b]: sum over bins of share of rows times |accuracy - mean confidence|."""
    confidence = sample.rows.confidence
    bins = calibration_bin(confidence)
    gap = sample.rows.correct - confidence
    return np.asarray(np.abs(sums_by_key(bins, sample.counts * gap[:, None], CALIBRATION_BINS)).sum(axis=0) / sample.n)


@dataclass(frozen=True)
class Metric:
    """A metric of the evaluation: its names, its unit, and one of two formulas.

    Attributes:
        name: its key in JSON, in results.parquet and in a study's ``metric``.
        title: its column in tables.
        unit: ``share`` (0 to 1, shown in per cent), ``correlation`` (-1 to 1) or ``nats``.
        higher_is_better: whether a larger value is a better system.
        per_row: the metric's value on each row, [n]; the metric is their mean. None if a teacher is missing.
        of_resample: the metric of b resamples, [b], for metrics that are not a mean over rows.
        in_fidelity: whether the fidelity table shows it.
    """

    name: str
    title: str
    unit: Literal["share", "correlation", "nats"]
    higher_is_better: bool
    per_row: Callable[[ScoredRows], Floats | None] | None = None
    of_resample: Callable[[Resample], Floats] | None = None
    in_fidelity: bool = False

    def value(self, rows: ScoredRows) -> float | None:
        """The metric on the rows themselves; None if it needs a teacher and there is none."""
        if self.per_row is not None:
            values = self.per_row(rows)
            return None if values is None else float(np.mean(values))
        return float(self._of_resample(Resample(rows, np.ones((len(rows.gold), 1))))[0])

    def resampled(self, sample: Resample) -> Floats | None:
        """The metric on each resample, [b]; None if it needs a teacher and there is none."""
        if self.per_row is not None:
            values = self.per_row(sample.rows)
            return None if values is None else np.asarray(values @ sample.counts / sample.n)
        return self._of_resample(sample)

    def _of_resample(self, sample: Resample) -> Floats:
        assert self.of_resample is not None, f"{self.name} has no formula"
        return self.of_resample(sample)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", "share", True, _correct, in_fidelity=True),
        Metric("macro_f1", "macro F1", "share", True, of_resample=_macro_f1),
        Metric("mcc", "MCC", "correlation", True, of_resample=_mcc),
        Metric("nll", "NLL", "nats", False, _nll, in_fidelity=True),
        Metric("ece", "ECE", "share", False, of_resample=_ece, in_fidelity=True),
        Metric("teacher_agreement", "agreement", "share", True, _agreement, in_fidelity=True),
        Metric("teacher_kl", "KL", "nats", False, _kl, in_fidelity=True),
    )
}
"""Every metric by name, in the order of the tables' columns."""


def score(probabilities: ArrayLike, gold: ArrayLike, teacher_probabilities: ArrayLike | None = None) -> Scores:
    """Compute every metric of one system.

    Args:
        probabilities: [n, c], each row a distribution over the classes.
        gold: [n], the class index of each row, 0 to c - 1, or -1 for a label that is not one of the classes.
        teacher_probabilities: [n, c], the teacher's distributions on the same rows. Without them the metrics that
            need a teacher are None.

    Raises:
        ValueError: no rows, shapes that do not match, a gold class outside -1 to c - 1, or a value that is not a
            probability.
    """
    p, y = check(probabilities, gold)
    teacher = None if teacher_probabilities is None else check(teacher_probabilities, gold)[0]
    if teacher is not None and teacher.shape != p.shape:
        raise ValueError(f"teacher_probabilities has shape {teacher.shape}, probabilities {p.shape}")
    rows = ScoredRows.of(p, y, teacher)
    return {name: metric.value(rows) for name, metric in METRICS.items()}


def check(probabilities: ArrayLike, gold: ArrayLike) -> tuple[Floats, Ints]:
    """Check both arrays and return them as float64 [n, c] and int64 [n].

    Raises:
        ValueError: same as ``score``.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(gold)
    if p.ndim != 2 or y.shape != p.shape[:1] or not p.size:
        raise ValueError(f"expected probabilities [n, c] and gold [n] with n, c >= 1; got {p.shape} and {y.shape}")
    if y.dtype.kind not in "iu":
        raise ValueError(f"gold must hold class indices, got dtype {y.dtype}")
    if y.min() < -1 or y.max() >= p.shape[1]:
        raise ValueError(f"gold must lie in -1..{p.shape[1] - 1}; got {y.min()}..{y.max()}")
    # Written so that NaN fails too. Sums are not checked: float16 labels and float32 blends are off by rounding.
    if not ((p >= 0) & (p <= 1 + 1e-3)).all():
        raise ValueError("probabilities must be numbers from 0 to 1")
    return p, y.astype(np.int64)


def row_nll(probabilities: Floats, gold: Ints) -> Floats:
    """Negative log-likelihood of each row's gold class in nats, [n]."""
    return neg_log(probabilities[np.arange(len(gold)), gold])


def neg_log(probabilities: Floats) -> Floats:
    """Negative logarithm of probabilities no lower than ``PROBABILITY_FLOOR``, nats."""
    return -np.log(np.clip(probabilities, PROBABILITY_FLOOR, 1.0))


def row_kl(probabilities: Floats, teacher: Floats) -> Floats:
    """KL(teacher || system) of each row in nats, [n]."""
    log_p = np.log(np.clip(probabilities, PROBABILITY_FLOOR, 1.0))
    log_t = np.log(np.clip(teacher, PROBABILITY_FLOOR, 1.0))
    return np.asarray(np.sum(teacher * (log_t - log_p), axis=1), dtype=np.float64)
