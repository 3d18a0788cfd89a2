from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from support import tiny_models as tinymodels
from support.steps import make_step, make_targets, step_of
from torch import Tensor
from torch.nn.functional import normalize

from reaugkd.errors import RecipeError
from reaugkd.export import objectives
from reaugkd.export.objectives.base import Distillation, DistillationStep, Targets
from reaugkd.export.objectives.compress import CompRess
from reaugkd.export.objectives.reaugkd import Relation
from reaugkd.export.recipe import ObjectiveRecipe


def begun(objective: CompRess, targets: Targets, seed: int = 0) -> CompRess:
    student = tinymodels.tiny_student()
    objective.begin(Distillation(student, None, None, targets, seed, "fp32"))
    return objective


def step_on(targets: Targets, rows: list[int], seed: int = 9, grad: bool = False) -> DistillationStep:
    """A step of some rows of the targets, the student answering at random."""
    generator = torch.Generator().manual_seed(seed)
    dtype = targets.keys.dtype
    logits = torch.randn(len(rows), targets.teacher_logits.shape[1], generator=generator, dtype=dtype)
    queries = normalize(torch.randn(len(rows), targets.keys.shape[1], generator=generator, dtype=dtype), dim=-1)
    return step_of(logits, queries.requires_grad_(grad), targets, torch.tensor(rows))


def by_hand(step: DistillationStep, keys: np.ndarray, anchors: list[int], tau: float, include_self: bool) -> float:
    """The formula row by row, over the anchors that count."""
    total = 0.0
    for row, key, query in zip(step.rows.tolist(), step.keys.numpy(), step.student_embedding.numpy(), strict=True):
        chosen = keys[[anchor for anchor in anchors if include_self or anchor != row]]
        if len(chosen):
            p, q = np.exp(chosen @ key / tau), np.exp(chosen @ query / tau)
            p, q = p / p.sum(), q / q.sum()
            total += float((p * np.log(p / q)).sum())
    return total / len(step.rows)


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("temperature", [0.04, 0.5])
@pytest.mark.parametrize("rows", [[0], [3, 1, 8], [5, 5, 19], list(range(20))])
def test_every_key_is_an_anchor(rows: list[int], temperature: float, include_self: bool) -> None:
    targets = make_targets(20)
    step = step_on(targets, rows)
    found = begun(CompRess(20, temperature, include_self), targets)(step)
    expected = by_hand(step, targets.keys.numpy(), list(range(20)), temperature, include_self)
    assert found.item() == pytest.approx(expected, rel=1e-9) and found.item() > 0.01


def test_keys_are_not_copied_where_all_are_anchors() -> None:
    targets = make_targets(30)
    objective = begun(CompRess(30), targets)
    assert objective._keys.data_ptr() == targets.keys.data_ptr()


@pytest.mark.parametrize("include_self", [False, True])
def test_a_sample_of_anchors_is_drawn_once_by_the_seed(include_self: bool) -> None:
    targets = make_targets(40)
    objective = begun(CompRess(7, 0.1, include_self), targets, seed=3)
    anchors = objective._rows.tolist()
    assert len(set(anchors)) == 7 and set(anchors) <= set(range(40))
    # Rows that are anchors and rows that are not.
    step = step_on(targets, [*anchors[:3], *sorted(set(range(40)) - set(anchors))[:3]])
    expected = by_hand(step, targets.keys.numpy(), anchors, 0.1, include_self)
    assert objective(step).item() == pytest.approx(expected, rel=1e-9)
    assert begun(CompRess(7), targets, seed=3)._rows.tolist() == anchors
    assert begun(CompRess(7), targets, seed=4)._rows.tolist() != anchors


@given(rows=st.integers(2, 12), seed=st.integers(0, 10**6), tau=st.floats(0.02, 2.0), include_self=st.booleans())
@examples(max_examples=50, deadline=None)
def test_with_the_batch_as_the_whole_knowledge_base_it_is_the_relation(
    rows: int, seed: int, tau: float, include_self: bool
) -> None:
    targets = make_targets(rows, seed=seed)
    step = step_on(targets, list(range(rows)), seed + 1)
    found = begun(CompRess(rows, tau, include_self), targets)(step)
    torch.testing.assert_close(found, Relation(tau, include_self)(step), rtol=1e-9, atol=1e-12)


@given(rows=st.integers(1, 12), anchors=st.integers(1, 15), seed=st.integers(0, 10**6), include_self=st.booleans())
@examples(max_examples=50, deadline=None)
def test_never_negative_and_zero_where_the_query_is_the_key(
    rows: int, anchors: int, seed: int, include_self: bool
) -> None:
    targets = make_targets(rows, seed=seed)
    objective = begun(CompRess(anchors, 0.04, include_self), targets, seed)
    step = step_on(targets, list(range(rows)), seed)
    assert objective(step).item() >= -1e-12
    same = step_of(step.student_logits, targets.keys.clone(), targets)
    assert objective(same).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("anchors", [3, 12])
def test_gradients_are_right(anchors: int, include_self: bool) -> None:
    targets = make_targets(12)
    objective = begun(CompRess(anchors, 0.3, include_self), targets)
    step = step_on(targets, [0, 4, 11, 4], grad=True)

    def of(embedding: Tensor) -> Tensor:
        return objective(step_of(step.student_logits, embedding, targets, step.rows))

    assert torch.autograd.gradcheck(of, (step.student_embedding,))


DEGENERATE: dict[str, dict[str, Any]] = {
    "one row, itself the only anchor": {"rows": 1, "batch": [0]},
    "one anchor": {"rows": 9, "batch": [0, 1, 2, 3, 4, 5, 6, 7, 8], "anchors": 1},
    "more anchors than rows": {"rows": 3, "batch": [0, 1, 2], "anchors": 10**6},
    "all rows the same": {"rows": 6, "batch": [0, 1, 2, 3], "equal": True},
    "a row twice in the batch": {"rows": 2, "batch": [1, 1]},
}


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_batches_give_finite_losses_and_gradients(case: str, include_self: bool) -> None:
    settings = DEGENERATE[case]
    targets = make_targets(settings["rows"], dtype=torch.float32)
    if settings.get("equal"):
        targets.keys.copy_(targets.keys[:1].clone())
    step = step_on(targets, settings["batch"], grad=True)
    loss = begun(CompRess(settings.get("anchors", 16384), include_self=include_self), targets)(step)
    assert loss.shape == () and torch.isfinite(loss) and loss.requires_grad
    loss.backward()
    assert step.student_embedding.grad is not None and torch.isfinite(step.student_embedding.grad).all()


def test_a_row_without_another_anchor_has_no_part() -> None:
    targets = make_targets(1)
    step = step_on(targets, [0], grad=True)
    loss = begun(CompRess(), targets)(step)
    loss.backward()
    assert loss.item() == 0.0 and step.student_embedding.grad is not None
    assert not step.student_embedding.grad.any()


def test_descent_brings_queries_to_their_keys() -> None:
    """Far anchors are many enough to say where a key is, without the key itself among them."""
    targets = make_targets(200, dim=4)
    objective = begun(CompRess(200, 0.2), targets)
    rows = torch.arange(16)
    free = make_step(16, dim=4, seed=5).student_projection.clone().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=0.05)
    before = (normalize(free.detach(), dim=-1) * targets.keys[:16]).sum(dim=-1).mean().item()
    for _ in range(150):
        loss = objective(step_of(targets.teacher_logits[rows], normalize(free, dim=-1), targets, rows))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = (normalize(free.detach(), dim=-1) * targets.keys[:16]).sum(dim=-1)
    assert before < 0.5 and after.min().item() > 0.98


@pytest.mark.parametrize(
    "settings", [{"anchors": 0}, {"temperature": 0.0}, {"temperature": -1.0}, {"anchors": 2.5}, {"bank": 3}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(settings))):
        objectives.build([ObjectiveRecipe("compress", 1.0, settings)])
