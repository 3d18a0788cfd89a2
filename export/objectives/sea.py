"""SEA (Srivastava et al., ICASSP 2021): the student approximates the teacher's embedding, reduced."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from ..modeling.projection import fit_pca, require_reducible
from ..recipe import Recipe
from .base import Distillation, DistillationStep, Objective
from .registry import register


@register("sea")
@dataclass
class Sea(Objective):
    """mean_i ||f_S(x_i) - phi(f_T(x_i))||^2.

    f_S is the student's embedding before its normalisation, f_T the teacher's, phi their principal components (the
    paper's choice over UMAP) over all training rows, scaled to a mean squared length of 1: a student that answers 0
    has a loss of 1 (the paper's phi is the identity where the student is as wide as the teacher; this one centres,
    rotates and scales there too). With ``method = "pca"`` in the recipe's ``[projection]`` the keys are phi's too,
    normalised, and the queries fall among them; with other keys they would be drawn away from them.
    """

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel, recipe: Recipe) -> None:
        """Raises RecipeError where the student's embedding has more dimensions than the teacher's."""
        require_reducible(recipe.projection.embedding_dim, teacher.config.hidden_size)

    def begin(self, distillation: Distillation) -> None:
        """Fit phi."""
        targets = distillation.targets
        self._reduce = fit_pca(targets.teacher_embeddings, targets.keys.shape[1]).to(targets.keys.device)

    def __call__(self, step: DistillationStep) -> Tensor:
        """The term for a batch, a scalar."""
        return (step.student_projection - self._reduce(step.teacher_embedding)).pow(2).sum(dim=-1).mean()
