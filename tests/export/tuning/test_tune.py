from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from reaugkd.export.tuning.tune import (
    PRIOR_ROWS,
    TAU_GRID,
    HeldOut,
    K,
    Tuning,
    fit_temperature,
    fit_weights,
    soft_labels,
    tune_blend,
)
from reaugkd.runtime.decision import blending as blend
from reaugkd.runtime.decision.blend_config import BlendConfig

Floats = NDArray[np.float64]


def softmax(scores: Floats, temperature: float = 1.0) -> Floats:
    scores = np.asarray(scores, np.float64) / temperature
    exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def soft_labels_of(rows: HeldOut, gold_share: float) -> Floats:
    labels = softmax(rows.neighbour_logits)
    if rows.neighbour_gold is None:
        return labels
    hot = np.eye(labels.shape[-1])[rows.neighbour_gold]
    return np.where(rows.neighbour_gold[..., None] < 0, labels, (1 - gold_share) * labels + gold_share * hot)


def blend_nll(rows: HeldOut, config: BlendConfig) -> float:
    """The whole formula, one row at a time."""
    total = 0.0
    for row, gold in enumerate(rows.gold):
        student = softmax(rows.student_logits[row], config.student_temperature)
        weights = softmax(rows.similarities[row], config.tau)
        soft = soft_labels_of(rows, config.gold_share)[row]
        probability = config.student_weight * student + (1 - config.student_weight) * weights @ soft
        total -= np.log(max(probability[gold], 1e-12))
    return total / len(rows.gold)


def make_rows(
    n: int = 80, k: int = K, classes: int = 4, *, student: float = 1.0, neighbours: float = 1.5, seed: int = 0
) -> HeldOut:
    """Rows on which student and neighbours know the gold label as well as the two numbers say (0: not at all)."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(classes, size=n)
    hot = np.eye(classes)[gold]
    similarities = np.sort(rng.uniform(-0.2, 1.0, size=(n, k)), axis=1)[:, ::-1]
    # The nearer a neighbour, the more it knows.
    known = neighbours * np.clip(similarities, 0, 1)[:, :, None] * hot[:, None, :]
    return HeldOut(
        student_logits=(student * hot + rng.standard_normal((n, classes))).astype(np.float32),
        similarities=similarities.astype(np.float32),
        neighbour_logits=(2 * known + rng.standard_normal((n, k, classes))).astype(np.float32),
        gold=gold,
    )


def test_temperature_is_where_scipy_finds_the_minimum() -> None:
    for seed, scale in itertools.product(range(3), (0.5, 1.0, 8.0)):
        rows = make_rows(seed=seed, student=1.5)
        logits = rows.student_logits * scale

        def nll(temperature: float, logits: NDArray[np.float32] = logits, gold: NDArray[np.int64] = rows.gold) -> float:
            return float(-np.log(softmax(logits, temperature)[np.arange(len(gold)), gold]).mean())

        best = minimize_scalar(nll, bounds=(0.25, 20), method="bounded", options={"xatol": 1e-6})
        assert fit_temperature(logits, rows.gold) == pytest.approx(best.x, abs=2e-3)


def test_temperature_stays_within_its_bounds() -> None:
    gold = np.array([0, 1])
    right, wrong = np.array([[9.0, 0.0], [0.0, 9.0]], np.float32), np.array([[0.0, 9.0], [9.0, 0.0]], np.float32)
    assert fit_temperature(wrong, gold) == 20.0
    one_wrong = np.concatenate([np.tile(right / 30, (50, 1)), wrong[:1] / 1000])
    assert fit_temperature(one_wrong, np.append(np.tile(gold, 50), 0)) == 0.25
    assert 0.25 <= fit_temperature(np.zeros((2, 2), np.float32), gold) <= 20.0


def test_rows_that_are_all_right_do_not_sharpen_the_student() -> None:
    """Their NLL falls with the temperature without end: a text of no class would get a probability near 1."""
    gold = np.arange(20) % 2
    right = np.where(np.arange(2) == gold[:, None], 3.0, 0.0).astype(np.float32)
    assert fit_temperature(right, gold) == 1.0
    neighbours = np.repeat(right[:, None] * 3, 3, axis=1)
    found = tune_blend(HeldOut(right, np.ones((20, 3), np.float32), neighbours, gold))
    assert found.blend.student_weight < 1  # so that a text added later can change answers


def fit_weight(student: Floats, retrieved: Floats, prior_rows: float) -> float:
    return float(fit_weights(student, retrieved[None], prior_rows)[0])


@given(st.integers(1, 30), st.sampled_from([0.0, 3.0, PRIOR_ROWS]), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_weight_is_where_scipy_finds_the_minimum(n: int, prior_rows: float, seed: int) -> None:
    """The prior is that many rows, half of them p = 1, r = 0 and half p = 0, r = 1."""
    rng = np.random.default_rng(seed)
    student, retrieved = rng.beta(1, 1, size=(2, n))

    def cost(weight: float) -> float:
        rows = -np.log(np.maximum(weight * student + (1 - weight) * retrieved, 1e-12)).sum()
        return float(rows - prior_rows / 2 * np.log(max(weight * (1 - weight), 1e-12)))

    best = minimize_scalar(cost, bounds=(0, 1), method="bounded", options={"xatol": 1e-9})
    found = fit_weight(student, retrieved, prior_rows)
    assert 0.0 <= found <= 1.0
    # The ends, which a bounded search only comes near, count too.
    assert cost(found) <= min(best.fun, cost(0.0), cost(1.0)) + 1e-5


@pytest.mark.parametrize(
    ("student", "retrieved", "prior_rows", "weight"),
    [
        ([0.9, 0.8], [0.1, 0.2], 0.0, 1.0),
        ([0.1, 0.2], [0.9, 0.8], 0.0, 0.0),
        ([0.9, 0.1], [0.1, 0.9], 0.0, 0.5),
        ([0.0, 0.0], [0.5, 0.5], 0.0, 0.0),
        ([0.5, 0.5], [0.0, 0.0], 0.0, 1.0),
        ([0.5, 0.5], [0.5, 0.5], 4.0, 0.5),  # the rows say nothing
        ([1.0, 1.0], [0.0, 0.0], 2.0, 0.75),  # 2 + 1 of 2 + 2
        ([0.0] * 6, [1.0] * 6, 2.0, 0.125),
    ],
)
def test_weight_by_hand(student: list[float], retrieved: list[float], prior_rows: float, weight: float) -> None:
    assert fit_weight(np.array(student), np.array(retrieved), prior_rows) == pytest.approx(weight, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_no_point_of_the_grid_is_better(seed: int) -> None:
    """Against brute force over the grid with a fine grid of weights, by the formula written out."""
    rows, shares = with_gold(make_rows(n=25, classes=3, seed=seed), seed), (0.0, 0.5, 1.0)
    found = tune_blend(rows, shares)
    temperature = found.blend.student_temperature
    assert temperature == fit_temperature(rows.student_logits, rows.gold)
    everyone = np.arange(len(rows.gold))
    student = softmax(rows.student_logits, temperature)[everyone, rows.gold]
    fine = np.linspace(0.005, 0.995, 199)[:, None]
    prior = -PRIOR_ROWS / 2 * np.log(fine * (1 - fine))[:, 0]
    costs = {}
    for tau, share in itertools.product(TAU_GRID, shares):
        near = softmax(rows.similarities, tau)
        retrieved = np.einsum("nk,nkc->nc", near, soft_labels_of(rows, share))[everyone, rows.gold]
        of_rows = -np.log(np.maximum(fine * student + (1 - fine) * retrieved, 1e-12)).sum(axis=1)
        costs[tau, share] = float((of_rows + prior).min())
    blend = found.blend
    assert blend.k == K
    chosen = blend_nll(rows, blend) * len(rows.gold) - PRIOR_ROWS / 2 * np.log(
        blend.student_weight * (1 - blend.student_weight)
    )
    assert chosen == pytest.approx(min(costs.values()), abs=0.02)  # the fine grid's own coarseness
    assert costs[blend.tau, blend.gold_share] == pytest.approx(min(costs.values()), abs=0.02)
    assert found.nll["blend"] == pytest.approx(blend_nll(rows, blend), rel=1e-6)


def with_gold(rows: HeldOut, seed: int) -> HeldOut:
    """Give some neighbours a gold label, which is mostly the row's."""
    rng, shape = np.random.default_rng(seed), rows.similarities.shape
    right = np.where(rng.random(shape) < 0.6, rows.gold[:, None], rng.integers(0, 3, shape))
    return dataclasses.replace(rows, neighbour_gold=np.where(rng.random(shape) < 0.3, -1, right))


def test_the_report_is_that_of_the_runtimes_blend() -> None:
    rows = make_rows(neighbours=0.4)
    tuning = tune_blend(rows)
    assert 0.0 < tuning.blend.student_weight < 1.0
    config = tuning.blend
    soft = softmax(rows.neighbour_logits)
    answers = zip(rows.student_logits, rows.similarities, soft, strict=True)
    mixed = np.stack(
        [
            blend.blend(blend.softmax(logits, config.student_temperature), similarities, labels, config).probabilities
            for logits, similarities, labels in answers
        ]
    )
    alone = softmax(rows.student_logits, config.student_temperature)
    for name, found in (("blend", mixed), ("student", alone)):
        nll = float(-np.log(found[np.arange(len(rows.gold)), rows.gold]).mean())
        assert nll == pytest.approx(tuning.nll[name], rel=1e-5)  # the runtime computes in float32
        assert tuning.accuracy[name] == pytest.approx((found.argmax(axis=1) == rows.gold).mean())
    retrieval = BlendConfig(config.k, config.tau, 0.0, config.student_temperature)
    assert tuning.nll["retrieval"] == pytest.approx(blend_nll(rows, retrieval), rel=1e-6)
    assert tuning.nll["blend"] < min(tuning.nll["student"], tuning.nll["retrieval"])
    assert tuning.rows == 80


def test_the_student_stands_alone_where_neighbours_are_noise() -> None:
    """A class the neighbours rule out for every row: any share of theirs makes it worse."""
    tuning = tune_blend(make_rows(student=4.0, neighbours=-6.0))
    assert tuning.blend.student_weight == 1.0
    assert tuning.nll["blend"] == tuning.nll["student"] and tuning.accuracy["blend"] == tuning.accuracy["student"]
    assert "On 80 held-out rows no blend" in tuning.describe() and "the student answers alone" in tuning.describe()


def test_neighbours_that_are_right_are_believed() -> None:
    tuning = tune_blend(make_rows(n=200, student=0.0, neighbours=4.0))
    assert tuning.blend.student_weight < 0.2
    assert tuning.nll["blend"] < 0.5 * tuning.nll["student"]
    told = tuning.describe()
    assert told.count(". ") == 1 and f"from the {tuning.blend.k} nearest rows. On 200 held-out rows" in told


def test_few_rows_leave_the_weight_near_one_half() -> None:
    """On which side, and how far, is what the rows say."""
    for n, most in ((2, 0.15), (200, 0.5)):
        weight = tune_blend(make_rows(n=n, student=0.0, neighbours=6.0)).blend.student_weight
        assert 0.0 < 0.5 - weight < most
    assert weight < 0.1


def test_a_gain_below_a_standard_error_is_taken() -> None:
    """Neighbours that are right for 6 of 100 rows that the student has wrong, and wrong for 3 that it has right."""
    gold = np.zeros(100, np.int64)
    student, nearest = np.zeros((2, 100), np.int64)
    student[:6], nearest[6:9] = 1, 1
    rows = HeldOut(
        (3 * np.eye(2)[student]).astype(np.float32),
        np.ones((100, 1), np.float32),
        (3 * np.eye(2)[nearest][:, None]).astype(np.float32),
        gold,
    )
    tuning = tune_blend(rows)
    assert tuning.blend.student_weight < 0.5
    assert tuning.accuracy == {"student": 0.94, "retrieval": 0.97, "blend": 0.97}


@pytest.mark.parametrize(("sure", "alone"), [(0.502, True), (0.6, False)])
def test_a_blend_with_more_errors_must_lower_the_nll_by_a_hundredth(sure: float, alone: bool) -> None:
    # The student is right on all 200 rows, barely; the neighbours are surely right on 199 of them, or hardly surer.
    student = np.tile(np.log([[0.5001, 0.4999]]), (200, 1))
    neighbours = np.tile(np.log([[sure, 1 - sure]]), (200, 1, 1))
    neighbours[0] = neighbours[0, :, ::-1]
    rows = HeldOut(
        student.astype(np.float32),
        np.ones((200, 1), np.float32),
        neighbours.astype(np.float32),
        np.zeros(200, np.int64),
    )
    tuning = tune_blend(rows)
    assert (tuning.blend.student_weight == 1) == alone
    assert (tuning.accuracy["blend"] == tuning.accuracy["student"]) == alone
    assert ("student answers alone" in tuning.describe()) == alone


def test_k_is_the_number_of_neighbours() -> None:
    for k in (1, 3, 8):
        assert tune_blend(make_rows(k=k, student=0.0, neighbours=3.0)).blend.k == k


def test_without_any_neighbour_the_blend_is_the_student() -> None:
    tuning = tune_blend(make_rows(k=0))
    assert tuning.blend.student_weight == 1.0 and set(tuning.nll) == {"student", "blend"}
    assert tuning.nll["blend"] == tuning.nll["student"]


@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), k=st.integers(1, 6), scale=st.sampled_from([0.1, 1.0, 60.0]))
@settings(max_examples=20, deadline=None)
def test_never_worse_than_the_student_alone(seed: int, n: int, k: int, scale: float) -> None:
    rows = make_rows(n=n, k=k, seed=seed)
    rows = HeldOut(rows.student_logits * scale, rows.similarities, rows.neighbour_logits * scale, rows.gold)
    tuning = tune_blend(rows)
    assert np.isfinite(list(tuning.nll.values())).all()
    assert tuning.nll["blend"] <= tuning.nll["student"]
    assert tuning.nll["blend"] == pytest.approx(blend_nll(rows, tuning.blend), rel=1e-5, abs=1e-9)


def test_some_rows_are_answered_as_among_all() -> None:
    rows, some = with_gold(make_rows(n=9, classes=3), 1), np.array([7, 0, 4])
    config = BlendConfig(K, 0.1, 0.3, student_temperature=1.5, gold_share=0.5)
    taken = rows.take(some)
    np.testing.assert_allclose(taken.answers(config).probabilities, rows.answers(config).probabilities[some])
    of_gold = taken.answers(config).probabilities[np.arange(3), rows.gold[some]]
    assert -np.log(of_gold).mean() == pytest.approx(blend_nll(taken, config))
    without = dataclasses.replace(rows, neighbour_gold=None).take(some)
    assert without.neighbour_gold is None and len(without.gold) == 3


def test_it_is_json_ready(tmp_path: Path) -> None:
    tuning = tune_blend(make_rows(n=10, k=4))
    (tmp_path / "tuning.json").write_text(json.dumps(tuning.as_dict()))
    assert Tuning.read(tmp_path / "tuning.json") == tuning


@given(st.integers(0, 10**6), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_soft_labels_of_neighbours_are_those_of_rows(seed: int, share: float) -> None:
    rows = with_gold(make_rows(n=5, classes=3, seed=seed), seed)
    found = soft_labels(rows.neighbour_logits, rows.neighbour_gold, share)
    np.testing.assert_allclose(found, soft_labels_of(rows, share), atol=1e-12)
