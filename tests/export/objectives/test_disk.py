from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_models as tinymodels
from support.distillations import distillation_of, distilled, require_same_after_a_kill, tiny_rows, tiny_targets
from support.steps import make_targets, step_of
from torch import Tensor
from torch.nn.functional import cross_entropy

from reaugkd.errors import RecipeError
from reaugkd.export import objectives
from reaugkd.export.modeling.execution.inference import outputs_of
from reaugkd.export.objectives.base import DistillationStep, Targets
from reaugkd.export.objectives.disk import Helper, Scaffold, _cosine, budget_excess, helped_loss, taught_by
from reaugkd.export.recipe import ObjectiveRecipe

CLASSES = 4


def begun(objective: Scaffold, targets: Targets, seed: int = 0) -> Scaffold:
    objective.begin(distillation_of(tinymodels.tiny_student(), tinymodels.tiny_student(), targets, seed))
    return objective


def make_logits(rows: int, seed: int = 9, classes: int = CLASSES) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=generator, dtype=torch.float64)


def make_step(targets: Targets, logits: Tensor) -> DistillationStep:
    return step_of(logits, targets.keys, targets)


def after_phases(objective: Scaffold, targets: Targets, count: int) -> Scaffold:
    """The objective when it has seen so many phases of all rows, each with other logits."""
    for number in range(count * objective.period):
        logits = make_logits(len(targets.labels), number, targets.teacher_logits.shape[1])
        objective(make_step(targets, logits.to(targets.teacher_logits.dtype)))
        objective.after_step()
    return objective


# The formulas again, in numpy and one row at a time.


def softmax(scores: np.ndarray) -> np.ndarray:
    exponents = np.exp(scores - scores.max())
    return exponents / exponents.sum()


def help_by_hand(objective: Scaffold, embedding: np.ndarray) -> float:
    weights = {name: value.detach().numpy() for name, value in objective._helper.named_parameters()}
    inner = (embedding - embedding.mean()) / np.sqrt(embedding.var() + 1e-5)
    inner = np.maximum(weights["inner.weight"] @ inner + weights["inner.bias"], 0)
    score = float((weights["outer.weight"] @ inner + weights["outer.bias"])[0])
    return 1 / (1 + math.exp(-score))


def first_term_by_hand(objective: Scaffold, student: np.ndarray, teacher: np.ndarray, label: int, g: float) -> float:
    best = sorted(range(len(teacher)), key=lambda number: -teacher[number])[: objective.top]
    m = np.array([number in best or number == label for number in range(len(teacher))], dtype=float)
    tempered = softmax(m * teacher / objective.teacher_temperature + (1 - m) * teacher.min())
    s = softmax(student / objective.student_temperature)
    scale = objective.soft_weight * objective.student_temperature * objective.teacher_temperature
    return float(-scale * (m * tempered * np.log(s + g * m)).sum())


def student_loss_by_hand(objective: Scaffold, step: DistillationStep, helped: bool) -> float:
    terms = []
    for row, label in enumerate(step.labels.tolist()):
        g = help_by_hand(objective, step.teacher_embedding[row].numpy()) if helped else 0.0
        student, teacher = step.student_logits[row].detach().numpy(), step.teacher_logits[row].numpy()
        gold = -objective.hard_weight * math.log(softmax(student)[label])
        terms.append(first_term_by_hand(objective, student, teacher, label, g) + gold)
    return math.fsum(terms) / len(terms)


def helper_loss_by_hand(objective: Scaffold, targets: Targets, logits: Tensor, budget: float, penalty: float) -> float:
    first, spent, price, wrong = [], [], [], 0
    for row, label in enumerate(targets.labels.tolist()):
        student, teacher = logits[row].numpy(), targets.teacher_logits[row].numpy()
        g = help_by_hand(objective, targets.teacher_embeddings[row].numpy())
        first.append(first_term_by_hand(objective, student, teacher, label, g))
        spent.append(g * min(-math.log(softmax(student)[teacher.argmax()]), 5.0))
        price.append(math.log(1 + min(objective.top, len(teacher)) * g))
        wrong += student.argmax() != label
    excess = max(0.0, math.fsum(spent) / max(wrong, 1) - budget)
    return float(np.mean(first) + penalty * excess + objective.soft_weight * np.mean(price))


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize(
    "objective",
    [Scaffold(period=2), Scaffold(top=1, period=2), Scaffold(2.0, 1.0, 0.5, 0.3, top=2, period=2)],
    ids=["all classes", "top 1", "others"],
)
def test_the_students_loss_without_help_and_with_it(objective: Scaffold, rows: int) -> None:
    targets = make_targets(rows, CLASSES, seed=rows)
    step = make_step(targets, make_logits(rows))
    assert begun(objective, targets)(step).item() == pytest.approx(
        student_loss_by_hand(objective, step, helped=False), rel=1e-10
    )
    after_phases(objective, targets, 1)
    assert objective(step).item() == pytest.approx(student_loss_by_hand(objective, step, helped=True), rel=1e-10)


@pytest.mark.parametrize("top", [1, 2, 10])
@pytest.mark.parametrize("phase", [0, 1, 7])
def test_the_helpers_loss(top: int, phase: int) -> None:
    targets = make_targets(9, CLASSES)
    objective = begun(Scaffold(top=top, budget=0.06, last_budget=0.04), targets)
    objective._phase = phase
    logits = make_logits(9)
    turn = (1 + math.cos(math.pi * phase / 20)) / 2
    budget, penalty = 0.04 + 0.02 * turn, 5 - 4 * turn
    expected = helper_loss_by_hand(objective, targets, logits, budget, penalty)
    assert objective.helper_loss(torch.arange(9), logits).item() == pytest.approx(expected, rel=1e-10)
    assert expected > helper_loss_by_hand(objective, targets, logits, 1e9, penalty)  # the budget was exceeded


def test_the_budget_and_its_weight_turn_by_a_cosine() -> None:
    assert [_cosine(0.6, 0.4, phase) for phase in (0, 10, 20, 30)] == pytest.approx([0.6, 0.5, 0.6, 0.5])
    assert _cosine(0.6, 0.4, 19) == pytest.approx(0.4, abs=2e-3)
    assert _cosine(1.0, 5.0, 10) == pytest.approx(3.0)


@pytest.mark.parametrize("phases", [0, 1])
@pytest.mark.parametrize("top", [1, 10])
def test_gradients_are_right(phases: int, top: int) -> None:
    targets = make_targets(5, CLASSES)
    objective = after_phases(begun(Scaffold(top=top, period=1), targets), targets, phases)
    assert torch.autograd.gradcheck(
        lambda logits: objective(make_step(targets, logits)), (make_logits(5).requires_grad_(),)
    )
    helper, logits = objective._helper, make_logits(5, 3)
    names = [name for name, _ in helper.named_parameters()]

    def of(*values: Tensor) -> Tensor:
        weights = dict(zip(names, values, strict=True))
        objective._helper = lambda embedding: torch.func.functional_call(helper, weights, (embedding,))  # type: ignore[assignment]
        return objective.helper_loss(torch.arange(5), logits)

    assert torch.autograd.gradcheck(of, tuple(value.detach().clone().requires_grad_() for value in helper.parameters()))


def test_the_classes_are_the_teachers_best_and_the_gold_one() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0], [3.0, 1.0, 2.0, 0.0]])
    taught = taught_by(logits, torch.tensor([0, 3]), 2, 4.0)
    assert taught.classes.tolist() == [[True, False, True, False], [True, False, True, True]]
    assert (taught.target[~taught.classes] == 0).all()
    assert (taught.target.sum(dim=-1) < 1).all()  # as coded, not normalised again
    every = taught_by(logits, torch.tensor([0, 3]), 10, 4.0)
    torch.testing.assert_close(every.target, (logits / 4).softmax(dim=-1))


@given(rows=st.integers(1, 8), seed=st.integers(0, 10**6), top=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_help_only_excuses(rows: int, seed: int, top: int) -> None:
    """The more help, the smaller the loss and the weaker its pull; no help is cross-entropy within the classes."""
    targets = make_targets(rows, CLASSES, seed=seed)
    taught = taught_by(targets.teacher_logits, targets.labels, top, 4.0)
    losses, pulls = [], []
    for log_help in (None, -200.0, -3.0, -1.0, 0.0):
        logits = make_logits(rows, seed).requires_grad_()
        given_ = None if log_help is None else torch.full((rows,), log_help, dtype=torch.float64)
        loss = helped_loss(logits.log_softmax(dim=-1), given_, taught)
        loss.backward()
        losses.append(loss.item())
        assert logits.grad is not None
        pulls.append(logits.grad.norm().item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert losses[1:] == sorted(losses[1:], reverse=True)
    assert pulls[0] == pytest.approx(pulls[1], rel=1e-9)
    assert pulls[-1] < pulls[1]


DEGENERATE: dict[str, dict[str, Any]] = {
    "one row": {"rows": 1},
    "one class": {"rows": 5, "labels": [2] * 5},
    "each class once": {"rows": 4, "labels": [0, 1, 2, 3]},
    "equal embeddings": {"rows": 4, "equal": True},
    "huge logits": {"rows": 6, "scale": 1e4},
    "none wrong": {"rows": 6, "right": True},
    "none wrong, none in doubt": {"rows": 6, "right": True, "scale": 1e3},
    "two classes": {"rows": 5, "classes": 2},
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("top", [1, 10])
def test_degenerate_batches_give_finite_losses_and_gradients(case: str, top: int) -> None:
    given_ = {"classes": CLASSES, "scale": 1.0, "labels": None, "equal": False, "right": False, **DEGENERATE[case]}
    targets = make_targets(given_["rows"], given_["classes"], dtype=torch.float32)
    changes: dict[str, Tensor] = {"teacher_logits": targets.teacher_logits * given_["scale"]}
    if given_["labels"]:
        changes["labels"] = torch.tensor(given_["labels"])
    if given_["equal"]:
        changes["teacher_embeddings"] = torch.ones_like(targets.teacher_embeddings)
    targets = dataclasses.replace(targets, **changes)
    logits = make_logits(given_["rows"], classes=given_["classes"]).float()
    if given_["right"]:
        logits = 3 * torch.eye(given_["classes"])[targets.labels] + 0.1 * logits
    logits = (logits * given_["scale"]).requires_grad_()
    objective = begun(Scaffold(top=top, period=1), targets)
    for phase in range(3):
        loss = objective(make_step(targets, logits))
        loss.backward()
        objective.after_step()
        assert objective._phase == phase + 1
        assert loss.shape == () and torch.isfinite(loss)
        assert logits.grad is not None and torch.isfinite(logits.grad).all()
        assert all(torch.isfinite(value).all() for value in objective._helper.parameters())


def test_the_budget_is_defined_without_wrong_rows() -> None:
    labels = torch.arange(3)
    right = 4.0 * torch.eye(3, dtype=torch.float64)
    help_ = torch.full((3,), 0.5, dtype=torch.float64)
    loss = cross_entropy(right, labels).item()
    assert budget_excess(right, help_, right, labels, 0.0).item() == pytest.approx(3 * 0.5 * loss)
    assert budget_excess(right, help_, right, labels, 0.6).item() == 0.0
    wrong = -20 * right  # of which each counts no more than 5
    assert budget_excess(wrong, help_, right, labels, 0.6).item() == pytest.approx(0.5 * 5.0 - 0.6)


def test_student_and_helper_take_turns() -> None:
    targets = make_targets(6, CLASSES)
    objective = begun(Scaffold(period=3), targets)
    fresh = tinymodels.state_of(objective._helper)
    for number in range(6):
        logits = make_logits(6, number).requires_grad_()
        before = tinymodels.state_of(objective._helper)
        loss = objective(make_step(targets, logits))
        loss.backward()
        assert loss.item() == pytest.approx(
            student_loss_by_hand(objective, make_step(targets, logits), helped=number >= 3)
        )
        objective.after_step()
        moved = not tinymodels.same_states(before, objective._helper.state_dict())
        assert moved is (number % 3 == 2)
        assert len(objective._kept) == (number + 1) % 3
    assert not tinymodels.same_states(fresh, objective._helper.state_dict())


def test_the_helper_is_trained_by_adam_on_the_kept_batches() -> None:
    targets = make_targets(8, CLASSES)
    objective = begun(Scaffold(period=2, learning_rate=0.05), targets)
    other = copy.deepcopy(objective)
    optimizer = torch.optim.Adam(other._helper.parameters(), lr=0.05)
    for rows, seed in (([5, 2, 0], 1), ([1, 7], 2)):
        logits = make_logits(len(rows), seed).requires_grad_()
        objective(step_of(logits, targets.keys[rows], targets, torch.tensor(rows)))
        objective.after_step()
        optimizer.zero_grad()
        other.helper_loss(torch.tensor(rows), logits.detach()).backward()
        optimizer.step()
    assert tinymodels.same_states(objective._helper.state_dict(), other._helper.state_dict())


def test_its_turns_lower_the_helpers_loss() -> None:
    targets = make_targets(40, CLASSES)
    objective = begun(Scaffold(period=60, learning_rate=0.01, budget=0.1, last_budget=0.1), targets)
    logits, rows = make_logits(40), torch.arange(40)
    before = objective.helper_loss(rows, logits).item()
    for _ in range(60):
        objective(make_step(targets, logits))
        objective.after_step()
    assert objective._phase == 1
    objective._phase = 0  # the weights of its terms as before
    assert objective.helper_loss(rows, logits).item() < before - 0.1


def test_the_first_weights_come_from_the_runs_seed_alone() -> None:
    first = Helper(8, seed=5).state_dict()
    stream = torch.random.get_rng_state()
    assert tinymodels.same_states(first, Helper(8, seed=5).state_dict())
    assert torch.equal(stream, torch.random.get_rng_state())
    torch.rand(3)
    assert tinymodels.same_states(first, Helper(8, seed=5).state_dict())
    assert not tinymodels.same_states(first, Helper(8, seed=6).state_dict())


@pytest.mark.parametrize("done", [1, 3, 4, 7])
def test_its_state_is_all_that_it_needs_to_go_on(tmp_path: Path, done: int) -> None:
    targets = make_targets(6, CLASSES)

    def steps(objective: Scaffold, numbers: range) -> list[float]:
        values = []
        for number in numbers:
            values.append(objective(make_step(targets, make_logits(6, number))).item())
            objective.after_step()
        return values

    whole = begun(Scaffold(period=3), targets)
    values = steps(whole, range(10))
    killed = begun(Scaffold(period=3), targets)
    steps(killed, range(done))
    torch.save(killed.state_dict(), tmp_path / "state.pt")
    again = begun(Scaffold(period=3), targets)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert steps(again, range(done, 10)) == values[done:]
    assert tinymodels.same_states(again._helper.state_dict(), whole._helper.state_dict())


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
def test_a_fit_lowers_it(tmp_path: Path, tiny_bert: Path, pairs: bool) -> None:
    """Measured without help from the scaffold."""
    rows, targets = tiny_rows(tiny_bert, pairs), tiny_targets()
    student = tinymodels.tiny_student(dropout=0.0)
    term = ObjectiveRecipe("disk", 1.0, {"period": 5})
    fitted = distilled(tmp_path, rows, term, epochs=6, student=student)
    values = []
    for model in (tinymodels.tiny_student(), fitted):
        found = outputs_of(model, rows, "")
        values.append(begun(Scaffold(), targets)(step_of(found.logits, found.embedding, targets)).item())
    assert values[1] < 0.97 * values[0]
    students = (tinymodels.tiny_student(), fitted)
    gold = [cross_entropy(outputs_of(model, rows, "").logits, targets.labels).item() for model in students]
    assert gold[1] < 0.7 * gold[0]
    assert not any("helper" in name for name in fitted.state_dict())


def test_a_killed_and_resumed_fit_gives_the_same_result(tmp_path: Path, tiny_bert: Path) -> None:
    """Within a phase, at its end, and in a later one: twelve steps are three phases."""
    term = ObjectiveRecipe("disk", 1.0, {"period": 4})
    require_same_after_a_kill(tmp_path, tiny_rows(tiny_bert), term, steps=(2, 4, 11))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("teacher_temperature", 0.0),
        ("student_temperature", -1.0),
        ("soft_weight", -0.1),
        ("hard_weight", -0.1),
        ("top", 0),
        ("budget", -0.5),
        ("last_budget", -0.5),
        ("period", 0),
        ("period", 2.5),
        ("learning_rate", 0.0),
    ],
)
def test_invalid_settings_are_refused(name: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=name):
        objectives.build([ObjectiveRecipe("disk", 1.0, {name: value})])
