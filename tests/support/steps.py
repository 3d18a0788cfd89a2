"""Batches of random numbers for the objectives, with all fields of a step."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from reaugkd.export.objectives.base import DistillationStep, Targets


def no_forward(**_inputs: Any) -> Any:
    """A student that the tested objective must not run."""
    raise AssertionError("the student was asked again")


def step_of(
    student_logits: Tensor,
    student_embedding: Tensor,
    targets: Targets,
    rows: Tensor | None = None,
    **changes: Any,
) -> DistillationStep:
    """Return a step of the rows (default: all) of ``targets``."""
    rows = torch.arange(len(student_logits)) if rows is None else rows
    step = DistillationStep(
        number=0,
        rows=rows,
        inputs={},
        student=no_forward,
        student_logits=student_logits,
        student_embedding=student_embedding,
        student_projection=student_embedding,
        student_attentions=(),
        teacher_logits=targets.teacher_logits[rows],
        teacher_embedding=targets.teacher_embeddings[rows],
        teacher_attentions=(),
        keys=targets.keys[rows],
        labels=targets.labels[rows],
    )
    return dataclasses.replace(step, **changes)


def make_targets(
    rows: int, classes: int = 4, dim: int = 6, hidden: int = 8, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Targets:
    """Return random targets for a number of rows."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return Targets(
        teacher_logits=2 * draw(rows, classes),
        teacher_embeddings=draw(rows, hidden),
        keys=normalize(draw(rows, dim), dim=-1),
        labels=torch.randint(classes, (rows,), generator=generator),
    )


def make_step(
    rows: int, classes: int = 4, dim: int = 6, seed: int = 0, grad: bool = False, dtype: torch.dtype = torch.float64
) -> DistillationStep:
    """Return a step of random numbers; with ``grad`` the student's outputs require gradients."""
    generator = torch.Generator().manual_seed(seed + 1)
    logits = torch.randn(rows, classes, generator=generator, dtype=dtype).requires_grad_(grad)
    projection = torch.randn(rows, dim, generator=generator, dtype=dtype)
    embedding = normalize(projection, dim=-1).requires_grad_(grad)
    targets = make_targets(rows, classes, dim, seed=seed, dtype=dtype)
    return step_of(logits, embedding, targets, student_projection=projection.requires_grad_(grad))
