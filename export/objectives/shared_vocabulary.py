"""Check that student and teacher have the same vocabulary, for objectives that give both the same tokens."""

from __future__ import annotations

from transformers import PreTrainedModel

from ...errors import RecipeError
from ..modeling.encoder import takes_token_types

_REMEDY = "Start the student from the teacher's layers, or leave this objective out."


def require_shared_tokens(name: str, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Check that the vocabularies of student and teacher have the same size, and that both use token types or neither.

    Args:
        name: name of the objective.
        student: the student's encoder.
        teacher: the teacher's encoder.

    Raises:
        RecipeError: the vocabularies differ in size, or only one model uses token types.
    """
    ours, theirs = (encoder.get_input_embeddings().num_embeddings for encoder in (student, teacher))
    if ours != theirs:
        raise RecipeError(
            f"objective {name!r} needs the same vocabulary in student and teacher",
            found=f"{ours} tokens in the student's vocabulary",
            expected=f"{theirs}, as in the teacher's",
            remedy=_REMEDY,
        )
    typed, types_taught = takes_token_types(student.config), takes_token_types(teacher.config)
    if typed != types_taught:
        raise RecipeError(
            f"objective {name!r} needs token types in both student and teacher, or in neither",
            found=f"a student {'with' if typed else 'without'} token types",
            expected=f"{'with' if types_taught else 'without'} token types, as in the teacher",
            remedy=_REMEDY,
        )
