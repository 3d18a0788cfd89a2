"""The query read from every layer of the finished student: a head fitted after the distillation, without labels.

The classifier reads the last layer, whose states have let go of what does not separate the classes as the student sees
them. Neighbours in that space mostly repeat the student's own opinion, its errors too. The layers below still tell
texts apart by what they say; neighbours found by all layers together know what the classifier does not. The pooled
states are there anyhow: the query costs one small matrix product, as before.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .encoder import EncoderClassifier
from .projection import LinearLayer, fit_pca
from .tokens import TokenRows
from .training_loop import outputs_of

WHITENING = 0.5
"""Of the principal components (`fit_pca`); chosen by held-out likelihood on banking77 among 0, 0.25 and 0.5."""


def fit_layer_query(student: EncoderClassifier, rows: TokenRows, dim: int) -> LinearLayer:
    """The principal components of the pooled states of all layers, each layer centred and counting alike.

    Args:
        student: the finished student; it is not changed.
        rows: the n rows of the knowledge base.
        dim: components of the query; at most as many as the layers have. What rows do not span is zero.

    Returns:
        The head, [dim, layers * hidden], of ``with_layer_query``.
    """
    reader = EncoderClassifier(student.encoder, replace(student.head, embedding_dim=None, all_layers=True))
    states = outputs_of(reader, rows, "student's layers").embedding
    scale = _layer_scales(states, student.encoder.config.num_hidden_layers)
    head = fit_pca(states / scale, min(dim, states.shape[1]), WHITENING)
    return LinearLayer(head.weight / scale, head.bias)


def _layer_scales(states: Tensor, layers: int) -> Tensor:
    """The root mean square length of each layer's centred states, repeated over its components: [layers * hidden]."""
    centred = states - states.mean(dim=0)
    lengths = [part.square().sum(dim=1).mean().sqrt().clamp(min=1e-6) for part in centred.chunk(layers, dim=1)]
    return torch.stack(lengths).repeat_interleave(states.shape[1] // layers)


def with_layer_query(student: EncoderClassifier, head: LinearLayer) -> EncoderClassifier:
    """The same student, sharing its weights, with the query read from all layers by ``head``."""
    shape = replace(student.head, embedding_dim=len(head.weight), projection_bias=True, all_layers=True)
    reader = EncoderClassifier(student.encoder, shape)
    reader.classifier = student.classifier
    assert reader.projection is not None and head.bias is not None
    with torch.no_grad():
        reader.projection.weight.copy_(head.weight)
        reader.projection.bias.copy_(head.bias)
    return reader.eval()
