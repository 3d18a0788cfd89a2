"""Retrieval and blend as ONNX nodes after a student, with an exact search over all keys.

    query q            the embedding, rounded as the index rounds a query
    similarity [b, n]  q . key_j / (|q| |key_j|)
    neighbours         TopK of the similarities; of equal ones, the lower row comes first
    blend              same as `runtime.decision.blending` and `runtime.decision.mixture_weight`

The graph uses only operators of ONNX's default domain in opset 16, so every ONNX Runtime can run it. It has no products
of two int8 matrices, because they saturate on processors without VNNI.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...errors import BundleError
from ...runtime.decision.blend_config import BlendConfig
from ...runtime.inference.student import PROBABILITIES
from .fused_weight import add_weight
from .nodes import Array, Graph

PREFIX = "reaugkd/"
STUDENT_PREFIX = "student/"
METADATA_PREFIX = "reaugkd."
OLDEST_OPSET = 16

_BATCH = "batch"


@dataclass(frozen=True)
class FusedTables:
    """The keys and soft labels inside a fused file.

    Attributes:
        keys: float32 [n, d], as stored (`VectorIndex.vectors`).
        dtype: how the index stores them: ``"f32"``, ``"f16"`` or ``"i8"``.
        soft_labels: float16 [n, c], or the m likeliest classes of each row as uint8 or uint16 [n, 2 m]: class indices,
            then their weights, which need not be normalised.
    """

    keys: NDArray[np.float32]
    dtype: str
    soft_labels: Array

    @property
    def nbytes(self) -> int:
        """Approximate bytes in the file."""
        return self.keys.size * _width(self.dtype) + 4 * len(self.keys) + self.soft_labels.nbytes


def fused_model(
    student: onnx.ModelProto,
    knowledge: FusedTables,
    config: BlendConfig,
    labels: Sequence[str],
    metadata: Mapping[str, object],
) -> onnx.ModelProto:
    """Append retrieval and blend to a student; ``student`` is changed in place.

    The inputs stay the same. Outputs, for a batch of b: ``label`` string [b], ``probabilities``,
    ``student_probabilities`` and ``retrieval_probabilities`` float32 [b, c], ``student_weight`` float32 [b],
    ``neighbour_rows`` int64, ``neighbour_similarities`` and ``neighbour_weights`` float32 [b, min(k, n)], nearest
    first, and the student's ``logits`` [b, c] and ``embedding`` [b, d].

    Args:
        student: a model with outputs ``logits`` [b, c], ``embedding`` [b, d] and, except in old bundles,
            ``probabilities`` [b, c].
        knowledge: n rows, at least one.
        config: k, tau, the weight and the student's temperature.
        labels: label names in the order of the logits.
        metadata: JSON values for the model's metadata, under ``reaugkd.NAME``.

    Raises:
        BundleError: the student's operator set is too old, or its graph has branches.
    """
    _require_opset(student)
    _require_no_branches(student)
    model = onnx.compose.add_prefix(student, STUDENT_PREFIX, rename_inputs=False, rename_outputs=False, inplace=True)
    graph = Graph(PREFIX)
    rows, similarities = _search(graph, "embedding", knowledge, config.k)
    own = _own(graph, model, config.student_temperature)
    retrieved = _retrieved(graph, rows, similarities, knowledge.soft_labels, config.tau)
    blended = _blended(graph, own, retrieved, similarities, config, len(labels))
    best = graph.add("ArgMax", blended, axis=-1, keepdims=0)
    graph.add("Gather", graph.constant("labels", np.array(labels, object)), best, out="label", axis=0)
    _extend(model, graph, _outputs(len(labels), min(config.k, len(knowledge.keys)), knowledge.keys.shape[1]))
    _describe(model, {"labels": list(labels), **metadata})
    return model


def _require_no_branches(student: onnx.ModelProto) -> None:
    """Refuse nodes with graphs of their own, such as If: renaming and sorting overlook the inputs of these graphs.

    Raises:
        BundleError: there is one.
    """
    branching = {node.op_type for node in student.graph.node for attribute in node.attribute if attribute.HasField("g")}
    if branching:
        raise BundleError(
            "the student's graph has branches and cannot be fused",
            found=f"nodes {', '.join(sorted(branching))}",
            expected="a graph without branches, as the default exporter writes it",
            remedy="Export the run again with this version, without --exporter optimum.",
        )


def _own(graph: Graph, model: onnx.ModelProto, temperature: float) -> str:
    """Add the student's probabilities [b, c]: the student's output, or nodes that compute them in an old bundle."""
    name = "student_probabilities"
    if any(output.name == PROBABILITIES for output in model.graph.output):
        for node in model.graph.node:
            for values in (node.input, node.output):
                values[:] = [name if value == PROBABILITIES else value for value in values]
        return name
    scaled = graph.add("Mul", "logits", graph.number("inverse_temperature", 1 / temperature))
    return graph.add("Softmax", scaled, out=name, axis=-1)


def _search(graph: Graph, embedding: str, knowledge: FusedTables, k: int) -> tuple[str, str]:
    """Add the search: rows int64 [b, k] and similarities float32 [b, k] of the nearest keys."""
    query = _rounded(graph, embedding, knowledge.dtype)
    keys = graph.tensor(_stored(knowledge.keys.T, knowledge.dtype, f"{PREFIX}keys"))
    if knowledge.dtype != "f32":
        keys = graph.cast(keys, TensorProto.FLOAT)  # computed once, when a session is made
    inverse = graph.constant("inverse_key_lengths", _inverse_lengths(knowledge.keys)[np.newaxis])
    length = graph.add("Sqrt", graph.sum(graph.add("Mul", query, query)))
    cosines = graph.add("Mul", graph.add("MatMul", graph.add("Div", query, length), keys), inverse)
    names = ["neighbour_similarities", "neighbour_rows"]
    count = graph.constant("k", np.array([min(k, len(knowledge.keys))]))
    graph.nodes.append(helper.make_node("TopK", [cosines, count], names, name=f"{PREFIX}TopK", axis=-1))
    return names[1], names[0]


def _inverse_lengths(keys: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute 1 / length of each key; 0 for a key that rounding to the stored type made 0."""
    lengths = np.linalg.norm(keys.astype(np.float64), axis=1)
    inverse: NDArray[np.float64] = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return inverse.astype(np.float32)


def _rounded(graph: Graph, embedding: str, dtype: str) -> str:
    """Add rounding of the embedding to the index's type; the result is float32."""
    if dtype == "f32":
        return embedding
    if dtype == "f16":
        return graph.cast(graph.cast(embedding, _ONNX_TYPES[dtype]), TensorProto.FLOAT)
    # Same as usearch: 127 x / |x| in double precision, truncated. Single precision can give another integer.
    wide = graph.cast(embedding, TensorProto.DOUBLE)
    length = graph.add("Sqrt", graph.sum(graph.add("Mul", wide, wide)))
    scale = graph.constant("i8_scale", np.array(127.0, np.float64))
    scaled = graph.add("Div", graph.add("Mul", wide, scale), length)
    return graph.cast(graph.cast(scaled, TensorProto.INT32), TensorProto.FLOAT)


def _retrieved(graph: Graph, rows: str, similarities: str, soft_labels: Array, tau: float) -> str:
    """Add the neighbours' distribution [b, c]."""
    scaled = graph.add("Mul", similarities, graph.number("inverse_tau", 1 / tau))
    weights = graph.add("Softmax", scaled, out="neighbour_weights", axis=-1)
    mix = _mixed_top if soft_labels.dtype.kind == "u" else _mixed
    mixed = mix(graph, rows, weights, soft_labels)
    return graph.add("Div", mixed, graph.sum(mixed), out="retrieval_probabilities")


def _mixed(graph: Graph, rows: str, weights: str, soft_labels: Array) -> str:
    """Add the weighted sum [b, c] of soft labels [n, c]."""
    theirs = graph.add("Gather", graph.constant("soft_labels", soft_labels), rows, axis=0)
    theirs = graph.cast(theirs, TensorProto.FLOAT)
    axis = graph.constant("axis", np.array([1]))
    return graph.add("Squeeze", graph.add("MatMul", graph.add("Unsqueeze", weights, axis), theirs), axis)


def _mixed_top(graph: Graph, rows: str, weights: str, table: Array) -> str:
    """Add the weighted sum [b, c] of the likeliest classes [n, 2 m]."""
    classes, shares = np.split(table, 2, axis=1)
    numbers = graph.cast(graph.add("Gather", graph.constant("classes", classes), rows, axis=0), TensorProto.INT64)
    theirs = graph.cast(graph.add("Gather", graph.constant("shares", shares), rows, axis=0), TensorProto.FLOAT)
    weights = graph.add("Unsqueeze", weights, graph.constant("last_of_three", np.array([2])))
    parts = graph.add("Mul", theirs, weights)
    flat = graph.constant("flat", np.array([0, -1]))
    where, what = graph.add("Reshape", numbers, flat), graph.add("Reshape", parts, flat)
    nothing = graph.add("ConstantOfShape", graph.add("Shape", "logits"))
    return graph.add("ScatterElements", nothing, where, what, axis=1, reduction="add")


def _blended(graph: Graph, own: str, retrieved: str, similarities: str, config: BlendConfig, classes: int) -> str:
    """Add the blend [b, c] and the student's weight [b]."""
    if config.weight is None:
        weight = graph.number("weight", config.student_weight)
        rest = graph.number("rest", 1 - config.student_weight)
        each = graph.constant("weight_each", np.array([config.student_weight], np.float32))
        batch = graph.add("Shape", own, start=0, end=1)
        graph.add("Expand", each, batch, out="student_weight")
    else:
        weight = add_weight(graph, own, retrieved, similarities, config.weight, classes)
        rest = graph.add("Sub", graph.number("one", 1.0), weight)
        graph.add("Squeeze", weight, graph.constant("axis", np.array([1])), out="student_weight")
    return graph.add("Add", graph.add("Mul", own, weight), graph.add("Mul", retrieved, rest), out="probabilities")


_ONNX_TYPES = {
    "f32": TensorProto.FLOAT,
    "f16": TensorProto.FLOAT16,
    "i8": TensorProto.INT8,
}


def _stored(keys: NDArray[np.float32], dtype: str, name: str) -> onnx.TensorProto:
    """Convert keys to the stored type; the values are exactly representable."""
    numpy_type = helper.tensor_dtype_to_np_dtype(_ONNX_TYPES[dtype])
    return numpy_helper.from_array(np.ascontiguousarray(keys.astype(numpy_type)), name)


def _width(dtype: str) -> int:
    return {"f32": 4, "f16": 2, "i8": 1}[dtype]


def _outputs(classes: int, k: int, ndim: int) -> list[onnx.ValueInfoProto]:
    kinds: dict[str, tuple[int, list[str | int], str]] = {
        "label": (TensorProto.STRING, [_BATCH], "the most probable label"),
        "probabilities": (TensorProto.FLOAT, [_BATCH, classes], "probabilities of the blend, in the order of labels"),
        "student_probabilities": (TensorProto.FLOAT, [_BATCH, classes], "the student's probabilities"),
        "retrieval_probabilities": (TensorProto.FLOAT, [_BATCH, classes], "the neighbours' probabilities"),
        "student_weight": (TensorProto.FLOAT, [_BATCH], "the student's share of the blend"),
        "neighbour_rows": (
            TensorProto.INT64,
            [_BATCH, k],
            "rows of the bundle's knowledge base, from 0, nearest first",
        ),
        "neighbour_similarities": (TensorProto.FLOAT, [_BATCH, k], "cosine similarities of the neighbours"),
        "neighbour_weights": (
            TensorProto.FLOAT,
            [_BATCH, k],
            "weights of the neighbours in the retrieved distribution",
        ),
        "logits": (TensorProto.FLOAT, [_BATCH, classes], "the student's logits"),
        "embedding": (TensorProto.FLOAT, [_BATCH, ndim], "the student's query, L2-normalised"),
    }
    return [helper.make_tensor_value_info(name, kind, shape, what) for name, (kind, shape, what) in kinds.items()]


def _extend(model: onnx.ModelProto, graph: Graph, outputs: list[onnx.ValueInfoProto]) -> None:
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.constants.values())
    del model.graph.output[:]
    model.graph.output.extend(outputs)


def _describe(model: onnx.ModelProto, metadata: Mapping[str, object]) -> None:
    for name, value in metadata.items():
        text = json.dumps(value, ensure_ascii=False)
        model.metadata_props.add(key=f"{METADATA_PREFIX}{name}", value=text)


def _require_opset(student: onnx.ModelProto) -> None:
    version = max((entry.version for entry in student.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if version < OLDEST_OPSET:
        raise BundleError(
            "the student's ONNX operator set is too old",
            found=f"opset {version}",
            expected=f"{OLDEST_OPSET} or later",
            remedy="Export the bundle again.",
        )
