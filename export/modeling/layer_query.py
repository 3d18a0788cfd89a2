"""Query by layers: a query head on all layers of the finished student, fitted after the distillation without labels.

The classifier reads the last layer, whose states keep little besides the student's own class decision. Neighbours in
that space mostly repeat the student's answer, with its errors. Lower layers still separate texts by their content, so
neighbours by all layers add information. The pooled states exist anyway: the query costs one small matrix product.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .encoder import EncoderClassifier
from .execution.inference import outputs_of
from .execution.tokens import TokenRows
from .projection import LinearLayer, fit_pca

WHITENING = 0.5
"""Exponent of the whitening of the principal components (`fit_pca`).

Chosen among 0, 0.25 and 0.5 by the held-out likelihood on banking77.
"""


def fit_layer_query(student: EncoderClassifier, rows: TokenRows, dim: int) -> LinearLayer:
    """Fit a head to the principal components of the pooled states of all layers, each layer centred and scaled.

    Args:
        student: the finished student; not changed.
        rows: the n rows of the knowledge base.
        dim: dimension of the query, reduced to the number of components of all layers. Components that the rows do not
            span are zero.

    Returns:
        The head [dim, layers * hidden], for ``with_layer_query``.
    """
    shape = replace(student.head, embedding_dim=None, all_layers=True, general_dim=None)
    reader = EncoderClassifier(student.encoder, shape)
    states = outputs_of(reader, rows, "student's layers").embedding
    scale = _layer_scales(states, student.encoder.config.num_hidden_layers)
    head = fit_pca(states / scale, min(dim, states.shape[1]), WHITENING)
    return LinearLayer(head.weight / scale, head.bias)


def _layer_scales(states: Tensor, layers: int) -> Tensor:
    """Root mean square length of each layer's centred states, repeated over its components: [layers * hidden]."""
    centred = states - states.mean(dim=0)
    lengths = [part.square().sum(dim=1).mean().sqrt().clamp(min=1e-6) for part in centred.chunk(layers, dim=1)]
    return torch.stack(lengths).repeat_interleave(states.shape[1] // layers)


def with_layer_query(student: EncoderClassifier, head: LinearLayer) -> EncoderClassifier:
    """Make a student with shared weights whose query comes from all layers by ``head``."""
    shape = replace(
        student.head, embedding_dim=len(head.weight), projection_bias=True, all_layers=True, general_dim=None
    )
    reader = EncoderClassifier(student.encoder, shape)
    reader.classifier = student.classifier
    assert reader.projection is not None and head.bias is not None
    with torch.no_grad():
        reader.projection.weight.copy_(head.weight)
        reader.projection.bias.copy_(head.bias)
    return reader.eval()
