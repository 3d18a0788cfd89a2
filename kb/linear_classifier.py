"""A linear classifier of keys: multinomial logistic regression, balanced over the labels, with an L2 penalty.

It minimises

    F(W, b) = sum_i s_i (-log softmax(W x_i + b)[y_i]) + |W|^2 / (2 C n),    s_i = 1 / (c n_(y_i)),

where n_y is the number of rows of label y and c the number of labels with rows: every label counts the same. This is
scikit-learn's ``LogisticRegression(C=C, class_weight="balanced")``, divided by C n. The method is L-BFGS (Nocedal and
Wright, Numerical Optimization, algorithm 7.5) in the coordinates in which the Hessian at W = 0 is close to the
identity, which takes a fifth of the steps. The same input gives the same bytes on one machine.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

INVERSE_PENALTY = 10.0
"""C. Chosen on the train rows of clinc150 (`benchmarks/editing.py`); 3 and 30 give nearly the same."""
MOST_ROWS = 100
"""Rows of one label that take part, evenly spaced: every label counts the same anyway."""

_TOLERANCE = 1e-4  # relative to F: the fit ends when the next step is expected to lower F by less
_MOST_STEPS = 100
_MEMORY = 12  # pairs of L-BFGS
_BLOCK = 1024  # rows whose logits fit into a processor's cache
_ARMIJO = 1e-4
_CURVATURE = 0.3  # share of the variance of the keys that the coordinates are scaled by


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """Logits of c labels: ``weights @ key + bias`` for a key or query of length 1.

    Attributes:
        weights: float32 [c, d].
        bias: float32 [c]; -inf for a label without rows.
    """

    weights: Floats
    bias: Floats

    @property
    def fitted(self) -> NDArray[np.bool_]:
        """Which labels had rows, bool [c]."""
        return np.isfinite(self.bias)

    def probabilities(self, query: Floats, num_labels: int) -> Floats:
        """The probabilities of all labels, float32 [num_labels]; 0 for those without rows.

        Args:
            query: float32 [d], of any length but 0.
            num_labels: c or more.
        """
        found = np.zeros(num_labels, np.float32)
        known = found[: len(self.bias)]
        np.matmul(self.weights, query, out=known)
        known *= np.float32(1.0 / np.sqrt(query.dot(query)))
        known += self.bias
        known -= np.maximum.reduce(known)
        np.exp(known, known)
        known /= np.add.reduce(known)
        return found


def chosen_rows(labels: NDArray[np.integer], most: int = MOST_ROWS) -> NDArray[np.int64]:
    """At most ``most`` rows of each label, evenly spaced, in order; rows with a label below 0 are left out."""
    order = np.argsort(labels, kind="stable")
    order = order[np.searchsorted(labels[order], 0) :]
    _, firsts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    places = [
        first + np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)
        for first, count in zip(firsts, counts, strict=True)
    ]
    return np.sort(order[np.concatenate(places)]) if places else order


def fit(
    keys: Floats,
    labels: NDArray[np.integer],
    num_labels: int,
    start: LinearClassifier | None = None,
    inverse_penalty: float = INVERSE_PENALTY,
    tolerance: float = _TOLERANCE,
) -> LinearClassifier:
    """Fit a classifier.

    Args:
        keys: float32 [n, d], n at least 1, scaled to length 1 here.
        labels: [n], 0 to ``num_labels`` - 1.
        num_labels: c; labels without rows get the bias -inf.
        start: a former classifier, whose weights are the first ones, for labels that it knows. Default: zeros.
        inverse_penalty: C.
        tolerance: the fit ends when the next step is expected to lower F by less than this share of F.
    """
    present, targets = np.unique(labels, return_inverse=True)
    keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    shares = (1.0 / (len(present) * np.bincount(targets)))[targets].astype(np.float32)
    mean = shares @ keys
    problem = _Problem.of(keys - mean, targets, shares, len(present), 1.0 / (inverse_penalty * len(keys)))
    weights = np.zeros((num_labels, keys.shape[1]), np.float32)
    bias = np.full(num_labels, -np.inf, np.float32)
    first = np.zeros((len(present), keys.shape[1] + 1), np.float32)
    if start is not None:
        known = present[present < len(start.bias)]
        known = known[start.fitted[known]]
        rows = np.searchsorted(present, known)
        first[rows, :-1] = start.weights[known]
        first[rows, -1] = start.bias[known] + start.weights[known] @ mean
        if len(rows):  # a new label starts as an average one
            others = np.setdiff1d(np.arange(len(present)), rows)
            first[others] = first[rows].mean(axis=0)
    found = problem.solve(first, tolerance)
    weights[present] = found[:, :-1]
    bias[present] = found[:, -1] - found[:, :-1] @ mean
    return LinearClassifier(weights, bias)


@dataclass(frozen=True)
class _Problem:
    """F in the coordinates of the solver: Z = [W, b] @ inv(rotation), and its gradient.

    Attributes:
        inputs: float32 [n, d + 1], the rotated and scaled keys, and a column for the bias.
        targets: [n], labels.
        shares: float32 [n], the s_i.
        rotation: float32 [d + 1, d + 1], from Z to [W, b].
        penalty: float32 [d + 1], the factor of Z ** 2 / 2.
        classes: c.
    """

    inputs: Floats
    targets: NDArray[np.intp]
    shares: Floats
    rotation: Floats
    penalty: Floats
    classes: int

    @classmethod
    def of(cls, centred: Floats, targets: NDArray[np.intp], shares: Floats, classes: int, penalty: float) -> _Problem:
        """The problem of centred keys; ``penalty`` is 1 / (C n)."""
        variances, axes = np.linalg.eigh((centred.T * shares).astype(np.float64) @ centred.astype(np.float64))
        scales = 1.0 / np.sqrt(np.maximum(variances, 0.0) * _CURVATURE / classes + penalty)
        bias = np.sqrt(classes / _CURVATURE)
        rotation = np.zeros((len(scales) + 1, len(scales) + 1), np.float32)
        rotation[:-1, :-1] = (axes * scales).T
        rotation[-1, -1] = bias
        inputs = np.empty((len(centred), len(scales) + 1), np.float32)
        np.matmul(centred, rotation[:-1, :-1].T, out=inputs[:, :-1])
        inputs[:, -1] = bias
        penalties = np.append(penalty * scales**2, 0.0).astype(np.float32)
        return cls(inputs, targets, shares, rotation, penalties, classes)

    def value(self, point: Floats) -> tuple[float, Floats]:
        """F and its gradient [c, d + 1] at Z = ``point``."""
        gradient = self.penalty * point
        value = 0.5 * float(np.vdot(gradient, point))
        for begin in range(0, len(self.inputs), _BLOCK):
            inputs, targets = self.inputs[begin : begin + _BLOCK], self.targets[begin : begin + _BLOCK]
            shares, rows = self.shares[begin : begin + _BLOCK], np.arange(len(targets))
            logits = inputs @ point.T
            logits -= logits.max(axis=1, keepdims=True)
            right = logits[rows, targets]
            np.exp(logits, out=logits)
            sums = logits.sum(axis=1)
            value += float(shares.astype(np.float64) @ (np.log(sums) - right))
            logits *= (shares / sums)[:, np.newaxis]
            logits[rows, targets] -= shares
            gradient += logits.T @ inputs
        return value, gradient

    def solve(self, first: Floats, tolerance: float) -> Floats:
        """The [W, b] [c, d + 1] that minimise F, from [W, b] = ``first``."""
        point: Floats = np.linalg.solve(self.rotation.T.astype(np.float64), first.T.astype(np.float64)).T.astype(
            np.float32
        )
        value, gradient = self.value(point)
        pairs: deque[tuple[Floats, Floats, float]] = deque(maxlen=_MEMORY)
        for _ in range(_MOST_STEPS):
            direction = _direction(gradient, pairs)
            slope, length = float(np.vdot(direction, gradient)), 1.0
            if -0.5 * slope < tolerance * value:  # what the step gains if F is a parabola along it
                break
            while True:
                after = point + np.float32(length) * direction
                new_value, new_gradient = self.value(after)
                if new_value <= value + _ARMIJO * length * slope or length < 1e-4:
                    break
                length *= 0.5
            step, change = after - point, new_gradient - gradient
            curvature = float(np.vdot(step, change))
            if new_value >= value or curvature <= 0:  # as exact as float32 is
                break
            pairs.append((step, change, curvature))
            point, value, gradient = after, new_value, new_gradient
        found: Floats = point @ self.rotation
        return found


def _direction(gradient: Floats, pairs: deque[tuple[Floats, Floats, float]]) -> Floats:
    """The descent direction of L-BFGS."""
    direction = -gradient
    factors = []
    for step, change, curvature in reversed(pairs):
        factors.append(np.float32(np.vdot(step, direction) / curvature))
        direction -= factors[-1] * change
    if pairs:
        step, change, curvature = pairs[-1]
        direction *= np.float32(curvature / float(np.vdot(change, change)))
    for (step, change, curvature), factor in zip(pairs, reversed(factors), strict=True):
        direction += step * (factor - np.float32(np.vdot(change, direction) / curvature))
    return direction
