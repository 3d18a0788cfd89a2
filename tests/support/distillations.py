"""Small distillations for the tests of single objectives: fit, kill, resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from reaugkd.export import objectives
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.execution.tokens import TokenRows
from reaugkd.export.modeling.execution.training_loop import FitJob
from reaugkd.export.objectives.base import Distillation, DistillationStep, Objective, Targets
from reaugkd.export.recipe import ObjectiveRecipe
from reaugkd.export.training.distill import distil
from support import tiny_models as tinymodels

ROWS = 60


class KilledError(Exception):
    """Simulates a signal; the code must not handle it."""


@dataclass
class Bomb(Objective):
    """Stops the fit at a given step."""

    at: int = -1

    def __call__(self, step: DistillationStep) -> Tensor:
        if step.number == self.at:
            raise KilledError
        return step.student_logits.new_zeros(())


def tiny_rows(folder: Path, pairs: bool = False) -> TokenRows:
    """Return sixty rows of three classes, alternating."""
    return tinymodels.tokens_of(tinymodels.make_split(ROWS, 5, pairs).inputs(), folder)


def tiny_targets() -> Targets:
    """Return the outputs of a teacher that is mostly right."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(ROWS) % 3
    return Targets(
        teacher_logits=3 * torch.eye(3)[labels] + torch.randn(ROWS, 3, generator=generator),
        teacher_embeddings=torch.randn(ROWS, tinymodels.HIDDEN, generator=generator),
        keys=normalize(torch.randn(ROWS, 16, generator=generator), dim=-1),
        labels=labels,
        pretrained=normalize(torch.randn(ROWS, tinymodels.HIDDEN, generator=generator), dim=-1),
    )


def tiny_teacher() -> EncoderClassifier:
    """A random teacher of four layers."""
    return with_attention_maps(tinymodels.tiny_student(embedding_dim=None, seed=4))


def with_attention_maps(model: EncoderClassifier) -> EncoderClassifier:
    """Change a model's attention to the implementation that returns its maps."""
    model.encoder.set_attn_implementation("eager")
    return model


def distilled(
    folder: Path,
    rows: TokenRows,
    *terms: ObjectiveRecipe,
    kill_at: int = -1,
    epochs: int = 3,
    student: EncoderClassifier | None = None,
    load_teacher: Callable[[], nn.Module] = tiny_teacher,
) -> EncoderClassifier:
    """The student after its distillation by ``terms``, saved after each step; KilledError in step ``kill_at``."""
    student = with_attention_maps(tinymodels.tiny_student(dropout=0.2) if student is None else student)
    recipe = tinymodels.tiny_recipe(objectives=(*terms, ObjectiveRecipe("bomb", 0.0, {"at": kill_at})))
    job = FitJob("student", tinymodels.fast_fit(epochs), 0, "fp32", folder / "checkpoints" / "student.pt", 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(objectives.registry._REGISTRY, "bomb", Bomb)
        distil(student, load_teacher, rows, tiny_targets(), recipe, job)
    return student


def distillation_of(student: EncoderClassifier, teacher: nn.Module, targets: Targets, seed: int = 0) -> Distillation:
    """Return the input of an objective before the first step, in float32 on the CPU."""
    return Distillation(student, teacher, teacher, targets, seed, "fp32")


def require_same_after_a_kill(folder: Path, rows: TokenRows, *terms: ObjectiveRecipe, steps: tuple[int, ...]) -> None:
    """Assert that a fit killed in each of ``steps`` gives the same result, bit for bit, as an uninterrupted one."""
    whole = distilled(folder / "whole", rows, *terms)
    for step in steps:
        with pytest.raises(KilledError):
            distilled(folder / "killed", rows, *terms, kill_at=step)
        torch.rand(step + 1)  # another process would have drawn other numbers
    again = distilled(folder / "killed", rows, *terms)
    assert tinymodels.same_states(again.state_dict(), whole.state_dict())
