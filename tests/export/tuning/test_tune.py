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

from reaugkd.export.recipe import Weighting
from reaugkd.export.tuning.grid import FEWEST_ROWS, Candidates, Setting, fit_weights
from reaugkd.export.tuning.mixture_weight import KINDS
from reaugkd.export.tuning.tune import (
    K_GRID,
    LABEL_TEMPERATURE_GRID,
    TAU_GRID,
    HeldOut,
    Tuning,
    fit_temperature,
    tune_blend,
)
from reaugkd.runtime.decision import blending as blend
from reaugkd.runtime.decision.blend_config import BlendConfig

Floats = NDArray[np.float64]


def softmax(scores: Floats, temperature: float) -> Floats:
    scores = np.asarray(scores, np.float64) / temperature
    exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def blend_nll(rows: HeldOut, config: BlendConfig) -> float:
    """The whole formula, one row at a time."""
    total = 0.0
    for row, gold in enumerate(rows.gold):
        student = softmax(rows.student_logits[row], config.student_temperature)
        weights = softmax(rows.similarities[row, : config.k], config.tau)
        soft = softmax(rows.neighbour_logits[row, : config.k], config.label_temperature)
        probability = config.student_weight * student + (1 - config.student_weight) * weights @ soft
        total -= np.log(max(probability[gold], 1e-12))
    return total / len(rows.gold)


def make_rows(
    n: int = 80, k: int = 32, classes: int = 4, *, student: float = 1.0, neighbours: float = 1.5, seed: int = 0
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
    assert fit_temperature(right, gold) == 0.25
    assert fit_temperature(wrong, gold) == 20.0
    assert 0.25 <= fit_temperature(np.zeros((2, 2), np.float32), gold) <= 20.0


def fit_weight(student: NDArray[np.float64], retrieved: NDArray[np.float64]) -> float:
    return float(fit_weights(student, retrieved[None])[0])


@given(st.integers(1, 30), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_weight_is_where_scipy_finds_the_minimum(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    student, retrieved = rng.beta(1, 1, size=(2, n))

    def nll(weight: float) -> float:
        return float(-np.log(np.maximum(weight * student + (1 - weight) * retrieved, 1e-12)).mean())

    best = minimize_scalar(nll, bounds=(0, 1), method="bounded", options={"xatol": 1e-9})
    found = fit_weight(student, retrieved)
    assert 0.0 <= found <= 1.0
    # The ends, which a bounded search only comes near, count too.
    assert nll(found) <= min(best.fun, nll(0.0), nll(1.0)) + 1e-6


@pytest.mark.parametrize(
    ("student", "retrieved", "weight"),
    [
        ([0.9, 0.8], [0.1, 0.2], 1.0),
        ([0.1, 0.2], [0.9, 0.8], 0.0),
        ([0.9, 0.1], [0.1, 0.9], 0.5),
        ([0.0, 1.0], [1.0, 0.0], 0.5),
        ([0.0, 0.0], [0.5, 0.5], 0.0),
        ([0.5, 0.5], [0.0, 0.0], 1.0),
    ],
)
def test_weight_by_hand(student: list[float], retrieved: list[float], weight: float) -> None:
    assert fit_weight(np.array(student), np.array(retrieved)) == pytest.approx(weight, abs=1e-4)


@pytest.mark.parametrize("seed", range(2))
def test_no_point_of_the_grid_is_better(seed: int) -> None:
    """Against brute force over all grids with a fine grid of weights, by the formula written out."""
    rows = make_rows(n=25, k=8, classes=3, seed=seed)
    found = tune_blend(rows, k_loss=0.0)
    temperature = found.blend.student_temperature
    assert temperature == fit_temperature(rows.student_logits, rows.gold)
    assert found.nll["blend"] == pytest.approx(blend_nll(rows, found.blend), rel=1e-6)
    everyone = np.arange(len(rows.gold))
    student = softmax(rows.student_logits, temperature)[everyone, rows.gold]
    fine = np.linspace(0, 1, 101)[:, None]
    best, by_k = np.inf, {}
    for k, tau, label_temperature in itertools.product((1, 2, 4, 8), TAU_GRID, LABEL_TEMPERATURE_GRID):
        weights = softmax(rows.similarities[:, :k], tau)
        soft = softmax(rows.neighbour_logits[:, :k], label_temperature)
        retrieved = np.einsum("nk,nkc->nc", weights, soft)[everyone, rows.gold]
        least = float((-np.log(fine * student + (1 - fine) * retrieved)).mean(axis=1).min())
        best = min(best, least)
        by_k[str(k)] = min(by_k.get(str(k), np.inf), least)
    assert found.nll["blend"] <= best + 1e-6
    assert found.nll["blend"] == pytest.approx(best, abs=1e-3)  # the fine grid's own coarseness
    assert found.by_k.keys() == by_k.keys()
    for k, value in by_k.items():
        assert found.by_k[k] == pytest.approx(value, abs=1e-3)


def test_the_tuned_nll_is_that_of_the_runtimes_blend() -> None:
    rows = make_rows(neighbours=0.4)
    tuning = tune_blend(rows)
    assert 0.0 < tuning.blend.student_weight < 1.0
    config = tuning.blend
    soft = softmax(rows.neighbour_logits, config.label_temperature)
    answers = zip(rows.student_logits, rows.similarities[:, : config.k], soft[:, : config.k], strict=True)
    mixed = np.stack(
        [
            blend.blend(blend.softmax(logits, config.student_temperature), similarities, labels, config).probabilities
            for logits, similarities, labels in answers
        ]
    )
    nll = float(-np.log(mixed[np.arange(len(rows.gold)), rows.gold]).mean())
    assert nll == pytest.approx(tuning.nll["blend"], rel=1e-5)  # the runtime computes in float32
    alone = softmax(rows.student_logits, config.student_temperature)
    assert tuning.nll["student"] == pytest.approx(
        float(-np.log(alone[np.arange(len(rows.gold)), rows.gold]).mean()), rel=1e-9
    )
    retrieval = BlendConfig(config.k, config.tau, 0.0, config.student_temperature, config.label_temperature)
    assert tuning.nll["retrieval"] == pytest.approx(blend_nll(rows, retrieval), rel=1e-6)
    assert tuning.nll["blend"] < min(tuning.nll["student"], tuning.nll["retrieval"])
    assert tuning.rows == 80


def test_the_student_stands_alone_where_neighbours_are_noise() -> None:
    """A class the neighbours rule out for every row: any share of theirs makes it worse."""
    rows = make_rows(student=4.0, neighbours=-6.0)
    tuning = tune_blend(rows)
    assert tuning.blend.student_weight == 1.0
    assert tuning.nll["blend"] == tuning.nll["student"]


def test_pure_noise_gains_next_to_nothing() -> None:
    rows = make_rows(n=400, student=4.0, neighbours=0.0)
    tuning = tune_blend(rows)
    assert tuning.blend.student_weight > 0.85
    assert tuning.nll["student"] - tuning.nll["blend"] < 0.02


def test_retrieval_wins_where_the_student_is_noise() -> None:
    rows = make_rows(n=200, student=0.0, neighbours=4.0)
    tuning = tune_blend(rows)
    assert tuning.blend.student_weight < 0.2
    assert tuning.nll["blend"] < 0.5 * tuning.nll["student"]


@pytest.mark.parametrize("k", [1, 3, 5, 32, 40])
def test_k_is_at_most_the_neighbours_there_are(k: int) -> None:
    tuning = tune_blend(make_rows(k=k, student=0.0, neighbours=3.0))
    assert set(tuning.by_k) == {str(number) for number in K_GRID if number <= k}
    assert tuning.blend.k <= k
    assert tuning.nll["blend"] == pytest.approx(tuning.by_k[str(tuning.blend.k)])


@pytest.mark.parametrize("seed", range(4))
def test_the_fewest_neighbours_that_keep_most_of_the_gain(seed: int) -> None:
    rows = make_rows(k=64, neighbours=1.5, seed=seed)
    best, fewer = tune_blend(rows, k_loss=0.0), tune_blend(rows, k_loss=0.3)
    assert best.by_k == fewer.by_k
    kept = {
        int(k): (best.nll["student"] - nll) / (best.nll["student"] - best.nll["blend"]) for k, nll in best.by_k.items()
    }
    assert kept[best.blend.k] == 1.0 == max(kept.values())
    assert fewer.blend.k == min(k for k, share in kept.items() if share >= 0.7) < best.blend.k
    assert fewer.nll["blend"] == pytest.approx(blend_nll(rows, fewer.blend), rel=1e-6)


def test_without_any_neighbour_the_blend_is_the_student() -> None:
    tuning = tune_blend(make_rows(k=0))
    assert tuning.blend.student_weight == 1.0 and tuning.by_k == {}
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


@pytest.mark.parametrize("weight", ["auto", "buckets", "squares"])
def test_a_weight_per_example_is_fitted_at_the_constants_settings(weight: Weighting) -> None:
    """Its NLL is what the runtime's blend gives, text by text; the rest of the choice is the constant's."""
    rows = make_rows(n=300, k=2, student=2.5, neighbours=4.0)  # the nearer a neighbour, the more it knows
    constant, found = tune_blend(rows), tune_blend(rows, weight)
    config = found.blend
    assert (
        config.weight is not None
        and config.weight.kind
        in {"auto": ("buckets", "squares"), "buckets": ("buckets",), "squares": ("squares",)}[weight]
    )
    assert dataclasses.replace(config, weight=None) == constant.blend and constant.weight_cv_nll == {}
    assert set(found.weight_cv_nll) == (set(KINDS) if weight == "auto" else {"constant", weight})
    assert (found.nll["student"], found.nll["retrieval"]) == (constant.nll["student"], constant.nll["retrieval"])
    assert found.nll["blend"] < constant.nll["blend"] and found.by_k == constant.by_k
    soft = softmax(rows.neighbour_logits, config.label_temperature).astype(np.float32)
    total, shares = 0.0, set()
    for row, gold in enumerate(rows.gold):
        student = blend.softmax(rows.student_logits[row], config.student_temperature)
        got = blend.blend(student, rows.similarities[row, : config.k], soft[row, : config.k], config)
        total -= float(np.log(got.probabilities[gold]))
        shares.add(got.student_weight)
    assert total / len(rows.gold) == pytest.approx(found.nll["blend"], rel=1e-4)
    assert len(shares) >= 3 and 0.0 < config.student_weight < 1.0


def test_without_a_gain_the_weight_stays_constant() -> None:
    few = make_rows(n=FEWEST_ROWS - 1, neighbours=6.0)
    alone = make_rows(n=200, k=0)
    for rows, weight in itertools.product((few, alone), ("auto", "buckets")):
        assert tune_blend(rows, weight) == tune_blend(rows)  # type: ignore[arg-type]
    noise = make_rows(n=200, student=4.0, neighbours=-6.0)
    found = tune_blend(noise, "auto")
    assert set(found.weight_cv_nll) == set(KINDS)
    assert dataclasses.replace(found, weight_cv_nll={}) == tune_blend(noise)


def test_it_is_json_ready(tmp_path: Path) -> None:
    tuning = tune_blend(make_rows(n=10, k=4))
    again = json.loads(json.dumps(tuning.as_dict()))
    assert Tuning(BlendConfig(**again["blend"]), again["rows"], again["nll"], again["by_k"]) == tuning


def rows_with_help(n: int, helped: float, seed: int = 0) -> HeldOut:
    """A student that knows little, and one neighbour that knows the label of a share of the rows."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 3, n)
    right = np.where(rng.random(n) < helped, gold, rng.integers(0, 3, n))
    return HeldOut(
        (0.5 * np.eye(3)[gold] + rng.normal(size=(n, 3))).astype(np.float32),
        np.full((n, 1), 0.9, np.float32),
        (3 * np.eye(3)[right][:, None]).astype(np.float32),
        gold,
    )


def test_the_one_se_rule_keeps_a_gain_on_unseen_rows() -> None:
    rows = rows_with_help(300, 0.6)
    assert tune_blend(rows, one_se_rule=True) == tune_blend(rows)
    assert tune_blend(rows).blend.student_weight < 0.8


def test_cautious_leaves_the_student_alone_where_the_gain_is_only_the_choice() -> None:
    """Hundreds of settings on a few rows find a gain that other rows do not have; it is not used."""
    taken = 0
    for seed in range(20):
        rows = make_rows(n=120, k=16, classes=3, neighbours=0, seed=seed)
        bold, one_se_rule = tune_blend(rows), tune_blend(rows, "auto", one_se_rule=True)
        if one_se_rule.blend.student_weight < 1:
            taken += 1
            continue
        assert one_se_rule.blend == dataclasses.replace(bold.blend, student_weight=1.0)
        assert one_se_rule.nll == {**bold.nll, "blend": bold.nll["student"]}
        assert one_se_rule.weight_cv_nll == {}
    assert taken <= 4


def test_the_students_temperature_is_fitted_on_gold_labels_alone() -> None:
    rows = make_rows(n=60, k=4)
    wrong = dataclasses.replace(rows, gold=np.concatenate([rows.gold[:30], (rows.gold[30:] + 1) % 3]), true=30)
    expected = fit_temperature(rows.student_logits[:30], rows.gold[:30])
    assert tune_blend(wrong).blend.student_temperature == expected
    assert tune_blend(dataclasses.replace(wrong, true=None)).blend.student_temperature != expected
    assert tune_blend(dataclasses.replace(wrong, true=60)) == tune_blend(dataclasses.replace(wrong, true=None))


@pytest.mark.parametrize("right", [0.75, 0.95])
def test_pseudo_labels_of_a_misleading_teacher_have_no_effect(right: float) -> None:
    """A student that is right at 85 % of the rows, and a knowledge base that repeats what its teacher says."""
    rng, true, n = np.random.default_rng(0), 300, 2300
    gold = rng.integers(0, 4, n)
    taught = np.where(rng.random(n) < right, gold, (gold + 1) % 4)
    guessed = np.where(rng.random(n) < 0.85, gold, rng.integers(0, 4, n))
    rows = HeldOut(
        (3 * np.eye(4)[guessed]).astype(np.float32),
        np.full((n, 1), 0.9, np.float32),
        (5 * np.eye(4)[taught][:, None]).astype(np.float32),
        np.where(np.arange(n) < true, gold, taught),
        true=true,
    )
    alone, found = tune_blend(rows.known(), one_se_rule=True), tune_blend(rows, one_se_rule=True)
    if right < 0.85:
        assert found == alone and found.rows == true and found.pseudo_labelled == 0
    else:
        assert found.pseudo_labelled == n - true and found.rows == n
        assert found.blend.student_weight < alone.blend.student_weight


def test_caution_looks_at_the_choice_that_is_taken() -> None:
    """One neighbour has a small gain at all rows; two have a larger gain at a few rows and a loss at the others."""
    student, steady = np.full(100, 0.5), np.full(100, 0.501)
    lucky = np.where(np.random.default_rng(0).permutation(100) < 20, 1.0, 0.4)
    candidates = Candidates([Setting(1, 0.1, 1.0, 0.0), Setting(2, 0.1, 1.0, 0.0)], np.array([steady, lucky]))
    greedy, modest = candidates.chosen(student, 0.0), candidates.chosen(student, 0.99)
    assert (candidates.settings[greedy.number].k, candidates.settings[modest.number].k) == (2, 1)
    assert candidates.pays(student, k_loss=0.99) and not candidates.pays(student, k_loss=0.0)


def test_of_too_few_rows_nothing_is_believed() -> None:
    rows = rows_with_help(FEWEST_ROWS - 1, 0.9, seed=1)
    assert tune_blend(rows).blend.student_weight < 1
    assert tune_blend(rows, one_se_rule=True).blend.student_weight == 1.0


@pytest.mark.parametrize("related", [True, False])
def test_related_rows_count_as_one(related: bool) -> None:
    """A gain on twenty copies of one text is not significant; a gain on twenty different texts is."""
    rng = np.random.default_rng(3)
    lucky, others = 40, 160
    student = np.full(lucky + others, 0.5)
    retrieved = np.concatenate([np.full(lucky, 0.9), rng.uniform(0.3, 0.62, others)])
    groups = np.arange(lucky + others)
    if related:
        groups[:lucky] = 0
    candidates = Candidates([Setting(1, 0.1, 1.0, 0.0)], retrieved[None])
    assert candidates.pays(student, groups) is not related
    assert candidates.pays(student)
