"""The metrics against scikit-learn, scipy and explicit sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef

from reaugkd.runtime.evaluation.metrics import METRICS, PROBABILITY_FLOOR, score


def random_case(seed: int, n: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities, gold labels and a teacher's probabilities; with few rows, some classes are absent."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, classes, n)
    logits = rng.normal(size=(2, n, classes)) * rng.uniform(0.1, 4)
    logits[:, np.arange(n), gold] += rng.uniform(-1, 3)
    p, teacher = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return p, gold, teacher


def ece_by_hand(p: np.ndarray, gold: np.ndarray) -> float:
    """The definition as a loop: ten bins (0, 0.1], (0.1, 0.2], ..."""
    confidence, right, total = p.max(axis=1), p.argmax(axis=1) == gold, 0.0
    for i in range(10):
        inside = (confidence > i / 10) & (confidence <= (i + 1) / 10)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(total)


cases = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 9))


@settings(max_examples=100, deadline=None)
@given(cases)
def test_agrees_with_sklearn_and_scipy(case: tuple[int, int, int]) -> None:
    p, gold, teacher = random_case(*case)
    scores, answers = score(p, gold, teacher), p.argmax(axis=1)
    assert scores["accuracy"] == pytest.approx(accuracy_score(gold, answers))
    assert scores["macro_f1"] == pytest.approx(f1_score(gold, answers, average="macro"))
    assert scores["nll"] == pytest.approx(log_loss(gold, p, labels=range(p.shape[1])))
    assert scores["teacher_agreement"] == pytest.approx(accuracy_score(teacher.argmax(axis=1), answers))
    assert scores["teacher_kl"] == pytest.approx(rel_entr(teacher, p).sum(axis=1).mean())
    assert scores["ece"] == pytest.approx(ece_by_hand(p, gold))


@settings(max_examples=50, deadline=None)
@given(cases, st.data())
def test_a_label_that_is_no_class_is_wrong(case: tuple[int, int, int], data: st.DataObject) -> None:
    p, gold, _ = random_case(*case)
    unseen = np.array(data.draw(st.lists(st.booleans(), min_size=len(gold), max_size=len(gold))))
    probability = np.where(unseen, PROBABILITY_FLOOR, p[np.arange(len(gold)), gold])
    gold, answers = np.where(unseen, -1, gold), p.argmax(axis=1)
    scores = score(p, gold)
    assert scores["accuracy"] == pytest.approx(accuracy_score(gold, answers))
    assert scores["macro_f1"] == pytest.approx(f1_score(gold, answers, average="macro"))
    assert scores["nll"] == pytest.approx(-np.log(probability).mean())
    assert scores["ece"] == pytest.approx(ece_by_hand(p, gold))


@settings(max_examples=100, deadline=None)
@given(cases)
def test_mcc_agrees_with_sklearn(case: tuple[int, int, int]) -> None:
    p, gold, _ = random_case(*case)
    answers = p.argmax(axis=1)
    # scikit-learn warns and answers 0 or nan where one side names a single class; ours is 0 there, tested below.
    if len(set(gold.tolist())) > 1 and len(set(answers.tolist())) > 1:
        assert score(p, gold)["mcc"] == pytest.approx(matthews_corrcoef(gold, answers))


@settings(max_examples=50, deadline=None)
@given(cases, st.randoms(use_true_random=False))
def test_order_of_rows_and_names_of_classes_do_not_matter(case: tuple[int, int, int], random: object) -> None:
    p, gold, teacher = random_case(*case)
    rows = list(range(len(gold)))
    classes = list(range(p.shape[1]))
    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(classes)  # type: ignore[attr-defined]
    renamed = np.argsort(classes)[gold]
    moved = score(p[rows][:, classes], renamed[rows], teacher[rows][:, classes])
    assert moved == pytest.approx(score(p, gold, teacher))


def test_a_case_by_hand() -> None:
    p = [[0.75, 0.25], [0.65, 0.35], [0.35, 0.65], [0.125, 0.875]]
    teacher = [[0.5, 0.5], [0.25, 0.75], [0.0, 1.0], [0.0, 1.0]]
    scores = score(p, [0, 1, 1, 1], teacher)
    assert scores["accuracy"] == 0.75
    assert scores["macro_f1"] == pytest.approx((2 * 1 / (2 + 1) + 2 * 2 / (2 + 3)) / 2)
    # Two classes: the Matthews correlation of tp 2, tn 1, fp 0, fn 1.
    assert scores["mcc"] == pytest.approx((2 * 1 - 0 * 1) / math.sqrt(2 * 3 * 1 * 2))
    assert scores["nll"] == pytest.approx(-(math.log(0.75) + math.log(0.35) + math.log(0.65) + math.log(0.875)) / 4)
    # Bins: 0.75 right; 0.65 and 0.65 together, one of two right; 0.875 right.
    assert scores["ece"] == pytest.approx(0.25 / 4 + 2 / 4 * 0.15 + 0.125 / 4)
    assert scores["teacher_agreement"] == 0.75
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    kl += 0.25 * math.log(0.25 / 0.65) + 0.75 * math.log(0.75 / 0.35)
    assert scores["teacher_kl"] == pytest.approx((kl - math.log(0.65) - math.log(0.875)) / 4)


def test_perfect_answers() -> None:
    p = np.eye(3)[[0, 1, 2, 0]]
    assert list(score(p, [0, 1, 2, 0], p).values()) == [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0]


def test_one_class_on_either_side_has_no_correlation() -> None:
    assert score([[0.9, 0.1], [0.8, 0.2]], [0, 1])["mcc"] == 0.0
    assert score([[0.9, 0.1], [0.2, 0.8]], [0, 0])["mcc"] == 0.0


def test_a_probability_of_zero_is_capped_not_infinite() -> None:
    scores = score([[1.0, 0.0]], [1], [[0.0, 1.0]])
    assert scores["nll"] == scores["teacher_kl"] == pytest.approx(-math.log(PROBABILITY_FLOOR))


def test_teacher_columns_are_none_without_a_teacher() -> None:
    scores = score([[0.6, 0.4]], [0])
    assert scores["teacher_agreement"] is None and scores["teacher_kl"] is None
    assert list(scores) == list(METRICS)


@pytest.mark.parametrize(
    ("probabilities", "gold", "teacher", "message"),
    [
        ([[0.5, 0.5]], [0, 1], None, "expected probabilities"),
        (np.zeros((0, 2)), np.zeros(0, int), None, "expected probabilities"),
        ([[0.5, 0.5]], [2], None, r"-1\.\.1"),
        ([[0.5, 0.5]], [-2], None, r"-1\.\.1"),
        ([[0.5, 0.5]], [0.0], None, "class indices"),
        ([[math.nan, 0.5]], [0], None, "from 0 to 1"),
        ([[-2.0, 3.0]], [0], None, "from 0 to 1"),
        ([[0.5, 0.5]], [0], [[0.2, 0.3, 0.5]], "teacher_probabilities has shape"),
    ],
)
def test_invalid_input_is_refused(probabilities: object, gold: object, teacher: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(probabilities, gold, teacher)  # type: ignore[arg-type]
