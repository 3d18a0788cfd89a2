"""Check teacher and student before any training: they load, fit the recipe and can be exported."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from ...errors import ModelError, RecipeError
from .. import objectives
from ..modeling.encoder import keep_layers, load_config, load_encoder, require_usable
from ..modeling.projection import require_reducible
from ..modeling.teacher import match_labels
from ..recipe import Recipe
from .distill import default_layers

_TOKENS = 8  # length of the text on which attention maps are checked


def check_models(teacher: str, recipe: Recipe, fine_tuned: bool, label_names: Sequence[str]) -> None:
    """Check teacher and student before the run folder is made, so that no training is wasted.

    Args:
        teacher: hub id or folder.
        recipe: the recipe of the run.
        fine_tuned: whether the teacher is a fine-tuned classifier.
        label_names: the labels in order.

    Raises:
        ModelError: a model cannot be loaded, or cannot be used as the recipe asks.
        RecipeError: max_length, embedding_dim or an objective does not fit the models.
    """
    loss = objectives.build(recipe.objectives)
    config, student = load_config(teacher), recipe.student
    if fine_tuned:
        match_labels(teacher, config, label_names)
    for model in filter(None, (teacher, student.model)):
        positions = getattr(load_config(model), "max_position_embeddings", None) or -1  # XLNet's -1: any number
        if 0 < positions < recipe.max_length:
            raise RecipeError(
                "max_length exceeds the model's number of positions",
                path=model,
                found=recipe.max_length,
                expected=f"at most {positions}",
                remedy="Lower --max-length.",
            )
    taught = load_encoder(teacher, loss.attention)
    require_usable(taught, teacher, recipe.max_length)
    if recipe.projection.method == "pca":
        require_reducible(recipe.projection.embedding_dim, taught.config.hidden_size)
    if student.model:
        own = load_encoder(student.model, loss.attention)
    else:
        own = keep_layers(copy.deepcopy(taught), student.layers or default_layers(taught.config.num_hidden_layers))
    require_usable(own, student.model or teacher, recipe.max_length)
    if "attentions" in loss.needs:
        require_attention_maps(taught, teacher)
        require_attention_maps(own, student.model or teacher)
    loss.check(own, taught, recipe)


@torch.inference_mode()
def require_attention_maps(encoder: PreTrainedModel, model: str) -> None:
    """Check that every layer of an encoder returns its attention maps, [rows, heads, tokens, tokens].

    Args:
        encoder: loaded with eager attention.
        model: its hub id or folder, for the error.

    Raises:
        ModelError: a layer does not.
    """
    ids = torch.arange(_TOKENS).unsqueeze(0) % encoder.config.vocab_size
    try:
        states = encoder.eval()(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True, return_dict=True
        )
        found = [tuple(maps.shape) for maps in states.get("attentions") or ()]
    except TypeError:  # the model has no option output_attentions
        found = []
    maps = [shape for shape in found if len(shape) == 4 and shape[2:] == (_TOKENS, _TOKENS)]
    if not len(maps) == len(found) == encoder.config.num_hidden_layers:
        raise ModelError(
            "the model does not return its attention maps",
            path=model,
            found=f"shapes {found}" if found else "none",
            expected="attention maps of every layer of student and teacher",
            remedy="Leave out the objective that needs them, or use other models.",
        )
