"""The fused file: its names, shapes and metadata; `tests/runtime/graph` has the computation."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from reaugkd import BundleError
from reaugkd.export.onnx.fused_graph import fused_model
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.mixture_weight import LogisticWeight
from reaugkd.runtime.graph.retrieval import Tables
from reaugkd.runtime.inference.session.onnxruntime_setup import import_onnxruntime

CLASSES, NDIM, ROWS, K = 3, 8, 20, 5
LABELS = [f"läbel {number}" for number in range(CLASSES)]
SHAPES = {
    "label": ("tensor(string)", ["batch"]),
    "probabilities": ("tensor(float)", ["batch", CLASSES]),
    "student_probabilities": ("tensor(float)", ["batch", CLASSES]),
    "retrieval_probabilities": ("tensor(float)", ["batch", CLASSES]),
    "student_weight": ("tensor(float)", ["batch"]),
    "neighbour_rows": ("tensor(int64)", ["batch", K]),
    "neighbour_similarities": ("tensor(float)", ["batch", K]),
    "neighbour_weights": ("tensor(float)", ["batch", K]),
    "logits": ("tensor(float)", ["batch", CLASSES]),
    "embedding": ("tensor(float)", ["batch", NDIM]),
}
CONFIGS = {
    "constant": BlendConfig(K, 0.1, 0.4),
    "logistic": BlendConfig(K, 0.1, 0.4, weight=LogisticWeight(-0.5, (2.0, -3.0, 1.5, -2.5, 0.75))),
}


def student(opset: int = 17, between: str = "ids") -> bytes:
    """input_ids [b, 1] -> logits [b, c] and embedding [b, d]."""
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((4, NDIM)).astype(np.float32)
    tables = {
        "logits": rng.standard_normal((4, CLASSES)),
        "embedding": queries / np.linalg.norm(queries, axis=1)[:, None],
    }
    nodes = [helper.make_node("Squeeze", ["input_ids", "one"], [between])]
    nodes += [helper.make_node("Gather", [f"table {name}", between], [name], axis=0) for name in tables]
    constants = {**{f"table {name}": table.astype(np.float32) for name, table in tables.items()}, "one": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", 1])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", table.shape[1]])
            for name, table in tables.items()
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


def fused(config: str = "constant", model: bytes | None = None) -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    keys = rng.integers(-127, 128, (ROWS, NDIM)).astype(np.int8)
    tables = Tables(keys, rng.dirichlet(np.ones(CLASSES), size=ROWS).astype(np.float16), CLASSES)
    metadata = {"max_length": 24, "bundle_seal": "é"}
    return fused_model(student() if model is None else model, tables, CONFIGS[config], LABELS, metadata)


@pytest.mark.parametrize("config", CONFIGS)
def test_its_outputs(config: str) -> None:
    model = fused(config)
    onnx.checker.check_model(model, full_check=True)
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert {output.name: (output.type, output.shape) for output in session.get_outputs()} == SHAPES
    assert [given.name for given in session.get_inputs()] == ["input_ids"]
    assert all(output.doc_string for output in model.graph.output)
    found = dict(zip(SHAPES, session.run(list(SHAPES), {"input_ids": np.array([[2], [0]])}), strict=True))
    assert {name: list(value.shape) for name, value in found.items()} == {
        name: [2 if size == "batch" else size for size in shape] for name, (_, shape) in SHAPES.items()
    }
    weights, tau = found["neighbour_weights"].astype(np.float64), CONFIGS[config].tau
    expected = np.exp(found["neighbour_similarities"].astype(np.float64) / tau)
    np.testing.assert_allclose(weights, expected / expected.sum(axis=1, keepdims=True), atol=1e-6)
    share = found["student_weight"][:, None]
    mixed = share * found["student_probabilities"] + (1 - share) * found["retrieval_probabilities"]
    np.testing.assert_allclose(found["probabilities"], mixed, atol=1e-6)
    assert found["label"].tolist() == [LABELS[best] for best in found["probabilities"].argmax(axis=1)]


def test_its_metadata() -> None:
    found = {entry.key: json.loads(entry.value) for entry in fused().metadata_props}
    assert found == {"reaugkd.labels": LABELS, "reaugkd.max_length": 24, "reaugkd.bundle_seal": "é"}


def test_a_student_that_uses_one_of_its_names_is_refused() -> None:
    with pytest.raises(BundleError, match="found label"):
        fused(model=student(between="label"))


def test_an_older_operator_set_is_refused() -> None:
    with pytest.raises(BundleError, match="opset 12"):
        fused(model=student(opset=12))
