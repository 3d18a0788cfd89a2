"""The mixture weight as ONNX nodes, with the formula of `runtime.decision.mixture_weight`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from ...errors import UsageError
from ...runtime.decision.mixture_weight import BucketWeight, ExampleWeight, LogisticWeight, SquaresWeight
from .nodes import Graph

_TINY = float(np.finfo(np.float32).tiny)  # 0 log 0 is computed as 0 log(tiny) = 0, as in mixture_weight


def add_weight(
    graph: Graph, student: str, retrieved: str, similarities: str, weight: ExampleWeight, classes: int
) -> str:
    """Add nodes that compute the mixture weight, float32 [b, 1].

    Args:
        graph: the graph to extend.
        student: name of the student's probabilities [b, c].
        retrieved: name of the neighbours' probabilities [b, c].
        similarities: name of the neighbours' similarities [b, k], descending.
        weight: the weight function.
        classes: number of classes, c.

    Returns:
        The name of the weight.

    Raises:
        UsageError: the weight is a `SquaresWeight`.
    """
    if isinstance(weight, SquaresWeight):
        raise UsageError("the weight 'squares' cannot be fused yet", remedy="Export with --weight constant.")
    top = graph.add("Gather", similarities, graph.constant("first", np.array([0])), axis=1)
    if isinstance(weight, BucketWeight):
        return _bucket_weight(graph, top, weight)
    last = graph.add("Gather", similarities, graph.constant("last", np.array([-1])), axis=1)
    by_top, by_gap, by_retrieved, by_student, by_agreement = weight.coefficients
    agree = graph.add(
        "Equal", graph.add("ArgMax", student, axis=-1, keepdims=1), graph.add("ArgMax", retrieved, axis=-1, keepdims=1)
    )
    terms = [(top, by_top), (graph.add("Sub", top, last), by_gap), (graph.cast(agree, TensorProto.FLOAT), by_agreement)]
    if classes > 1:
        most = math.log(classes)
        terms += [(_entropy(graph, retrieved), by_retrieved / most), (_entropy(graph, student), by_student / most)]
    return _sigmoid_of(graph, terms, weight)


def _sigmoid_of(graph: Graph, terms: list[tuple[str, float]], weight: LogisticWeight) -> str:
    features = graph.add("Concat", *(name for name, _ in terms), axis=1)
    coefficients = np.array([[coefficient] for _, coefficient in terms], np.float32)
    score = graph.add("MatMul", features, graph.constant("coefficients", coefficients))
    return graph.add("Sigmoid", graph.add("Add", score, graph.number("intercept", weight.intercept)))


def _bucket_weight(graph: Graph, top: str, weight: BucketWeight) -> str:
    shares = graph.constant("bucket_weights", np.array(weight.weights, np.float32))
    edges = graph.constant("bucket_edges", rounded_up(weight.edges)[np.newaxis])
    reached = graph.cast(graph.add("GreaterOrEqual", top, edges), TensorProto.INT64)
    return graph.add("Gather", shares, graph.sum(reached), axis=0)


def rounded_up(edges: Sequence[float]) -> NDArray[np.float32]:
    """Round edges up to float32, so that every float32 compares with the result as with the edge."""
    wide = np.array(edges, np.float64)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    return np.where(narrow < wide, np.nextafter(narrow, np.float32(np.inf)), narrow)


def _entropy(graph: Graph, probabilities: str) -> str:
    """Add the entropy -sum p log p, [b, 1]."""
    logs = graph.add("Log", graph.add("Max", probabilities, graph.number("tiny", _TINY)))
    return graph.add("Neg", graph.sum(graph.add("Mul", probabilities, logs)))
