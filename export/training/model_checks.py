"""Checks of teacher and student before any training: they load, fit the recipe and can be exported."""

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
from ..onnx.export import onnx_config
from ..recipe import Recipe
from .distill import default_layers

_TOKENS = 8  # of the text whose attention maps are looked at


def check_models(teacher: str, recipe: Recipe, fine_tuned: bool, label_names: Sequence[str]) -> None:
    """Refuse unusable models before the run folder is made, not after hours of training."""
    loss = objectives.build(recipe.objectives)
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
    taught = load_encoder(teacher, loss.attention)
    require_usable(taught, teacher, recipe.max_length)
    if recipe.projection.method == "pca":
        require_reducible(recipe.projection.embedding_dim, taught.config.hidden_size)
    if student.model:
        own = load_encoder(student.model, loss.attention)
    else:
        own = keep_layers(copy.deepcopy(taught), student.layers or default_layers(taught.config.num_hidden_layers))
    require_usable(own, student.model or teacher, recipe.max_length)
    onnx_config(own.config)
    if "attentions" in loss.needs:
        require_attention_maps(taught, teacher)
        require_attention_maps(own, student.model or teacher)
    loss.check(own, taught, recipe)


@torch.inference_mode()
def require_attention_maps(encoder: PreTrainedModel, model: str) -> None:
    """Raise ModelError unless every layer shows its attention maps, [rows, heads, tokens, tokens]."""
    ids = torch.arange(_TOKENS).unsqueeze(0) % encoder.config.vocab_size
    try:
        states = encoder.eval()(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True, return_dict=True
        )
        found = [tuple(maps.shape) for maps in states.get("attentions") or ()]
    except TypeError:  # a model that knows no such option
        found = []
    maps = [shape for shape in found if len(shape) == 4 and shape[2:] == (_TOKENS, _TOKENS)]
    if not len(maps) == len(found) == encoder.config.num_hidden_layers:
        raise ModelError(
            "the model does not show its attention maps",
            path=model,
            found=f"shapes {found}" if found else "none",
            expected="maps of every layer, of student and teacher",
            remedy="Leave out the objective that needs them, or take other models.",
        )
