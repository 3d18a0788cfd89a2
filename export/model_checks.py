"""What can be told of teacher and student before any training: that they load, fit the recipe, can be exported."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import RecipeError
from .distill import default_layers
from .encoder import keep_layers, load_config, load_encoder, require_usable
from .onnx import onnx_config
from .projection import require_reducible
from .recipe import Recipe
from .teacher import match_labels


def check_models(teacher: str, recipe: Recipe, fine_tuned: bool, label_names: Sequence[str]) -> None:
    """Refuse before there is a run folder what would only show after hours."""
    config, student = load_config(teacher), recipe.student
    if fine_tuned:
        match_labels(teacher, config, label_names)
    for model in filter(None, (teacher, student.model)):
        positions = getattr(load_config(model), "max_position_embeddings", None) or -1  # -1: XLNet's "any"
        if 0 < positions < recipe.max_length:
            raise RecipeError(
                "max_length is beyond the model's positions",
                path=model,
                found=recipe.max_length,
                expected=f"at most {positions}",
                remedy="Lower --max-length.",
            )
    encoder = load_encoder(teacher)
    require_usable(encoder, teacher, recipe.max_length)
    if recipe.projection.method == "pca":
        require_reducible(recipe.projection.embedding_dim, encoder.config.hidden_size)
    if student.model:
        encoder = load_encoder(student.model)
    else:
        keep_layers(encoder, student.layers or default_layers(encoder.config.num_hidden_layers))
    require_usable(encoder, student.model or teacher, recipe.max_length)
    onnx_config(encoder.config)
