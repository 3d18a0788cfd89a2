from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from reaugkd.export.modeling.contrastive_loss import supervised_contrastive


def draw(rows: int, dim: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=generator, dtype=dtype), dim=-1)


def by_hand(embeddings: np.ndarray, labels: list[int], temperature: float) -> float:
    """L_out of Khosla et al., one pair at a time; rows without a positive do not count."""
    per_row = []
    for i in range(len(labels)):
        others = [a for a in range(len(labels)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        if not positives:
            continue
        scores = {a: float(embeddings[i] @ embeddings[a]) / temperature for a in others}
        top = max(scores.values())
        log_sum = top + math.log(math.fsum(math.exp(score - top) for score in scores.values()))
        per_row.append(-math.fsum(scores[p] - log_sum for p in positives) / len(positives))
    return math.fsum(per_row) / len(per_row) if per_row else 0.0


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize(
    "labels", [[0, 0], [0, 0, 1, 1], [0, 1, 0, 2, 0, 1], [0, 0, 0, 0, 0], [0, 1, 2, 0], [3, 1, 1, 1, 2]]
)
def test_it_is_the_published_formula(labels: list[int], temperature: float) -> None:
    embeddings = draw(len(labels), seed=len(labels))
    found = supervised_contrastive(embeddings, torch.tensor(labels), temperature).item()
    assert found == pytest.approx(by_hand(embeddings.numpy(), labels, temperature), rel=1e-10, abs=1e-12)


def test_a_row_without_positives_is_not_averaged_but_is_a_negative() -> None:
    embeddings = draw(3)
    both = supervised_contrastive(embeddings, torch.tensor([0, 0, 1]), 0.3).item()
    s01, s02, s12 = (float(embeddings[a] @ embeddings[b]) / 0.3 for a, b in ((0, 1), (0, 2), (1, 2)))
    first = -s01 + math.log(math.exp(s01) + math.exp(s02))
    second = -s01 + math.log(math.exp(s01) + math.exp(s12))
    assert both == pytest.approx((first + second) / 2, rel=1e-12)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=10), st.integers(0, 10**6), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_any_batch(labels: list[int], seed: int, temperature: float) -> None:
    embeddings = draw(len(labels), seed=seed)
    found = supervised_contrastive(embeddings, torch.tensor(labels), temperature).item()
    assert found == pytest.approx(by_hand(embeddings.numpy(), labels, temperature), rel=1e-8, abs=1e-10)
    assert found >= -1e-12
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    shuffled = supervised_contrastive(embeddings[order], torch.tensor(labels)[order], temperature).item()
    assert shuffled == pytest.approx(found, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("labels", [[0], [0, 1], [0, 0], [0, 0, 0, 0], [0, 1, 2, 3]])
def test_degenerate_batches_give_finite_gradients(labels: list[int]) -> None:
    embeddings = draw(len(labels), dtype=torch.float32).requires_grad_()
    loss = supervised_contrastive(embeddings, torch.tensor(labels), 0.07)
    loss.backward()
    assert torch.isfinite(loss)
    assert embeddings.grad is not None and torch.isfinite(embeddings.grad).all()
    if len(set(labels)) == len(labels):  # no positives, so no gradient
        assert loss.item() == 0.0
        assert not embeddings.grad.any()


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2], [0, 1, 2, 0], [1, 1, 1, 1]])
def test_the_gradient_is_right(labels: list[int]) -> None:
    embeddings = draw(len(labels)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: supervised_contrastive(x, torch.tensor(labels), 0.2), (embeddings,))


def test_the_loss_is_low_for_separated_classes_and_high_for_mixed_ones() -> None:
    apart = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 1]]
    mixed = torch.eye(4, dtype=torch.float64)[[0, 1, 0, 1]]
    labels = torch.tensor([0, 0, 1, 1])
    assert supervised_contrastive(apart, labels, 0.07).item() < 1e-4
    assert supervised_contrastive(mixed, labels, 0.07).item() > 5.0
