"""Initialise and distil the student (ReAugKD, step 2)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .. import objectives
from ..modeling.distributed import processes
from ..modeling.encoder import Detailed, EncoderClassifier, HeadConfig, keep_layers, load_encoder
from ..modeling.projection import LinearLayer
from ..modeling.teacher import FineTunedTeacher
from ..modeling.tokens import TokenRows
from ..modeling.training_loop import FitJob, Forward, Step, fit, in_precision
from ..objectives.base import Targets
from ..recipe import Pooling, Recipe, StudentRecipe


def default_layers(count: int) -> tuple[int, ...]:
    """Every second of ``count`` layers, the last among them: 0-based."""
    return tuple(range(1 - count % 2, count, 2)) if count > 1 else (0,)


def start_student(
    teacher: nn.Module, projection: LinearLayer, num_labels: int, recipe: StudentRecipe, attention: str | None = None
) -> EncoderClassifier:
    """The student before its distillation.

    From the teacher's layers it inherits their weights, and the classifier and projection head where the teacher has
    them in the same shape; from another model only the encoder is taken.

    Args:
        teacher: with an ``encoder``.
        projection: the keys' head; the student's has a bias where this one has.
        num_labels: c.
        recipe: layers or model.
        attention: of another model, see ``load_encoder``; the teacher's layers keep the teacher's.
    """
    if recipe.model:
        encoder = load_encoder(recipe.model, attention)
    else:
        source: PreTrainedModel = teacher.encoder
        encoder = keep_layers(copy.deepcopy(source), recipe.layers or default_layers(source.config.num_hidden_layers))
    pooling = recipe.pooling if recipe.model else pooling_of(teacher)
    dim, bias = len(projection.weight), projection.bias is not None
    student = EncoderClassifier(encoder, HeadConfig(num_labels, pooling, dim, recipe.dropout, bias))
    if not recipe.model:
        _inherit_heads(student, teacher, projection)
    return student


def pooling_of(teacher: nn.Module) -> Pooling:
    """The pooling of a teacher of either kind."""
    if isinstance(teacher, EncoderClassifier):
        return teacher.head.pooling
    assert isinstance(teacher, FineTunedTeacher)
    return teacher.pooling


def _inherit_heads(student: EncoderClassifier, teacher: nn.Module, projection: LinearLayer) -> None:
    assert student.projection is not None
    with torch.no_grad():
        if student.projection.weight.shape == projection.weight.shape:
            student.projection.weight.copy_(projection.weight)
            if projection.bias is not None:
                student.projection.bias.copy_(projection.bias)
        if isinstance(teacher, EncoderClassifier):
            student.classifier.load_state_dict(teacher.classifier.state_dict())


def distil(
    student: EncoderClassifier,
    load_teacher: Callable[[], nn.Module],
    rows: TokenRows,
    targets: Targets,
    recipe: Recipe,
    job: FitJob,
) -> None:
    """Fit the student, in place, by the recipe's objectives.

    Args:
        student: as ``start_student`` gives it.
        load_teacher: called if an objective runs the teacher on inputs that are not rows of the data. Where
            one needs ``"attentions"``, student and teacher are loaded with the objectives' ``attention``.
        rows: n rows of tokens.
        targets: the teacher's outputs for them.
        recipe: its objectives.
        job: see fit.
    """
    total = objectives.build(recipe.objectives)
    device = processes().device
    here = targets.to(device)
    teacher = load_teacher() if total.needs & {"teacher", "attentions"} else None
    if teacher is not None:
        teacher.requires_grad_(False).to(device).eval()
    forward = None if teacher is None else in_precision(teacher, job.precision, device)
    total.begin(objectives.Distillation(student.to(device), teacher, forward, here, recipe.seed, job.precision))
    fit(student, rows, _Loss(total, here, forward), job, total)


@dataclass(frozen=True)
class _Loss:
    """The weighted sum of the objectives, as the loss of a training step."""

    total: objectives.WeightedSum
    targets: Targets
    teacher: Forward | None

    def __call__(self, step: Step) -> Tensor:
        asked = {"output_attentions": True} if "attentions" in self.total.needs else {}
        found: Detailed = step.forward(detailed=True, **step.inputs, **asked)
        taught: tuple[Tensor, ...] = ()
        if asked and self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(detailed=True, **step.inputs, **asked).attentions
        return self.total(
            objectives.DistillationStep(
                number=step.number,
                rows=step.rows,
                inputs=step.inputs,
                student=step.forward,
                student_logits=found.logits,
                student_embedding=found.embedding,
                student_projection=found.projection,
                student_attentions=found.attentions,
                teacher_logits=self.targets.teacher_logits[step.rows],
                teacher_embedding=self.targets.teacher_embeddings[step.rows],
                teacher_attentions=taught,
                keys=self.targets.keys[step.rows],
                labels=self.targets.labels[step.rows],
            )
        )
