"""SEA (Srivastava et al., ICASSP 2021): squared distance to the teacher's embedding, reduced by PCA."""

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
    """Squared distance of the student's embedding to the teacher's reduced one: mean_i ||f_S(x_i) - phi(f_T(x_i))||^2.

    f_S is the student's embedding before its normalisation, f_T the teacher's embedding, and phi the projection to the
    principal components over all training rows (which the paper prefers to UMAP), scaled to a mean squared length of 1.
    So a student with output 0 has a loss of 1. In the paper, phi is the identity if student and teacher have the same
    width; here phi centres, rotates and scales in this case too. Use ``method = "pca"`` in the recipe's
    ``[projection]``: then the keys are the normalised phi(f_T), near the queries. This term would move queries away
    from other keys.
    """

    needs = frozenset({"embeddings"})

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel, recipe: Recipe) -> None:
        """Check the dimensions.

        Raises:
            RecipeError: the student's embedding has more dimensions than the teacher's.
        """
        require_reducible(recipe.projection.embedding_dim, teacher.config.hidden_size)

    def begin(self, distillation: Distillation) -> None:
        """Fit phi on the teacher's embeddings."""
        targets = distillation.targets
        self._reduce = fit_pca(targets.teacher_embeddings, targets.keys.shape[1]).to(targets.keys.device)

    def __call__(self, step: DistillationStep) -> Tensor:
        """Return the loss term of a batch, a scalar."""
        return (step.student_projection - self._reduce(step.teacher_embedding)).pow(2).sum(dim=-1).mean()
