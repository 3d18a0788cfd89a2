"""How good, how sure and how faithful a system's probabilities are: the columns of the evaluation table.

The fidelity measures (agreement, predictive KL) and the calibration measure are those of Stanton et al., "Does
Knowledge Distillation Really Work?" (NeurIPS 2021): agreement of the argmax, mean KL(teacher || system) at temperature
1, expected calibration error over 10 equal-width bins. Everything is computed in float64 with numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CALIBRATION_BINS = 10
"""Equal-width bins of the expected calibration error, as in Stanton et al."""

PROBABILITY_FLOOR = 1e-12
"""A probability below this counts as this: one answer of zero must not make a mean infinite. Caps NLL at 27.6 nats."""


@dataclass(frozen=True)
class Scores:
    """One system's figures on one set of rows.

    Attributes:
        accuracy: share of rows whose most probable class is the gold one, 0 to 1.
        macro_f1: unweighted mean F1 over the classes that occur as gold or as answer, 0 to 1.
        mcc: Matthews correlation, multi-class (Gorodkin's R_K), -1 to 1; 0 where it is undefined.
        nll: mean negative log-likelihood of the gold class, nats.
        ece: expected calibration error over 10 equal-width bins, 0 to 1.
        teacher_agreement: share of rows with the teacher's most probable class; None without a teacher.
        teacher_kl: mean KL(teacher || system), nats; None without a teacher.
    """

    accuracy: float
    macro_f1: float
    mcc: float
    nll: float
    ece: float
    teacher_agreement: float | None = None
    teacher_kl: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """The figures by name, in the order of the table's columns."""
        return {name: getattr(self, name) for name in METRICS}


METRICS = tuple(field.name for field in fields(Scores))
"""The names of the figures, in the order of the table's columns."""


def score(probabilities: ArrayLike, gold: ArrayLike, teacher_probabilities: ArrayLike | None = None) -> Scores:
    """All figures of one system.

    Args:
        probabilities: [n, c], each row a distribution over the classes.
        gold: [n], the class index of each row, 0 to c - 1.
        teacher_probabilities: [n, c], the teacher's distributions on the same rows; None leaves its two figures None.

    Raises:
        ValueError: no rows, shapes that do not fit together, a gold class outside 0 to c - 1, or a value that is not
            a probability.
    """
    p, y = check(probabilities, gold)
    teacher = None if teacher_probabilities is None else check(teacher_probabilities, gold)[0]
    if teacher is not None and teacher.shape != p.shape:
        raise ValueError(f"teacher_probabilities has shape {teacher.shape}, probabilities {p.shape}")
    answers = p.argmax(axis=1)
    return Scores(
        accuracy=accuracy(answers, y),
        macro_f1=macro_f1(answers, y),
        mcc=mcc(answers, y),
        nll=nll(p, y),
        ece=ece(p, y),
        teacher_agreement=None if teacher is None else teacher_agreement(p, teacher),
        teacher_kl=None if teacher is None else teacher_kl(p, teacher),
    )


def check(probabilities: ArrayLike, gold: ArrayLike) -> tuple[Floats, Ints]:
    """The two arrays as float64 [n, c] and int64 [n].

    Raises:
        ValueError: as ``score``.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(gold)
    if p.ndim != 2 or y.shape != p.shape[:1] or not p.size:
        raise ValueError(f"expected probabilities [n, c] and gold [n] with n, c >= 1; got {p.shape} and {y.shape}")
    if y.dtype.kind not in "iu":
        raise ValueError(f"gold must hold class indices, got dtype {y.dtype}")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"gold must lie in 0..{p.shape[1] - 1}; got {y.min()}..{y.max()}")
    # Written so that NaN fails too. Sums are not checked: float16 labels and float32 blends are off by rounding.
    if not ((p >= 0) & (p <= 1 + 1e-3)).all():
        raise ValueError("probabilities must be numbers from 0 to 1")
    return p, y.astype(np.int64)


def accuracy(answers: Ints, gold: Ints) -> float:
    """Share of [n] answers that are the gold class."""
    return float(np.mean(answers == gold))


def macro_f1(answers: Ints, gold: Ints) -> float:
    """Unweighted mean of the classes' F1, over the classes that occur in the gold or in the answers [n].

    The same as scikit-learn's ``f1_score(average="macro")``: a class that neither side names does not count.
    """
    classes = int(max(answers.max(), gold.max())) + 1
    named = np.bincount(answers, minlength=classes) + np.bincount(gold, minlength=classes)
    hits = np.bincount(gold[answers == gold], minlength=classes)
    occurs = named > 0
    return float(np.mean(2 * hits[occurs] / named[occurs]))


def mcc(answers: Ints, gold: Ints) -> float:
    """Multi-class Matthews correlation R_K (Gorodkin 2004) of [n] answers; 0 when either side names one class only."""
    n = float(len(gold))
    classes = int(max(answers.max(), gold.max())) + 1
    answered = np.bincount(answers, minlength=classes).astype(np.float64)
    true = np.bincount(gold, minlength=classes).astype(np.float64)
    hits = float(np.sum(answers == gold))
    spread = (n * n - answered @ answered) * (n * n - true @ true)
    return float((hits * n - answered @ true) / np.sqrt(spread)) if spread > 0 else 0.0


def nll(probabilities: Floats, gold: Ints) -> float:
    """Mean negative log-likelihood of the gold class in nats, probabilities no lower than ``PROBABILITY_FLOOR``."""
    return float(np.mean(row_nll(probabilities, gold)))


def ece(probabilities: Floats, gold: Ints) -> float:
    """Expected calibration error: sum over bins of share of rows times |accuracy - mean confidence|.

    Confidence is the largest probability of the row; ``CALIBRATION_BINS`` equal-width bins over (0, 1], each open
    below and closed above.
    """
    gap = (probabilities.argmax(axis=1) == gold) - probabilities.max(axis=1)
    sums = np.bincount(confidence_bins(probabilities), weights=gap, minlength=CALIBRATION_BINS)
    return float(np.abs(sums).sum() / len(gold))


def teacher_agreement(probabilities: Floats, teacher: Floats) -> float:
    """Share of rows on which the two [n, c] have the same most probable class."""
    return float(np.mean(probabilities.argmax(axis=1) == teacher.argmax(axis=1)))


def teacher_kl(probabilities: Floats, teacher: Floats) -> float:
    """Mean KL(teacher || system) over the rows in nats, both sides no lower than ``PROBABILITY_FLOOR`` in the log."""
    return float(np.mean(row_kl(probabilities, teacher)))


def row_nll(probabilities: Floats, gold: Ints) -> Floats:
    """Each row's negative log-likelihood, [n]."""
    chosen = probabilities[np.arange(len(gold)), gold]
    return -np.log(np.clip(chosen, PROBABILITY_FLOOR, 1.0))


def row_kl(probabilities: Floats, teacher: Floats) -> Floats:
    """Each row's KL(teacher || system), [n]."""
    log_p = np.log(np.clip(probabilities, PROBABILITY_FLOOR, 1.0))
    log_t = np.log(np.clip(teacher, PROBABILITY_FLOOR, 1.0))
    return np.asarray(np.sum(teacher * (log_t - log_p), axis=1), dtype=np.float64)


def confidence_bins(probabilities: Floats) -> Ints:
    """The calibration bin of each row, [n], 0 to ``CALIBRATION_BINS`` - 1."""
    bins = np.ceil(probabilities.max(axis=1) * CALIBRATION_BINS).astype(np.int64) - 1
    return np.asarray(np.clip(bins, 0, CALIBRATION_BINS - 1))
