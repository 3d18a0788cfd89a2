"""The mixture weight as ONNX nodes, with the formula of `runtime.decision.mixture_weight`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..decision.blend_config import BlendConfig
from ..decision.mixture_weight import BucketWeight, LogisticWeight
from .builder import INT64, Graph

_TINY = float(np.finfo(np.float32).tiny)  # 0 log 0 is computed as 0 log(tiny) = 0, as in mixture_weight


def add_weight(graph: Graph, student: str, retrieved: str, scaled: str, config: BlendConfig, classes: int) -> str:
    """Add nodes that compute the mixture weight.

    Args:
        graph: the graph to extend.
        student: name of the student's probabilities [b, c].
        retrieved: name of the neighbours' probabilities [b, c].
        scaled: name of the neighbours' similarities, divided by tau, [b, k], descending.
        config: the weight, which is no constant, and tau.
        classes: number of classes, c.

    Returns:
        The name of the weight, float32 [b, 1].
    """
    weight, tau = config.weight, config.tau
    assert weight is not None
    if isinstance(weight, BucketWeight):
        return _bucket_weight(graph, scaled, weight, tau)
    return _logistic_weight(graph, student, retrieved, scaled, weight, tau, classes)


def _bucket_weight(graph: Graph, scaled: str, weight: BucketWeight, tau: float) -> str:
    top = graph.add("Gather", scaled, graph.constant("first", np.array([0])), axis=1)
    shares = graph.constant("bucket_weights", np.array(weight.weights, np.float32))
    edges = graph.constant("bucket_edges", rounded_up([edge / tau for edge in weight.edges])[np.newaxis])
    reached = graph.cast(graph.add("GreaterOrEqual", top, edges), INT64)
    count = graph.add("ReduceSum", reached, graph.constant("axis", np.array([1])), keepdims=1)
    return graph.add("Gather", shares, count, out="student_weight", axis=0)


def rounded_up(edges: Sequence[float]) -> NDArray[np.float32]:
    """Round edges up to float32, so that every float32 compares with the result as with the edge."""
    wide = np.array(edges, np.float64)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    return np.where(narrow < wide, np.nextafter(narrow, np.float32(np.inf)), narrow)


def _logistic_weight(
    graph: Graph, student: str, retrieved: str, scaled: str, weight: LogisticWeight, tau: float, classes: int
) -> str:
    by_top, by_gap, by_retrieved, by_student, by_agreement = weight.coefficients
    most = math.log(classes) if classes > 1 else math.inf  # one class has no entropy
    ends = graph.add("Gather", scaled, graph.constant("ends", np.array([0, -1])), axis=1)
    agree = graph.add("Equal", _best(graph, student), _best(graph, retrieved))
    terms = [ends, _negative_entropy(graph, student), _negative_entropy(graph, retrieved), graph.cast(agree)]
    coefficients = [(by_top + by_gap) * tau, -by_gap * tau, -by_student / most, -by_retrieved / most, by_agreement]
    column = graph.constant("coefficients", np.array(coefficients, np.float32)[:, np.newaxis])
    intercept = graph.constant("intercept", np.array([weight.intercept], np.float32))
    return graph.add(
        "Sigmoid", graph.add("Gemm", graph.add("Concat", *terms, axis=1), column, intercept), out="student_weight"
    )


def _best(graph: Graph, probabilities: str) -> str:
    return graph.add("ArgMax", probabilities, axis=-1, keepdims=1)


def _negative_entropy(graph: Graph, probabilities: str) -> str:
    """Add sum p log p, [b, 1]."""
    logs = graph.add("Log", graph.add("Max", probabilities, graph.number("tiny", _TINY)))
    products = graph.add("Mul", probabilities, logs)
    return graph.add("ReduceSum", products, graph.constant("axis", np.array([1])), keepdims=1)
