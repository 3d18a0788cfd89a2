"""Cached teacher outputs of a run, and cross-fitted ones from teachers that were fitted without the row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ...errors import DataError, RecipeError
from ..recipe import RetrievalRecipe
from ..recipe_file import recipe_from_dict
from .run_folder import RunFolder


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


def load_cross_fitted(run: RunFolder) -> Tensor | None:
    """Read the cross-fitted logits [n, c] of the n train rows; None if the run has none.

    Raises:
        DataError: the folds do not cover each row once.
    """
    retrieval = recipe_from_dict(run.describe()["recipe"]).retrieval
    if retrieval.labels != "cross_fitted":  # files in the folders may come from another teacher
        return None
    files = [run.cross_fit(fold) / "labels.safetensors" for fold in range(retrieval.folds)]
    parts = [load_file(str(file)) for file in files if file.is_file()]
    rows = torch.cat([torch.empty(0, dtype=torch.int64), *(part["rows"] for part in parts)])
    with safe_open(str(run.teacher_outputs / "train.safetensors"), "pt") as outputs:
        count = outputs.get_slice("logits").get_shape()[0]
    if not torch.equal(rows.sort().values, torch.arange(count)):
        raise DataError(
            "the cross-fitted labels do not cover each train row once",
            path=run.path,
            found=f"{len(rows)} labels, {len(set(rows.tolist()))} rows",
            expected=f"each of {count} train rows once",
            remedy="Remove the run's cross_fit folders and run the same `reaugkd train` again.",
        )
    return torch.cat([part["logits"] for part in parts])[rows.argsort()]
