"""The nodes of `runtime.graph.retrieval` as an ONNX file with names for its users."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...errors import BundleError
from ...runtime.bundle.onnx_safety import operator_sets
from ...runtime.decision.blend_config import BlendConfig
from ...runtime.graph.retrieval import (
    BEST,
    BLEND,
    OLDEST_OPSET,
    PREFIX,
    RETRIEVED,
    ROWS,
    SCALED,
    SHARES,
    STUDENT,
    WEIGHT,
    Tables,
    retrieval_graph,
)
from ...runtime.inference.session.model_session import PROBABILITIES

METADATA_PREFIX = "reaugkd."

_BATCH = "batch"
_OWN = "student_probabilities"
_NAMES = {PROBABILITIES: _OWN, STUDENT: _OWN, BLEND: "probabilities", RETRIEVED: "retrieval_probabilities"}
_NAMES |= {ROWS: "neighbour_rows", SHARES: "neighbour_weights"}


def fused_model(
    student: bytes,
    tables: Tables,
    config: BlendConfig,
    labels: Sequence[str],
    metadata: Mapping[str, object],
    integer: bool = True,
) -> onnx.ModelProto:
    """A student with retrieval and blend.

    The inputs stay the same. Outputs, for a batch of b: ``label`` string [b], ``probabilities``,
    ``student_probabilities`` and ``retrieval_probabilities`` float32 [b, c], ``student_weight`` float32 [b],
    ``neighbour_rows`` int64, ``neighbour_similarities`` and ``neighbour_weights`` float32 [b, min(k, n)], nearest
    first, and the student's ``logits`` [b, c] and ``embedding`` [b, d].

    Args:
        student: a model with outputs ``logits`` [b, c], ``embedding`` [b, d] and, except in old bundles,
            ``probabilities`` [b, c].
        tables: n rows, at least one.
        config: k, tau, the weight and the student's temperature.
        labels: label names in the order of the logits.
        metadata: JSON values for the model's metadata, under ``reaugkd.NAME``.
        integer: same as `retrieval_graph`.

    Raises:
        BundleError: the student's operator set is too old, or its graph uses a name of the file's outputs.
    """
    before = onnx.load_model_from_string(student)
    _require_opset(operator_sets(student).get("", 0))
    own = PROBABILITIES if any(output.name == PROBABILITIES for output in before.graph.output) else None
    _require_free(before, {*_outputs(1, 1, 1)} - {"logits", "embedding", *([] if own is None else [own])})
    graph = retrieval_graph(tables, config, own, len(labels), integer)
    model = onnx.load_model_from_string(graph.appended_to(student))
    _rename(model)
    _finish(model, config, labels)
    del model.graph.output[:]
    model.graph.output.extend(_outputs(len(labels), min(config.k, len(tables.keys)), tables.keys.shape[1]).values())
    for name, value in {"labels": list(labels), **metadata}.items():
        model.metadata_props.add(key=f"{METADATA_PREFIX}{name}", value=json.dumps(value, ensure_ascii=False))
    return model


def _rename(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [_NAMES.get(value, value) for value in values]


def _finish(model: onnx.ModelProto, config: BlendConfig, labels: Sequence[str]) -> None:
    """Add the outputs that only this file has: the label, the similarities, and one student's weight for each text."""

    def constant(name: str, value: np.ndarray) -> str:
        model.graph.initializer.append(numpy_helper.from_array(value, PREFIX + name))
        return PREFIX + name

    def add(op: str, inputs: list[str], output: str, **attributes: int) -> str:
        model.graph.node.append(helper.make_node(op, inputs, [output], name=PREFIX + output, **attributes))
        return output

    add("Gather", [constant("labels", np.array(labels, object)), BEST], "label", axis=0)
    add("Mul", [SCALED, constant("tau", np.array(config.tau, np.float32))], "neighbour_similarities")
    if config.weight is None:
        batch = add("Shape", [BEST], f"{PREFIX}batch")
        share = constant("student_weights", np.array([config.student_weight], np.float32))
        add("Expand", [share, batch], "student_weight")
    else:
        add("Squeeze", [WEIGHT, constant("last_axis", np.array([1]))], "student_weight")


def _outputs(classes: int, k: int, ndim: int) -> dict[str, onnx.ValueInfoProto]:
    distribution: list[str | int] = [_BATCH, classes]
    each: list[str | int] = [_BATCH, k]
    kinds: dict[str, tuple[int, list[str | int], str]] = {
        "label": (TensorProto.STRING, [_BATCH], "the most probable label"),
        "probabilities": (TensorProto.FLOAT, distribution, "probabilities of the blend, in the order of labels"),
        _OWN: (TensorProto.FLOAT, distribution, "the student's probabilities"),
        "retrieval_probabilities": (TensorProto.FLOAT, distribution, "the neighbours' probabilities"),
        "student_weight": (TensorProto.FLOAT, [_BATCH], "the student's share of the blend"),
        "neighbour_rows": (TensorProto.INT64, each, "rows of the bundle's knowledge base, from 0, nearest first"),
        "neighbour_similarities": (TensorProto.FLOAT, each, "cosine similarities of the neighbours"),
        "neighbour_weights": (TensorProto.FLOAT, each, "weights of the neighbours in the retrieved distribution"),
        "logits": (TensorProto.FLOAT, distribution, "the student's logits"),
        "embedding": (TensorProto.FLOAT, [_BATCH, ndim], "the student's query, L2-normalised"),
    }
    return {name: helper.make_tensor_value_info(name, kind, shape, what) for name, (kind, shape, what) in kinds.items()}


def _require_free(student: onnx.ModelProto, names: set[str]) -> None:
    """Check that the student has no value with one of these names.

    Raises:
        BundleError: it has one.
    """
    taken = names & {name for node in student.graph.node for name in node.output}
    if taken:
        raise BundleError(
            "the student's graph uses a name of the fused file's outputs",
            found=", ".join(sorted(taken)),
            expected="another name",
            remedy="Export the bundle again.",
        )


def _require_opset(version: int) -> None:
    if version < OLDEST_OPSET:
        raise BundleError(
            "the student's ONNX operator set is too old",
            found=f"opset {version}",
            expected=f"{OLDEST_OPSET} or later",
            remedy="Export the bundle again.",
        )
