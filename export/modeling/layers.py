"""The layers of an encoder: find them, and keep some."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from ...errors import ModelError


def layer_stack(encoder: nn.Module, count: int) -> nn.ModuleList:
    """Find the encoder's transformer layers, the ModuleList with ``count`` entries.

    Raises:
        ModelError: there is none.
    """
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if not stacks:
        raise ModelError(
            "the model's layers were not found",
            found=type(encoder).__name__,
            expected=f"a ModuleList of {count} layers",
            remedy="Start the student from another model: --student MODEL.",
        )
    return stacks[0]


def default_layers(encoder: PreTrainedModel) -> tuple[int, ...]:
    """Return the 0-based numbers of every second layer, including the last.

    Where the first layer has other weights than the others (ModernBERT), it is taken as the first.

    Raises:
        ModelError: the layers were not found.
    """
    count = encoder.config.num_hidden_layers
    layers = tuple(range(1 - count % 2, count, 2)) if count > 1 else (0,)
    if _shares_layers(encoder):
        return layers
    stack = layer_stack(encoder, count)
    first, chosen = (set(stack[layer].state_dict()) for layer in (0, layers[0]))
    return layers if first == chosen else (0, *layers[1:])


def _shares_layers(encoder: PreTrainedModel) -> bool:
    """Whether all layers have the same weights, as in ALBERT."""
    return getattr(encoder.config, "num_hidden_groups", None) == 1


def require_layers(layers: Sequence[int], count: int) -> None:
    """Check that a model has all of at least one layers.

    Args:
        layers: 0-based numbers, ascending.
        count: number of the model's layers.

    Raises:
        ModelError: there are no layers, or the model does not have one.
    """
    if not layers or max(layers) >= count:
        raise ModelError(
            "the teacher has no such layer",
            found=",".join(map(str, layers)),
            expected=f"numbers from 0 to {count - 1}",
            remedy="Correct --student-layers.",
        )


def keep_layers(encoder: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Remove all other layers of an encoder in place, and its unused pooler.

    Args:
        encoder: the encoder.
        layers: 0-based numbers of the layers to keep, ascending.

    Raises:
        ModelError: the encoder does not have a layer, or its layers were not found.
    """
    config = encoder.config
    count = config.num_hidden_layers
    require_layers(layers, count)
    if not _shares_layers(encoder):
        stack = layer_stack(encoder, count)
        kept = [stack[layer] for layer in layers]
        del stack[:]
        stack.extend(kept)
        _renumber(kept)
    config.num_hidden_layers = len(layers)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and len(kinds) == count:
        config.layer_types = [kinds[layer] for layer in layers]
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def copy_layers(encoder: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Copy an encoder with some of its layers; for arguments and errors see `keep_layers`.

    The other layers are not copied, so that a large model is never in memory twice.
    """
    count = encoder.config.num_hidden_layers
    require_layers(layers, count)
    others = {} if _shares_layers(encoder) else dict(enumerate(layer_stack(encoder, count)))
    shared = {id(layer): layer for number, layer in others.items() if number not in layers}
    return keep_layers(copy.deepcopy(encoder, shared), layers)


def _renumber(layers: Sequence[nn.Module]) -> None:
    """Give the layers, and their parts, the numbers that they have once the model is saved and loaded."""
    for number, layer in enumerate(layers):
        for part in layer.modules():
            for name in ("layer_idx", "layer_id"):
                if isinstance(getattr(part, name, None), int):
                    setattr(part, name, number)
