"""Fits of the mixture weight against brute force, other optimisers and known solutions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import check_grad, minimize

from reaugkd import UsageError
from reaugkd.export.tuning.grid import fit_weights
from reaugkd.export.tuning.mixture_weight import (
    FEWEST_ROWS,
    KINDS,
    PENALTY,
    PSEUDO_ROWS,
    FittedWeight,
    Kind,
    WeightInputs,
    _folds,
    fit_buckets,
    fit_logistic,
    fit_share,
    fit_weighting,
    logistic_loss,
)
from reaugkd.runtime.decision.mixture_weight import BucketWeight, SquaresWeight, features_many

Floats = NDArray[np.float64]


def answered(n: int, seed: int, right: Floats | float = 0.7, classes: int = 4) -> WeightInputs:
    """Student and neighbours both 80 % sure of one label; the student is right three times in four.

    Args:
        n: rows.
        seed: other seeds give other rows of the same kind.
        right: how often the neighbours are right, in all or [11] by the first digit of the top similarity.
        classes: labels.
    """
    rng = np.random.default_rng(seed)
    gold = rng.integers(classes, size=n)
    top = rng.uniform(0, 1, n).astype(np.float32)

    def said(chance: Floats | float) -> Floats:
        label = np.where(rng.random(n) < chance, gold, (gold + rng.integers(1, classes, size=n)) % classes)
        return np.where(np.eye(classes)[label] == 1, 0.8, 0.2 / (classes - 1))

    chance = np.asarray(right)[(10 * top).astype(int)] if isinstance(right, np.ndarray) else right
    return WeightInputs(said(0.75), said(chance), top, gold)


RIGHT_WHERE_NEAR = np.where(np.arange(11) >= 5, 0.98, 0.2)


def shares(chosen: FittedWeight, rows: WeightInputs) -> Floats:
    if chosen.weight is None:
        return np.full(len(rows.gold), chosen.constant)
    return chosen.weight.weight_many(features_many(rows.student, rows.retrieved, rows.top))


def nll(share: Floats | float, rows: WeightInputs) -> float:
    """Mean -log(w p + (1 - w) r) of the gold labels, written out."""
    share = np.broadcast_to(share, len(rows.gold))
    total = 0.0
    for w, p, r, gold in zip(share, rows.student, rows.retrieved, rows.gold, strict=True):
        total -= math.log(w * p[gold] + (1 - w) * r[gold])
    return total / len(rows.gold)


def of_gold(rows: WeightInputs) -> tuple[Floats, Floats]:
    everyone = np.arange(len(rows.gold))
    return rows.student[everyone, rows.gold], rows.retrieved[everyone, rows.gold]


# The exact share


@given(n=st.integers(1, 30), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_without_pseudo_rows_the_share_is_the_constant_of_the_tuning(n: int, seed: int) -> None:
    student, retrieved = np.random.default_rng(seed).beta(1, 1, size=(2, n))
    assert fit_share(student, retrieved) == pytest.approx(fit_weights(student, retrieved[None])[0], abs=1.5e-4)


@given(
    n=st.integers(0, 30),
    seed=st.integers(0, 10**6),
    towards=st.sampled_from([0.0, 0.001, 0.3, 0.9, 1.0]),
    pseudo_rows=st.sampled_from([0.5, 5.0, 200.0]),
)
@settings(max_examples=60, deadline=None)
def test_pseudo_rows_are_rows(n: int, seed: int, towards: float, pseudo_rows: float) -> None:
    """Against a fine grid of the rows' NLL and that of the pseudo-rows: p = 1, r = 0 and p = 0, r = 1."""
    student, retrieved = np.random.default_rng(seed).beta(1, 1, size=(2, n))
    inner = np.linspace(0, 1, 5001)[1:-1]

    def objective(share: Floats) -> Floats:
        rows = -np.log(share[:, None] * student + (1 - share[:, None]) * retrieved).sum(axis=1)
        return rows - pseudo_rows * (towards * np.log(share) + (1 - towards) * np.log1p(-share))

    found = fit_share(student, retrieved, towards, pseudo_rows)
    assert 0.0 <= found <= 1.0
    at = np.clip(np.array([found]), 1e-9, 1 - 1e-9)
    assert objective(at)[0] <= objective(inner).min() + 1e-4


def test_without_rows_the_share_is_the_prior_mode() -> None:
    nothing = np.empty(0)
    for towards in (0.0, 0.25, 1.0):
        assert fit_share(nothing, nothing, towards, 5.0) == towards


def test_shrinkage_fades_with_rows() -> None:
    one, other = np.array([0.9]), np.array([0.1])
    found = [fit_share(np.repeat(one, n), np.repeat(other, n), 0.2, 5.0) for n in (1, 10, 100, 1000)]
    assert found == sorted(found) and 0.2 < found[0] < 0.4 and found[-1] > 0.95


# Buckets


def test_buckets_are_quarters_each_fitted_alone() -> None:
    rows = answered(400, 0, RIGHT_WHERE_NEAR)
    student, retrieved = of_gold(rows)
    weight = fit_buckets(student, retrieved, rows.top.astype(np.float64), 0.6)
    assert len(weight.edges) == 3
    bucket = [sum(value >= edge for edge in weight.edges) for value in rows.top.astype(float)]
    assert np.bincount(bucket).tolist() == pytest.approx([100] * 4, abs=1)
    for number, share in enumerate(weight.weights):
        inside = np.array(bucket) == number
        assert share == fit_share(student[inside], retrieved[inside], 0.6, PSEUDO_ROWS)
    assert weight.weights[0] > 0.8 and weight.weights[3] < 0.2


@given(values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=40), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_ties_make_fewer_buckets_without_empty_buckets(values: list[float], seed: int) -> None:
    top = np.array(values)
    student, retrieved = np.random.default_rng(seed).beta(1, 1, size=(2, len(top)))
    weight = fit_buckets(student, retrieved, top, 0.5)
    inside = np.bincount(np.searchsorted(weight.edges, top, side="right"), minlength=len(weight.weights))
    assert (inside > 0).all() and len(inside) == len(weight.weights) <= 4


# Logistic


@given(seed=st.integers(0, 10**6), centre=st.sampled_from([-3.0, 0.0, 2.0]))
@settings(max_examples=30, deadline=None)
def test_the_gradient_is_that_of_finite_differences(seed: int, centre: float) -> None:
    rng = np.random.default_rng(seed)
    student, retrieved = rng.uniform(0.01, 1, size=(2, 25))
    design = np.column_stack([np.ones(25), rng.standard_normal((25, 5))])
    parameters = rng.standard_normal(6)

    def part(which: int) -> Any:
        return lambda theta: logistic_loss(theta, design, student, retrieved, centre)[which]

    assert check_grad(part(0), part(1), parameters) < 1e-4 * (1 + np.linalg.norm(part(1)(parameters)))


def test_the_loss_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    student, retrieved = rng.uniform(0.01, 1, size=(2, 9))
    design, parameters = rng.standard_normal((9, 6)), rng.standard_normal(6)
    expected = PENALTY / 2 * sum(value**2 for value in parameters)
    for x, p, r in zip(design, student, retrieved, strict=True):
        w = 1 / (1 + math.exp(-(0.7 + sum(x * parameters))))
        expected -= math.log(w * p + (1 - w) * r)
    assert logistic_loss(parameters, design, student, retrieved, 0.7)[0] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_another_optimiser_finds_the_same_logistic(seed: int) -> None:
    """Nelder-Mead in the space of the stored numbers, the penalty on the standardised ones written out."""
    rows = answered(300, seed, RIGHT_WHERE_NEAR)
    student, retrieved = of_gold(rows)
    surer = np.random.default_rng(seed).uniform(0.3, 1, 300)
    features = np.column_stack([rows.top, surer])
    padded = np.column_stack([features, np.full(300, 0.52)])  # the last feature without a spread
    constant = 0.55

    def objective(stored: Floats) -> float:
        w = 1 / (1 + np.exp(-(stored[0] + features @ stored[1:])))
        scaled = stored[1:] * features.std(axis=0)
        shift = stored[0] + features.mean(axis=0) @ stored[1:] - math.log(constant / (1 - constant))
        penalty = (scaled @ scaled + shift**2) / 2
        return float(-np.log(w * student + (1 - w) * retrieved).sum() + PENALTY * penalty)

    found = fit_logistic(student, retrieved, padded, constant)
    assert found.coefficients[2] == 0.0
    mine = np.array([found.intercept, *found.coefficients[:2]])
    options = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 20_000, "maxfev": 20_000}
    other = minimize(objective, np.zeros(3), method="Nelder-Mead", options=options)
    assert objective(mine) <= other.fun + 1e-3
    np.testing.assert_allclose(mine, other.x, atol=0.05)


@pytest.mark.parametrize("constant", [0.0, 1.0])
@pytest.mark.parametrize("better", ["student", "retrieved"])
def test_a_constant_at_either_end_can_be_left(constant: float, better: str) -> None:
    rng = np.random.default_rng(1)
    good, bad = rng.uniform(0.6, 0.9, 400), rng.uniform(0.01, 0.1, 400)
    student, retrieved = (good, bad) if better == "student" else (bad, good)
    features = rng.uniform(0, 1, (400, 3))
    logistic = fit_logistic(student, retrieved, features, constant).weight_many(features)
    bucket = fit_buckets(student, retrieved, features[:, 0], constant).weight_many(features)
    for share in (logistic, bucket):
        assert (share > 0.9).all() if better == "student" else (share < 0.1).all()


# The choice


@pytest.mark.parametrize("seed", range(3))
def test_buckets_are_chosen_and_better_where_retrieval_is_right_only_nearby(seed: int) -> None:
    rows, fresh = answered(400, seed, RIGHT_WHERE_NEAR), answered(2000, 100 + seed, RIGHT_WHERE_NEAR)
    among_two = fit_weighting(rows, ("constant", "buckets"))
    assert among_two.kind == "buckets"
    chosen = fit_weighting(rows)
    assert chosen.kind != "constant" and set(chosen.cv_nll) == set(KINDS)
    for found in (among_two, chosen):
        assert nll(shares(found, fresh), fresh) < nll(found.constant, fresh) - 0.1
        near = shares(found, fresh)[fresh.top > 0.8].mean()
        assert near < 0.2 < 0.7 < shares(found, fresh)[fresh.top < 0.2].mean()


def test_the_logistic_is_chosen_where_only_another_feature_tells() -> None:
    """The neighbours are right wherever they are sure, whatever the top similarity."""

    def make(n: int, seed: int) -> WeightInputs:
        base, rng = answered(n, seed), np.random.default_rng(1000 + seed)
        sure = rng.random(n) < 0.5
        right = np.where(np.eye(4)[base.gold] == 1, 0.97, 0.01)
        return WeightInputs(base.student, np.where(sure[:, None], right, 0.25), base.top, base.gold)

    rows, fresh = make(300, 0), make(2000, 1)
    chosen = fit_weighting(rows)
    assert chosen.kind == "squares" and isinstance(chosen.weight, SquaresWeight)
    assert chosen.weight.coefficients[2] < 0  # the surer the neighbours are, the smaller the student's share
    assert nll(shares(chosen, fresh), fresh) < nll(chosen.constant, fresh) - 0.05


@pytest.mark.parametrize("seed", range(6))
def test_uninformative_features_give_a_constant_weight(seed: int) -> None:
    chosen = fit_weighting(answered(400, seed, 0.75))
    assert chosen.kind == "constant" and chosen.weight is None
    assert 0.3 < chosen.constant < 0.7


def test_where_neighbours_are_noise_the_student_stands_alone() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(3, size=300)
    student = np.where(np.eye(3)[gold] == 1, 0.9, 0.05)
    noise = np.where(np.eye(3)[(gold + 1) % 3] == 1, 0.9, 0.05)
    chosen = fit_weighting(WeightInputs(student, noise, rng.random(300), gold))
    assert (chosen.kind, chosen.constant) == ("constant", 1.0)
    assert chosen.nll == pytest.approx(-math.log(0.9))


@given(seed=st.integers(0, 10**6), n=st.integers(FEWEST_ROWS, 90), classes=st.integers(2, 5))
@settings(max_examples=15, deadline=None)
def test_the_choice_is_never_worse_than_the_constant(seed: int, n: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    student, retrieved = rng.dirichlet(np.full(classes, 0.5), size=(2, n))
    rows = WeightInputs(student, retrieved, rng.random(n), rng.integers(classes, size=n))
    chosen = fit_weighting(rows)
    assert chosen.cv_nll[chosen.kind] <= chosen.cv_nll["constant"]
    assert chosen.nll <= nll(chosen.constant, rows) + 1e-3
    assert chosen.nll == pytest.approx(nll(shares(chosen, rows), rows))
    assert fit_weighting(rows) == chosen  # nothing is left to chance


def test_cross_validation_by_hand() -> None:
    """The constant's figure: each fold by the share fitted on the other four."""
    rows = answered(200, 3, RIGHT_WHERE_NEAR)
    folds = _folds(rows.gold)
    for label in range(4):
        assert np.ptp(np.bincount(folds[rows.gold == label], minlength=5)) <= 1  # stratified
    student, retrieved = of_gold(rows)
    losses = np.empty(200)
    for fold in range(5):
        inside = folds == fold
        share = float(fit_weights(student[~inside], retrieved[None, ~inside])[0])
        losses[inside] = -np.log(share * student[inside] + (1 - share) * retrieved[inside])
    assert fit_weighting(rows).cv_nll["constant"] == pytest.approx(losses.mean(), abs=1e-5)


def test_too_few_rows_stay_constant() -> None:
    for kinds in (KINDS, ("buckets",)):
        chosen = fit_weighting(answered(FEWEST_ROWS - 1, 0, RIGHT_WHERE_NEAR), kinds)  # type: ignore[arg-type]
        assert chosen.kind == "constant" and chosen.weight is None and chosen.cv_nll == {}
    assert fit_weighting(answered(FEWEST_ROWS, 0, RIGHT_WHERE_NEAR), ("buckets",)).kind == "buckets"


def test_rows_that_are_all_related_stay_constant() -> None:
    """Fold by fold there would be none left to fit on."""
    rows = replace(answered(200, 0, RIGHT_WHERE_NEAR), groups=np.zeros(200, np.int64))
    for kinds in (KINDS, ("buckets",)):
        assert fit_weighting(rows, kinds).kind == "constant"  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "made"), [("buckets", BucketWeight), ("squares", SquaresWeight)])
def test_a_form_asked_for_alone_is_taken_and_compared(kind: Kind, made: type) -> None:
    chosen = fit_weighting(answered(200, 0, 0.75), (kind,))
    assert chosen.kind == kind and isinstance(chosen.weight, made)
    assert set(chosen.cv_nll) == {"constant", kind}


def test_a_class_of_one_row_and_a_single_class_work() -> None:
    rows = answered(60, 0)
    rows.gold[:] = 0
    for gold in (rows.gold, np.array([1, *[0] * 59])):
        assert math.isfinite(fit_weighting(WeightInputs(rows.student, rows.retrieved, rows.top, gold)).nll)


@pytest.mark.parametrize("kinds", [(), ("linear",)])
def test_unknown_forms_are_named(kinds: tuple[Kind, ...]) -> None:
    with pytest.raises(UsageError, match="constant, buckets, squares"):
        fit_weighting(answered(60, 0), kinds)
