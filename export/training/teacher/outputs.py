"""Cached teacher outputs of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ....errors import RecipeError
from ...recipe import RetrievalRecipe
from ..run_folder import RunFolder


@dataclass(frozen=True)
class TeacherOutputs:
    """The teacher's outputs for n rows.

    Args:
        logits: [n, c].
        embeddings: [n, hidden]; hidden is 0 if the teacher is a file without embeddings.
        gold: [n], int64, gold labels, -1 for none, if the teacher is a file; None if every row has a gold label.
    """

    logits: Tensor
    embeddings: Tensor
    gold: Tensor | None = None


def require_keys(recipe: RetrievalRecipe, path: Path) -> None:
    """Check that a recipe's keys do not need the embeddings of a teacher that has none.

    Args:
        recipe: the source of the keys.
        path: the teacher's file or the run, for the error.

    Raises:
        RecipeError: they do.
    """
    if recipe.keys != "student":
        raise RecipeError(
            "the teacher's keys need its embeddings",
            path=path,
            found=f"keys {recipe.keys!r}, and a teacher in a file without embeddings",
            expected="keys 'student'",
            remedy='Set keys = "student" in the recipe\'s [retrieval], or add an embedding to every row of the file.',
        )


def load_outputs(run: RunFolder) -> dict[str, TeacherOutputs]:
    """Read the teacher's cached outputs for ``train`` and ``heldout``."""
    files = {name: load_file(str(run.teacher_outputs / f"{name}.safetensors")) for name in ("train", "heldout")}
    return {name: TeacherOutputs(**tensors) for name, tensors in files.items()}
