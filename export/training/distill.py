"""Initialise and distil the student (ReAugKD, step 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .. import objectives
from ..modeling.checkpoint import ChosenPooling, load_encoder
from ..modeling.encoder import Detailed, EncoderClassifier, HeadConfig, choose_pooling
from ..modeling.execution.distributed import processes
from ..modeling.execution.tokens import TokenRows
from ..modeling.execution.training_loop import FitJob, Forward, Step, fit, in_precision
from ..modeling.layers import copy_layers, default_layers
from ..modeling.projection import LinearLayer
from ..modeling.teacher import FineTunedTeacher
from ..objectives.base import Targets
from ..recipe import Recipe, StudentRecipe


def start_student(
    teacher: nn.Module,
    projection: LinearLayer,
    num_labels: int,
    recipe: StudentRecipe,
    attention: str | None = None,
    general_dim: int | None = None,
) -> EncoderClassifier:
    """Make the student before its distillation.

    A student that starts from the teacher's layers inherits their weights, and the teacher's classifier and projection
    head if their shapes match. From another model, only the encoder is used.

    Args:
        teacher: a model with an ``encoder``.
        projection: the projection head of the keys; the student's head has a bias if this one has.
        num_labels: number of classes.
        recipe: layers or model to start from.
        attention: attention implementation of another model, see ``load_encoder``; the teacher's layers keep theirs.
        general_dim: dimension of the general embedding; None for none.
    """
    if recipe.model:
        encoder = load_encoder(recipe.model, attention)
    else:
        source: PreTrainedModel = teacher.encoder
        encoder = copy_layers(source, recipe.layers or default_layers(source))
    pooling = choose_pooling(recipe.pooling, recipe.model, encoder) if recipe.model else pooling_of(teacher)
    dim, bias = len(projection.weight), projection.bias is not None
    shape = HeadConfig(num_labels, pooling, dim, recipe.dropout, bias, general_dim=general_dim)
    student = EncoderClassifier(encoder, shape)
    if not recipe.model:
        _inherit_heads(student, teacher, projection)
    return student


def pooling_of(teacher: nn.Module) -> ChosenPooling:
    """Return the pooling of a teacher, fine-tuned here or elsewhere."""
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
    """Fit the student in place by the recipe's objectives.

    Args:
        student: from ``start_student``.
        load_teacher: loads the teacher; called only if an objective runs it during the distillation. If an objective
            needs ``"attentions"``, student and teacher must be loaded with the objectives' ``attention``.
        rows: n rows of tokens.
        targets: the teacher's outputs for the rows.
        recipe: the recipe with the objectives.
        job: see ``fit``.
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
        options = {"output_attentions": True} if "attentions" in self.total.needs else {}
        found: Detailed = step.forward(detailed=True, **step.inputs, **options)
        taught: tuple[Tensor, ...] = ()
        if options and self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(detailed=True, **step.inputs, **options).attentions
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
                student_general=found.general,
                pretrained=None if self.targets.pretrained is None else self.targets.pretrained[step.rows],
                batch=step.batch,
                batch_keys=None if step.batch is None else self.targets.keys[step.batch.rows],
            )
        )
