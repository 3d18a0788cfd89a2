"""For objectives that show the student's tokens to the teacher: both must read them alike."""

from __future__ import annotations

from transformers import PreTrainedModel

from ...errors import RecipeError
from ..modeling.encoder import takes_token_types

_REMEDY = "Start the student from the teacher's layers, or leave this objective out."


def require_shared_tokens(name: str, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Raise unless a token id, and a token's type, mean the same to both models, as far as their sizes can tell.

    Args:
        name: of the objective.
        student: its encoder.
        teacher: its encoder.

    Raises:
        RecipeError: vocabularies of different sizes, or only one of the two tells the texts of a pair apart by types.
    """
    ours, theirs = (encoder.get_input_embeddings().num_embeddings for encoder in (student, teacher))
    if ours != theirs:
        raise RecipeError(
            f"objective {name!r} shows the student's tokens to the teacher, whose vocabulary is another",
            found=f"{ours} tokens of the student",
            expected=f"the teacher's {theirs}",
            remedy=_REMEDY,
        )
    typed, types_taught = takes_token_types(student.config), takes_token_types(teacher.config)
    if typed != types_taught:
        raise RecipeError(
            f"objective {name!r} shows the student's tokens to the teacher, but only one of them takes token types",
            found=f"{'with' if typed else 'without'} types in the student",
            expected=f"as the teacher, {'with' if types_taught else 'without'}",
            remedy=_REMEDY,
        )
