"""The blend of the student's probabilities with the neighbours' soft labels.

    p = w * softmax(logits / T_S) + (1 - w) * r,    r = sum_j a_j y_j / |y_j|,    a = softmax_j(similarity_j / tau)

where y_j is the soft label of neighbour j and w the student's mixture weight, a constant or a function of the text
(`mixture_weight`). Source: ReAugKD, ACL 2023, the inference step; its beta is ``1 - student_weight``. The y_j are
stored in float16, so their sums |y_j| differ from 1 by up to 0.0005: each is divided by its sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .blend_config import BlendConfig

Floats = NDArray[np.float32]

PIN_FROM, PIN_TO = 0.97, 0.99
"""Cosines between which a pinned row's part of the answer grows from 0 to 1."""

_SAME = 0.002  # largest difference between the similarities of rows with the same text
_LEAST = 1e-12

# The ufuncs' own methods are faster: ndarray.max() and .sum() call Python code, a fifth of this file's time.
_max = np.maximum.reduce
_sum = np.add.reduce


class Blended(NamedTuple):
    """The blend of one text: float32 arrays [c], [c] and [k], and the student's share, 0 to 1.

    ``new`` is the part of the answer on labels that the student was not trained on, ``pinned`` the part of a pinned
    row: the parts that edits of the knowledge base decide.
    """

    probabilities: Floats
    retrieval_probabilities: Floats
    weights: Floats
    student_weight: float
    new: float = 0.0
    pinned: float = 0.0


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """``softmax(logits / temperature)`` of one row [c] (or [k])."""
    exponents: Floats = logits * np.float32(1.0 / temperature)
    exponents -= _max(exponents)
    np.exp(exponents, exponents)
    exponents /= _sum(exponents)
    return exponents


def blend(student: Floats, similarities: Floats, soft_labels: NDArray[np.floating], config: BlendConfig) -> Blended:
    """Blend one text.

    Args:
        student: float32 [c], the student's probabilities.
        similarities: float32 [k], cosines, descending, k at least 1.
        soft_labels: [k, c], the neighbours' soft labels.
        config: tau and the mixture weight.
    """
    weights = softmax(similarities, config.tau)
    labels = soft_labels.astype(np.float32, copy=False)
    retrieved: Floats = (weights / _sum(labels, 1)) @ labels
    weight = config.weight
    student_weight = config.student_weight if weight is None else weight.weight(student, retrieved, similarities)
    share = np.float32(student_weight)
    probabilities = student * share
    probabilities += retrieved * (np.float32(1.0) - share)
    return Blended(probabilities, retrieved, weights, student_weight)


def blend_edited(
    student: Floats,
    similarities: Floats,
    soft_labels: NDArray[np.floating],
    config: BlendConfig,
    known: int,
    pinned: NDArray[np.bool_] | None = None,
    rows: NDArray[np.int64] | None = None,
    odds: float = 1.0,
    classified: Floats | None = None,
) -> Blended:
    """Blend one text after edits, which may have added labels that the student was not trained on, and pinned rows.

    With m the neighbours' probability of the new labels,

        p_new = m' r_new / m,    p_old = (1 - m') (w s + (1 - w) r_old / (1 - m)),

    where the odds m' / (1 - m') are the odds of m times a factor that is calibrated on held-out rows
    (`new_labels.calibration`). Where the classifier of new labels answers them, p_new = q_new with its probabilities q,
    and m' is the sum of q_new. Without any neighbour of an old label, p_old = (1 - m') s. A pinned neighbour j that is
    as near as only the same text is takes a part a of the answer, which grows from 0 at cosine `PIN_FROM` to 1 at
    `PIN_TO`: p <- (1 - a) p + a y_j.

    Args:
        student: float32 [b], the student's probabilities.
        similarities: float32 [k], cosines, k at least 1, best first.
        soft_labels: [k, c], the neighbours' soft labels; c is b or more.
        config: tau and the mixture weight.
        known: b.
        pinned: bool [k]; None for no pinned row.
        odds: the factor.
        rows: int64 [k], row numbers: among equally near pinned rows, the last one is used.
        classified: float32 [c], q; None where the neighbours answer new labels.

    Returns:
        The blend over c labels.
    """
    weights = softmax(similarities, config.tau)
    labels = soft_labels.astype(np.float32, copy=False)
    retrieved: Floats = (weights / _sum(labels, 1)) @ labels
    retrieved /= _sum(retrieved)  # exactly 1, as the odds of new labels need it
    # `rest` is summed: 1 - mass would be all rounding error where nearly all of the answer is on new labels.
    mass, rest = float(_sum(retrieved[known:])), float(_sum(retrieved[:known]))
    old: Floats = retrieved[:known] / np.float32(rest) if rest > 0 else student
    weight = config.weight
    share = config.student_weight if weight is None else weight.weight(student, old, similarities)
    if classified is None:
        new = odds * mass / (odds * mass + rest)
        probabilities = retrieved * np.float32(new / max(mass, _LEAST))
    else:
        new = min(float(_sum(classified[known:])), 1.0)
        probabilities = classified.copy()
    probabilities[:known] = np.float32(1.0 - new) * (np.float32(share) * student + np.float32(1.0 - share) * old)
    share *= 1.0 - new
    part = 0.0
    if pinned is not None and pinned.any():
        near = np.flatnonzero(pinned & (similarities >= similarities[pinned.argmax()] - _SAME))
        nearest = int(near[0] if rows is None else near[rows[near].argmax()])
        part = min(max((float(similarities[nearest]) - PIN_FROM) / (PIN_TO - PIN_FROM), 0.0), 1.0)
        probabilities *= np.float32(1.0 - part)
        probabilities += np.float32(part) * labels[nearest] / _sum(labels[nearest])
        share *= 1.0 - part
    return Blended(probabilities, retrieved, weights, share, new, part)


def softmax_many(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.floating]:
    """``softmax(logits / temperature)`` over the last axis of [..., c]."""
    exponents = logits / temperature
    exponents -= exponents.max(axis=-1, keepdims=True)
    np.exp(exponents, out=exponents)
    exponents /= exponents.sum(axis=-1, keepdims=True)
    return exponents


class BlendedBatch(NamedTuple):
    """A blend of n texts, float64: probabilities [n, b], retrieval_probabilities [n, c], student_weights [n]."""

    probabilities: NDArray[np.float64]
    retrieval_probabilities: NDArray[np.float64]
    student_weights: NDArray[np.float64]


def blend_batch(
    student: NDArray[np.floating],
    similarities: NDArray[np.floating],
    soft_labels: NDArray[np.floating],
    config: BlendConfig,
) -> BlendedBatch:
    """Blend n texts at once: the same formula as `blend`, in float64, for tuning, evaluation and calibration.

    If there are more labels than the student was trained on, it is the formula of `blend_edited` with m' = 0, so new
    labels have no probability, and without pinned rows.

    Args:
        student: [n, b], the student's probabilities.
        similarities: [n, k], cosines in descending order, k at least 1.
        soft_labels: [n, k, c], the neighbours' soft labels; c is b or more.
        config: tau and the student's weight, constant or as a function of the text.
    """
    weights = softmax_many(similarities.astype(np.float64), config.tau)
    weights /= soft_labels.sum(axis=2, dtype=np.float64)
    retrieved: NDArray[np.float64] = np.matmul(weights[:, np.newaxis], soft_labels.astype(np.float64))[:, 0]
    old, known = retrieved, student.shape[1]
    if retrieved.shape[1] > known:
        rest = retrieved[:, :known].sum(axis=1, keepdims=True)
        old = np.where(rest > 0, retrieved[:, :known] / np.where(rest > 0, rest, 1.0), student)
    shares = np.full(len(student), config.student_weight)
    if config.weight is not None:
        shares = config.weight.weight_many(student, old, similarities)
    return BlendedBatch(interpolate(student, old, shares[:, np.newaxis]), retrieved, shares)


def interpolate(
    student: NDArray[np.floating], retrieved: NDArray[np.floating], weight: float | NDArray[np.floating]
) -> NDArray[np.float64]:
    """``weight * student + (1 - weight) * retrieved``, of arrays that broadcast."""
    return np.asarray(weight * student + (1 - weight) * retrieved, np.float64)
