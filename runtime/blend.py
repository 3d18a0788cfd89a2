"""Mixing the student's answer with its neighbours'.

    p = w * softmax(logits / T_S) + (1 - w) * r,    r = sum_j a_j y_j,    a = softmax_j(similarity_j / tau)

where y_j is neighbour j's soft label and w the student's weight (ReAugKD, ACL 2023, the inference step; the paper's
beta is our ``1 - student_weight``), the same for every text or a function of the text (`weight`). Because the y_j are
stored in float16, their sums miss 1 by up to 0.0005: r is divided by its sum, which restores a distribution.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .manifest import BlendConfig

Floats = NDArray[np.float32]

# The ufuncs' own methods: ndarray.max() and .sum() take a detour through Python, a fifth of this file's time.
_max = np.maximum.reduce
_sum = np.add.reduce


class Blended(NamedTuple):
    """A blend of one text: three float32 arrays, [c], [c] and [k], and the student's share, 0 to 1."""

    probabilities: Floats
    retrieval_probabilities: Floats
    weights: Floats
    student_weight: float


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
        similarities: float32 [k], cosines, k at least 1.
        soft_labels: [k, c], the neighbours' soft labels.
        config: tau and the student's weight, constant or as a function of the text.
    """
    weights = softmax(similarities, config.tau)
    retrieved: Floats = weights @ soft_labels.astype(np.float32, copy=False)
    retrieved /= _sum(retrieved)
    weight = config.weight
    student_weight = config.student_weight if weight is None else weight.weight(student, retrieved, similarities)
    share = np.float32(student_weight)
    probabilities = student * share
    probabilities += retrieved * (np.float32(1.0) - share)
    return Blended(probabilities, retrieved, weights, student_weight)


def softmax_many(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.floating]:
    """``softmax(logits / temperature)`` over the last axis of [..., c]."""
    exponents = logits / temperature
    exponents -= exponents.max(axis=-1, keepdims=True)
    np.exp(exponents, out=exponents)
    exponents /= exponents.sum(axis=-1, keepdims=True)
    return exponents
