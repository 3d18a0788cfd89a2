from __future__ import annotations

import itertools
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny_models as tinymodels
from support.steps import make_targets, step_of
from torch import Tensor, nn
from torch.nn.functional import normalize

from reaugkd.errors import RecipeError
from reaugkd.export import objectives
from reaugkd.export.modeling.encoder import EncoderClassifier, Outputs
from reaugkd.export.modeling.execution.tokens import TokenRows
from reaugkd.export.modeling.execution.training_loop import FitJob
from reaugkd.export.objectives.base import Distillation, DistillationStep, Targets
from reaugkd.export.objectives.compress_2q import CompRess2q
from reaugkd.export.recipe import ObjectiveRecipe
from reaugkd.export.training.distill import distil

ROWS, DIM, FEATURES = 30, 6, 5
STEPS = 12  # 3 epochs of 4 batches


class KilledError(Exception):
    """An exception that stands for a signal."""


class Linear(nn.Module):
    """A student that numpy can follow: a normalised linear map of given features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(FEATURES, DIM, bias=False)
        self.drop = nn.Dropout(0.5)

    def forward(self, *, detailed: bool = False, features: Tensor) -> Outputs:
        embedding = normalize(self.map(self.drop(features)), dim=-1)
        return Outputs(embedding, embedding)


def begun(objective: CompRess2q, student: Any, targets: Targets) -> CompRess2q:
    objective.begin(Distillation(student, None, None, targets, 0, "fp32"))
    return objective


def make_features() -> Tensor:
    return torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(2))


def step_on(targets: Targets, rows: list[int], queries: Tensor) -> DistillationStep:
    inputs = {"features": make_features()[rows]}
    return step_of(targets.teacher_logits[rows], queries, targets, torch.tensor(rows), inputs=inputs)


def random_queries(rows: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, DIM, generator=generator, dtype=torch.float64), dim=-1)


def batches() -> list[list[int]]:
    """Three epochs in another order each, the last batch of an epoch shorter than the others."""
    rng = np.random.default_rng(0)
    return [part.tolist() for _ in range(3) for part in np.split(rng.permutation(ROWS), [8, 16, 24])]


def softmax(scores: np.ndarray) -> np.ndarray:
    exponents = np.exp(scores - scores.max())
    return exponents / exponents.sum()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("length", [1, 5, 20, 16384])
def test_the_queues_and_the_momentum_step_by_step(length: int, momentum: float) -> None:
    """The method again with a deque of (row, the teacher's key, the slow student's key) and float64 weights."""
    targets, student, tau = make_targets(ROWS, dim=DIM), Linear(), 0.2
    objective = begun(CompRess2q(length, tau, momentum), student, targets)
    queue: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=min(length, ROWS))
    slow = student.map.weight.detach().double().numpy().copy()
    losses = []
    for number, rows in enumerate(batches()):
        queries = random_queries(len(rows), number)
        expected = 0.0
        for row, query in zip(rows, queries.numpy(), strict=True):
            seen = [(teacher, own) for other, teacher, own in queue if other != row]
            if seen:
                p = softmax(np.array([teacher @ targets.keys[row].numpy() for teacher, _ in seen]) / tau)
                q = softmax(np.array([own @ query for _, own in seen]) / tau)
                expected += float((p * np.log(p / q)).sum()) / len(rows)
        found = objective(step_on(targets, rows, queries)).item()
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)
        losses.append(found)
        for row in rows:
            own = slow @ make_features()[row].double().numpy()
            queue.append((row, targets.keys[row].numpy(), own / np.linalg.norm(own)))
        with torch.no_grad():  # as an optimizer would
            student.map.weight += 0.1 * torch.randn(DIM, FEATURES, generator=torch.Generator().manual_seed(number))
        slow = momentum * slow + (1 - momentum) * student.map.weight.detach().double().numpy()
        objective.after_step()
        np.testing.assert_allclose(objective._slow.map.weight.numpy(), slow, atol=1e-6)
    assert losses[0] == 0.0 and (length == 1 or min(losses[1:]) > 0.0)


def test_with_empty_queues_it_is_zero_and_still_part_of_the_graph() -> None:
    targets = make_targets(ROWS, dim=DIM)
    objective = begun(CompRess2q(), Linear(), targets)
    queries = random_queries(4).requires_grad_()
    loss = objective(step_on(targets, [0, 1, 2, 3], queries))
    loss.backward()
    assert loss.item() == 0.0 and queries.grad is not None and not queries.grad.any()


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [7, 8, 9], [3, 20, 20]])
def test_gradients_are_right(rows: list[int]) -> None:
    targets = make_targets(ROWS, dim=DIM)
    objective = begun(CompRess2q(10, 0.3), Linear(), targets)
    objective(step_on(targets, list(range(8)), random_queries(8)))
    objective.after_step()
    assert torch.autograd.gradcheck(
        lambda queries: objective(step_on(targets, rows, queries)), (random_queries(len(rows)).requires_grad_(),)
    )


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("equal", [False, True])
def test_few_rows_and_equal_rows(rows: int, equal: bool) -> None:
    """With one row there is no other row to compare with."""
    targets = make_targets(rows, dim=DIM)
    if equal:
        targets.keys.copy_(targets.keys[:1].clone())
    objective = begun(CompRess2q(), Linear(), targets)
    for number in range(4):
        queries = random_queries(rows, number).requires_grad_()
        loss = objective(step_on(targets, list(range(rows)), queries))
        loss.backward()
        assert torch.isfinite(loss) and queries.grad is not None and torch.isfinite(queries.grad).all()
        # With two rows each has one other, whose share is 1 whatever the query.
        assert (loss.item() > 1e-6) is (number > 0 and rows > 2)
        objective.after_step()


def test_the_copy_has_no_gradient_and_no_dropout() -> None:
    student = Linear().train()
    objective = begun(CompRess2q(), student, make_targets(ROWS, dim=DIM))
    assert student.training and all(value.requires_grad for value in student.parameters())
    assert not objective._slow.training and not any(value.requires_grad for value in objective._slow.parameters())
    before = student.map.weight.detach().clone()
    with torch.no_grad():
        student.map.weight.add_(1.0)
    assert torch.equal(objective._slow.map.weight, before)


@pytest.mark.parametrize(
    "settings", [{"queue": 0}, {"temperature": 0.0}, {"momentum": 1.0}, {"momentum": -0.1}, {"anchors": 3}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(settings))):
        objectives.build([ObjectiveRecipe("compress_2q", 1.0, settings)])


# In a fit, by the recipe.

TERMS = (ObjectiveRecipe("compress_2q", 1.0, {"queue": 40, "momentum": 0.8}), ObjectiveRecipe("soft_labels"))


@pytest.fixture(scope="module")
def token_rows(tiny_bert: Path) -> TokenRows:
    return tinymodels.tokens_of(tinymodels.make_split(60, 5).inputs(), tiny_bert)


def distilled(folder: Path, rows: TokenRows, *extra: ObjectiveRecipe) -> EncoderClassifier:
    student = tinymodels.tiny_student(dropout=0.2)
    recipe = tinymodels.tiny_recipe(objectives=(*TERMS, *extra))
    fit = tinymodels.fast_fit(3, freeze_word_embeddings=True)
    job = FitJob("student", fit, 0, "fp32", folder / "student.pt", 0.0)
    distil(student, tinymodels.tiny_student, rows, make_targets(60, 3, 16, 32, dtype=torch.float32), recipe, job)
    return student


@pytest.fixture(scope="module")
def whole(token_rows: TokenRows, tmp_path_factory: pytest.TempPathFactory) -> EncoderClassifier:
    return distilled(tmp_path_factory.mktemp("whole"), token_rows)


def kill(folder: Path, rows: TokenRows, number: int) -> None:
    """Let a fit run until it is killed in its step of that number."""
    calls = itertools.count()

    class Deadly(objectives.Objective):
        def __call__(self, step: DistillationStep) -> Tensor:
            if next(calls) == number:
                raise KilledError
            return step.student_logits.new_zeros(())

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(objectives.registry._REGISTRY, "deadly", Deadly)
        with pytest.raises(KilledError):
            distilled(folder, rows, ObjectiveRecipe("deadly"))
    # The checkpoint of a fit with one term more: its nothing is taken out again.
    saved = torch.load(folder / "student.pt", weights_only=True)
    saved["companion"]["terms"].pop()
    torch.save(saved, folder / "student.pt")


@pytest.mark.parametrize("step", [1, 5, STEPS - 1])
def test_killed_and_started_again_it_ends_the_same(
    token_rows: TokenRows, whole: EncoderClassifier, tmp_path: Path, step: int
) -> None:
    kill(tmp_path, token_rows, step)
    saved = torch.load(tmp_path / "student.pt", weights_only=True)
    assert saved["step"] == step
    assert not any("word_embeddings" in name for name in saved["companion"]["terms"][0]["slow"])
    torch.rand(step)
    again = distilled(tmp_path, token_rows)
    assert tinymodels.same_states(again.state_dict(), whole.state_dict())


@pytest.mark.parametrize("forgotten", ["queues", "slow"])
def test_the_saved_state_affects_the_result(
    token_rows: TokenRows, whole: EncoderClassifier, tmp_path: Path, forgotten: str
) -> None:
    kill(tmp_path, token_rows, 5)
    saved = torch.load(tmp_path / "student.pt", weights_only=True)
    memory = saved["companion"]["terms"][0]
    if forgotten == "queues":
        memory["queues"]["added"] = 0
    else:
        memory["slow"] = {}
    torch.save(saved, tmp_path / "student.pt")
    assert not tinymodels.same_states(distilled(tmp_path, token_rows).state_dict(), whole.state_dict())
