from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.steps import make_step
from torch.nn.functional import normalize

from reaugkd.errors import RecipeError
from reaugkd.export import objectives
from reaugkd.export.objectives.base import DistillationStep
from reaugkd.export.objectives.hard_labels import HardLabels
from reaugkd.export.objectives.reaugkd import Relation
from reaugkd.export.objectives.soft_label_kd import SoftLabelKD
from reaugkd.export.recipe import REAUGKD, ObjectiveRecipe

ALL = {
    "soft": SoftLabelKD(),
    "soft_warm": SoftLabelKD(3.0),
    "hard": HardLabels(),
    "hard_smoothed": HardLabels(0.2),
    "relation": Relation(),
    "relation_self": Relation(include_self=True),
    "relation_flat": Relation(0.5),
    "sum": objectives.build(REAUGKD),
}


def replaced(step: DistillationStep, **changes: torch.Tensor) -> DistillationStep:
    return dataclasses.replace(step, **changes)


# The formulas again, in Python floats and one row at a time.


def distribution(scores: list[float], temperature: float) -> list[float]:
    exponents = [math.exp((score - max(scores)) / temperature) for score in scores]
    return [value / math.fsum(exponents) for value in exponents]


def soft_labels_by_hand(step: DistillationStep, temperature: float) -> float:
    total = 0.0
    for student, teacher in zip(step.student_logits.tolist(), step.teacher_logits.tolist(), strict=True):
        target, answer = distribution(teacher, temperature), distribution(student, temperature)
        total -= math.fsum(t * math.log(a) for t, a in zip(target, answer, strict=True))
    return temperature**2 * total / len(step.keys)


def hard_labels_by_hand(step: DistillationStep, smoothing: float) -> float:
    total = 0.0
    for student, label in zip(step.student_logits.tolist(), step.labels.tolist(), strict=True):
        answer = distribution(student, 1.0)
        for number, value in enumerate(answer):
            total -= ((1 - smoothing) * (number == label) + smoothing / len(answer)) * math.log(value)
    return total / len(step.keys)


def relation_by_hand(step: DistillationStep, temperature: float, include_self: bool) -> float:
    keys, queries = step.keys.tolist(), step.student_embedding.tolist()
    total = 0.0
    for i in range(len(keys)):
        anchors = [j for j in range(len(keys)) if include_self or j != i]
        if not anchors:
            continue
        q = distribution([float(np.dot(keys[i], keys[j])) for j in anchors], temperature)
        qbar = distribution([float(np.dot(queries[i], keys[j])) for j in anchors], temperature)
        total += math.fsum(a * math.log(a / b) for a, b in zip(q, qbar, strict=True) if a > 0)
    return total / len(keys)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_labels_are_t_squared_times_the_cross_entropy(rows: int, temperature: float) -> None:
    step = make_step(rows, seed=rows)
    assert SoftLabelKD(temperature)(step).item() == pytest.approx(soft_labels_by_hand(step, temperature), rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_hard_labels_are_the_cross_entropy_with_gold(smoothing: float) -> None:
    step = make_step(6)
    assert HardLabels(smoothing)(step).item() == pytest.approx(hard_labels_by_hand(step, smoothing), rel=1e-12)


@pytest.mark.parametrize("rows", [2, 3, 9])
@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("include_self", [False, True])
def test_relation_is_the_kl_of_the_teachers_similarities_from_the_students(
    rows: int, temperature: float, include_self: bool
) -> None:
    step = make_step(rows, seed=rows)
    expected = relation_by_hand(step, temperature, include_self)
    assert Relation(temperature, include_self)(step).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_with_the_self_term_and_a_low_temperature_it_is_merely_info_nce() -> None:
    """Why the term is left out by default: each query is pulled onto its own key, and the neighbours do not count."""
    step = make_step(8, dim=256)
    scores = step.student_embedding @ step.keys.T / 0.05
    info_nce = torch.nn.functional.cross_entropy(scores, torch.arange(8)).item()
    assert Relation(0.05, True)(step).item() == pytest.approx(info_nce, rel=1e-3)
    assert Relation(0.05, False)(step).item() != pytest.approx(info_nce, rel=0.1)


@given(rows=st.integers(1, 12), seed=st.integers(0, 10**6), include_self=st.booleans(), tau=st.floats(0.02, 2.0))
@settings(max_examples=60, deadline=None)
def test_relation_is_not_negative_and_zero_for_equal_similarities(
    rows: int, seed: int, include_self: bool, tau: float
) -> None:
    step = make_step(rows, seed=seed)
    relation = Relation(tau, include_self)
    assert relation(step).item() >= -1e-12
    assert relation(replaced(step, student_embedding=step.keys)).item() == pytest.approx(0.0, abs=1e-12)


@given(
    rows=st.integers(1, 8), seed=st.integers(0, 10**6), temperature=st.floats(0.3, 5.0), step_size=st.floats(0.01, 3)
)
@settings(max_examples=60, deadline=None)
def test_soft_labels_are_least_where_the_student_answers_as_the_teacher(
    rows: int, seed: int, temperature: float, step_size: float
) -> None:
    step, other = make_step(rows, seed=seed), make_step(rows, seed=seed + 1)
    soft = SoftLabelKD(temperature)
    best = soft(replaced(step, student_logits=step.teacher_logits))
    moved = step.teacher_logits + step_size * other.student_logits
    assert soft(replaced(step, student_logits=moved)).item() >= best.item() - 1e-12
    shifted = step.teacher_logits + 5.0  # the same distribution
    assert soft(replaced(step, student_logits=shifted)).item() == pytest.approx(best.item(), rel=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_right(name: str) -> None:
    step = make_step(5, grad=True)
    objective = ALL[name]

    def of(logits: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        # Both are used, so that each objective depends on both as far as the check can tell.
        loss = objective(replaced(step, student_logits=logits, student_embedding=embedding))
        return loss + 0.0 * (logits.sum() + embedding.sum())

    assert torch.autograd.gradcheck(of, (step.student_logits, step.student_embedding))


DEGENERATE: dict[str, dict[str, Any]] = {
    "one row": {"rows": 1},
    "two rows": {"rows": 2},
    "one class": {"rows": 6, "labels": [0] * 6},
    "each class once": {"rows": 4, "labels": [0, 1, 2, 3]},
    "equal keys": {"rows": 4, "equal": True},
    "huge logits": {"rows": 4, "scale": 1e4},
}


@pytest.mark.parametrize("name", ALL)
def test_degenerate_batches_give_finite_losses_and_gradients(name: str) -> None:
    broken = [case for case, settings_ in DEGENERATE.items() if not is_finite(name, **settings_)]
    assert broken == []


def is_finite(name: str, rows: int, labels: list[int] | None = None, equal: bool = False, scale: float = 1.0) -> bool:
    """Whether an objective's loss on such a batch and its gradients are finite."""
    step = make_step(rows, dtype=torch.float32)
    if labels is not None:
        step = replaced(step, labels=torch.tensor(labels))
    if equal:
        same = step.keys[:1].expand_as(step.keys).clone()
        step = replaced(step, keys=same, student_embedding=same.clone())
    logits = (step.student_logits * scale).requires_grad_()
    embedding = step.student_embedding.clone().requires_grad_()
    loss = ALL[name](
        replaced(step, student_logits=logits, student_embedding=embedding, teacher_logits=step.teacher_logits * scale)
    )
    assert loss.shape == () and loss.requires_grad
    loss.backward()
    gradients = [value.grad for value in (logits, embedding) if value.grad is not None]
    assert gradients
    return all(bool(torch.isfinite(value).all()) for value in (loss, *gradients))


def test_relation_without_self_gives_its_own_key_no_pull() -> None:
    """Moving a query's own key changes nothing for that query."""
    step = make_step(2)
    # Of two rows each has one anchor, whose share is 1 whatever the query: nothing to learn.
    assert Relation()(step).item() == pytest.approx(0.0, abs=1e-12)
    assert Relation(include_self=True)(step).item() > 0.01


@pytest.mark.parametrize("name", ALL)
def test_descent_lowers_it(name: str) -> None:
    step = make_step(8, dtype=torch.float32)
    logits = step.student_logits.clone().requires_grad_()
    free = step.student_embedding.clone().requires_grad_()
    optimizer = torch.optim.SGD([logits, free], lr=0.05)
    values = []
    for _ in range(20):
        loss = ALL[name](replaced(step, student_logits=logits, student_embedding=normalize(free, dim=-1)))
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert values[-1] < values[0]


def test_the_whole_loss_is_the_weighted_sum() -> None:
    step = make_step(6)
    recipes = (
        ObjectiveRecipe("soft_labels", 0.7, {"temperature": 2.0}),
        ObjectiveRecipe("relation", 3.0, {"temperature": 0.1, "include_self": True}),
        ObjectiveRecipe("hard_labels", 0.0),
    )
    expected = 0.7 * soft_labels_by_hand(step, 2.0) + 3.0 * relation_by_hand(step, 0.1, True)
    assert objectives.build(recipes)(step).item() == pytest.approx(expected, rel=1e-9)


def test_the_default_loss_is_reaugkds_with_hard_labels() -> None:
    step = make_step(6)
    expected = (
        soft_labels_by_hand(step, 1.0) + 0.5 * hard_labels_by_hand(step, 0.0) + relation_by_hand(step, 0.05, False)
    )
    assert objectives.build(REAUGKD)(step).item() == pytest.approx(expected, rel=1e-9)


def test_the_registry_has_the_names_of_recipes() -> None:
    assert {"hard_labels", "relation", "soft_labels"} <= set(objectives.names())
    assert objectives.names() == sorted(objectives.names())


@pytest.mark.parametrize(
    ("recipe", "reported"),
    [
        (ObjectiveRecipe("sotf_labels"), "sotf_labels"),
        (ObjectiveRecipe("relation", 1.0, {"temprature": 0.1}), "temprature"),
        (ObjectiveRecipe("relation", 1.0, {"temperature": "warm"}), "temperature"),
        (ObjectiveRecipe("relation", 1.0, {"include_self": 1}), "include_self"),
        (ObjectiveRecipe("relation", 1.0, {"temperature": 0}), "temperature"),
        (ObjectiveRecipe("soft_labels", 1.0, {"temperature": -1.0}), "temperature"),
        (ObjectiveRecipe("hard_labels", 1.0, {"smoothing": 1.0}), "smoothing"),
    ],
)
def test_unknown_and_invalid_settings_are_refused(recipe: ObjectiveRecipe, reported: str) -> None:
    with pytest.raises(RecipeError, match=reported):
        objectives.build([recipe])


def test_a_whole_number_will_do_for_a_setting() -> None:
    step = make_step(3)
    built = objectives.build([ObjectiveRecipe("soft_labels", 1.0, {"temperature": 2})])
    assert built(step).item() == pytest.approx(soft_labels_by_hand(step, 2.0), rel=1e-12)
