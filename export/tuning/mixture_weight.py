"""Fit the mixture weight (the student's share of the blend) on held-out rows, as a constant or a function of the text.

For given temperatures, a row's negative log-likelihood -log(w p + (1 - w) r), with p and r the student's and the
neighbours' probability of its gold label, is convex in the weight w. Three forms of w are fitted:

    constant    one w for all texts
    buckets     a w for each quarter of the rows by top similarity, shrunk towards the constant
    squares     w = sigmoid(logit(constant) + b + sum_j a_j z_j) of three standardised features, shrunk likewise

A more complex form is used only if it is better in cross-validation. The retrieval settings (k, tau, temperatures) are
chosen before, with a constant weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import bisect, minimize

from ...errors import UsageError
from ...runtime.decision.blending import interpolate
from ...runtime.decision.mixture_weight import BucketWeight, SquaresWeight, features_many, sigmoid_many
from ..types import Floats
from .groups import grouped_folds, mean_and_error

Kind = Literal["constant", "buckets", "squares"]

FittedFunction: TypeAlias = BucketWeight | SquaresWeight

KINDS: tuple[Kind, ...] = ("constant", "buckets", "squares")
"""The forms, the simplest first."""

FEWEST_ROWS = 50
BUCKETS = 4
PSEUDO_ROWS = 5.0
PENALTY = 1.0
FOLDS = 5
_FOLD_SEED = 5
_LOGIT_BOUND = 0.02  # least distance of the logistic's start from 0 and 1, where its gradient vanishes
_SPREAD = 1e-6  # a feature with a smaller spread is constant except for rounding errors
_TINY = 1e-12


@dataclass(frozen=True)
class WeightInputs:
    """Probabilities of student and neighbours for n held-out rows, at the chosen settings.

    Args:
        student: [n, c], the student's probabilities.
        retrieved: [n, c], the neighbours' probabilities.
        top: [n], the top similarity, rounded to float32 as in the runtime.
        gold: [n], int64, class indices.
        groups: [n], the rows' groups (`related_rows`); None if no rows are related.
    """

    student: NDArray[np.floating]
    retrieved: NDArray[np.floating]
    top: NDArray[np.floating]
    gold: NDArray[np.int64]
    groups: NDArray[np.integer] | None = None


@dataclass(frozen=True)
class FittedWeight:
    """The chosen form, fitted on all rows.

    Args:
        kind: name of the form.
        weight: value for `BlendConfig.weight`; None for a constant.
        constant: the best constant weight.
        nll: mean negative log-likelihood of the form on the rows it was fitted on.
        cv_nll: mean cross-validated negative log-likelihood of the constant and of each requested form; empty if there
            were too few rows.
    """

    kind: Kind
    weight: FittedFunction | None
    constant: float
    nll: float
    cv_nll: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Rows:
    """Data of the fit: both probabilities of each gold label, [n], and the features, [n, 3]."""

    student: Floats
    retrieved: Floats
    features: Floats

    def take(self, rows: NDArray[np.bool_]) -> _Rows:
        return _Rows(self.student[rows], self.retrieved[rows], self.features[rows])

    def losses(self, share: Floats | float) -> Floats:
        """Compute -log(w p + (1 - w) r) for each row."""
        losses: Floats = -np.log(np.maximum(interpolate(self.student, self.retrieved, share), _TINY))
        return losses


def fit_weighting(inputs: WeightInputs, kinds: Sequence[Kind] = KINDS) -> FittedWeight:
    """Fit the forms and choose one by 5-fold cross-validated negative log-likelihood, stratified, with a fixed seed.

    The choice is the simplest form that beats the constant by more than a standard error of the paired difference and
    that no more complex form beats by as much; otherwise the constant. A single requested form is used without
    comparison. Related rows are in one fold and count as one in the standard error. The weight is constant for fewer
    than 50 rows, or if all rows are related.

    Args:
        inputs: the held-out rows.
        kinds: the forms to choose among, in any order.

    Raises:
        UsageError: an unknown form, or none.
    """
    if not kinds or not set(kinds) <= set(KINDS):
        raise UsageError("unknown form of the mixture weight", found=tuple(kinds), expected=", ".join(KINDS))
    rows = _rows(inputs)
    constant = fit_share(rows.student, rows.retrieved)
    if len(inputs.gold) < FEWEST_ROWS:
        return FittedWeight("constant", None, constant, float(rows.losses(constant).mean()))
    compared: list[Kind] = [kind for kind in KINDS if kind == "constant" or kind in kinds]
    groups = np.arange(len(inputs.gold)) if inputs.groups is None else inputs.groups
    folds = _folds(inputs.gold) if inputs.groups is None else grouped_folds(groups, FOLDS, _FOLD_SEED)
    if len(np.unique(folds)) < 2:
        return FittedWeight("constant", None, constant, float(rows.losses(constant).mean()))
    losses = _cross_validated(rows, folds, compared)
    kind = _choose({kind: losses[kind] for kind in compared if kind in kinds}, losses["constant"], groups)
    weight = _fit(rows, kind, constant)
    nll = float(rows.losses(_shares(rows, weight, constant)).mean())
    return FittedWeight(kind, weight, constant, nll, {kind: float(losses[kind].mean()) for kind in compared})


def fit_share(student: Floats, retrieved: Floats, towards: float = 0.5, pseudo_rows: float = 0.0) -> float:
    """Find the w in [0, 1] that minimises the rows' summed NLL, to four digits; the NLL is convex in w.

    Args:
        student: [n], the student's probability of each gold label.
        retrieved: [n], the neighbours' probability of each gold label.
        towards: v, the value that w is shrunk towards.
        pseudo_rows: m, the strength of the shrinkage: it acts like m more rows, a share v of which only the student has
            right (p = 1, r = 0) and the rest only the neighbours. This is the prior Beta(m v + 1, m (1 - v) + 1), with
            its mode at v.
    """
    gap = student - retrieved
    for_student, for_retrieved = pseudo_rows * towards, pseudo_rows * (1 - towards)

    def slope(share: float) -> float:
        of_rows = -(gap / np.maximum(share * student + (1 - share) * retrieved, _TINY)).sum()
        return float(of_rows) - for_student / max(share, _TINY) + for_retrieved / max(1 - share, _TINY)

    if slope(0.0) >= 0:
        return 0.0
    if slope(1.0) <= 0:
        return 1.0
    return round(float(bisect(slope, 0.0, 1.0, xtol=1e-9)), 4)


def fit_buckets(student: Floats, retrieved: Floats, top: Floats, constant: float) -> BucketWeight:
    """Fit a weight for each quarter of the rows by top similarity, shrunk by five pseudo-rows each (`fit_share`).

    The edges are similarities of rows, so that no bucket is empty. With ties, buckets are unequal, or there are fewer.

    Args:
        student: [n], the student's probability of each gold label.
        retrieved: [n], the neighbours' probability of each gold label.
        top: [n], the top similarities.
        constant: the constant weight that the weights are shrunk towards.
    """
    quantiles = np.unique(np.quantile(top, np.arange(1, BUCKETS) / BUCKETS, method="higher"))
    edges = quantiles[quantiles > top.min()]
    bucket = np.searchsorted(edges, top, side="right")
    of_bucket = (bucket == number for number in range(len(edges) + 1))
    weights = tuple(fit_share(student[rows], retrieved[rows], constant, PSEUDO_ROWS) for rows in of_bucket)
    return BucketWeight(tuple(edges.tolist()), weights)


def fit_logistic(student: Floats, retrieved: Floats, features: Floats, constant: float) -> SquaresWeight:
    """Fit the logistic weight that minimises `logistic_loss`, by L-BFGS from the constant.

    The fit uses standardised features; the returned coefficients are those of the raw features.

    Args:
        student: [n], the student's probability of each gold label.
        retrieved: [n], the neighbours' probability of each gold label.
        features: [n, 3], of `runtime.decision.mixture_weight.features_many`.
        constant: the constant weight that the function is shrunk towards.
    """
    means, spreads = features.mean(axis=0), features.std(axis=0)
    varying = spreads > _SPREAD
    scales = np.where(varying, 1 / np.where(varying, spreads, 1.0), 0.0)
    design = np.column_stack([np.ones(len(features)), (features - means) * scales])
    bounded = min(max(constant, _LOGIT_BOUND), 1 - _LOGIT_BOUND)
    centre = float(np.log(bounded / (1 - bounded)))
    start = np.zeros(design.shape[1])
    found = minimize(logistic_loss, start, args=(design, student, retrieved, centre), jac=True, method="L-BFGS-B")
    coefficients = found.x[1:] * scales
    intercept = centre + found.x[0] - coefficients @ means
    by_top, by_student, by_retrieved = (round(float(value), 6) for value in coefficients)
    return SquaresWeight(round(float(intercept), 6), (by_top, by_student, by_retrieved))


def logistic_loss(
    parameters: Floats, design: Floats, student: Floats, retrieved: Floats, centre: float
) -> tuple[float, Floats]:
    """Compute sum_i -log(w_i p_i + (1 - w_i) r_i) + |theta|^2 / 2 and its gradient; w_i = sigmoid(centre + x_i theta).

    The penalty shrinks the weight towards the constant, theta = 0.

    Args:
        parameters: [m], theta.
        design: [n, m], x: a column of ones and the standardised features.
        student: [n], p.
        retrieved: [n], r.
        centre: the log-odds of the constant weight.
    """
    share = sigmoid_many(centre + design @ parameters)
    mixed = np.maximum(share * student + (1 - share) * retrieved, _TINY)
    loss = -np.log(mixed).sum() + PENALTY / 2 * parameters @ parameters
    of_scores = -(student - retrieved) / mixed * share * (1 - share)
    return float(loss), design.T @ of_scores + PENALTY * parameters


def _rows(inputs: WeightInputs) -> _Rows:
    everyone = np.arange(len(inputs.gold))
    student, retrieved = (
        probabilities[everyone, inputs.gold].astype(np.float64) for probabilities in (inputs.student, inputs.retrieved)
    )
    features = features_many(inputs.student, inputs.retrieved, inputs.top)
    return _Rows(student, retrieved, features)


def _folds(gold: NDArray[np.int64]) -> NDArray[np.int64]:
    """Stratified folds, int64 [n]: each class's rows are shuffled and assigned in turn."""
    order = np.random.default_rng(_FOLD_SEED).permutation(len(gold))
    order = order[np.argsort(gold[order], kind="stable")]
    folds = np.empty(len(gold), np.int64)
    folds[order] = np.arange(len(gold)) % FOLDS
    return folds


def _cross_validated(rows: _Rows, folds: NDArray[np.int64], kinds: Sequence[Kind]) -> dict[Kind, Floats]:
    """Compute each row's loss with each form, fitted on the other folds."""
    losses: dict[Kind, Floats] = {kind: np.empty(len(folds)) for kind in kinds}
    for fold in np.unique(folds):
        known, held = rows.take(folds != fold), rows.take(folds == fold)
        constant = fit_share(known.student, known.retrieved)
        for kind in kinds:
            losses[kind][folds == fold] = held.losses(_shares(held, _fit(known, kind, constant), constant))
    return losses


def _fit(rows: _Rows, kind: Kind, constant: float) -> FittedFunction | None:
    if kind == "buckets":
        return fit_buckets(rows.student, rows.retrieved, rows.features[:, 0], constant)
    if kind == "squares":
        return fit_logistic(rows.student, rows.retrieved, rows.features, constant)
    return None


def _shares(rows: _Rows, weight: FittedFunction | None, constant: float) -> Floats | float:
    return constant if weight is None else weight.weight_many(rows.features)


def _choose(losses: dict[Kind, Floats], constant: Floats, groups: NDArray[np.integer]) -> Kind:
    """Choose the simplest form that beats the constant and that no later form beats, or the only form."""
    if len(losses) == 1:
        return next(iter(losses))
    able = [kind for kind in losses if kind == "constant" or _beats(losses[kind], constant, groups)]
    for at, kind in enumerate(able):
        if not any(_beats(losses[other], losses[kind], groups) for other in able[at + 1 :]):
            return kind
    return "constant"


def _beats(one: Floats, other: Floats, groups: NDArray[np.integer]) -> bool:
    """Whether the first losses are lower by more than a standard error of the mean difference."""
    lower, error = mean_and_error(other - one, groups)
    return lower > error
