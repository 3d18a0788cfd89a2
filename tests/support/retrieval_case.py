"""A student that looks up its outputs in tables, with search and blend appended to its graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.hnsw import VectorIndex
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.mixture_weight import BucketWeight, LogisticWeight
from reaugkd.runtime.graph.retrieval import Tables, retrieval_graph
from reaugkd.runtime.inference.session.onnxruntime_setup import import_onnxruntime

Wide = NDArray[np.float64]
NDIM = 12
ASKED = 6


@dataclass(frozen=True)
class Case:
    """A student that looks up its outputs in two tables, with retrieval and blend appended."""

    logits: NDArray[np.float32]
    queries: NDArray[np.float32]
    tables: Tables
    config: BlendConfig
    integer: bool = True
    single: bool = False

    def model(self, opset: int = 17) -> bytes:
        student = lookup(self.logits, self.queries, opset).SerializeToString()
        classes = self.logits.shape[1]
        graph = retrieval_graph(self.tables, self.config, None, classes, self.integer, single=self.single)
        return graph.appended_to(student)

    def run(self, ids: list[int], opset: int = 17, together: bool = False) -> dict[str, Any]:
        """The outputs for some inputs, one by one: the range of a quantized query is that of its batch."""
        session = session_of(self.model(opset))
        names = [output.name for output in session.get_outputs()]
        batches = [ids] if together else [[one] for one in ids]
        found = [session.run(names, {"input_ids": np.array(batch)[:, None]}) for batch in batches]
        return dict(zip(names, (np.concatenate(parts) for parts in zip(*found, strict=True)), strict=True))


def lookup(logits: NDArray[np.float32], queries: NDArray[np.float32], opset: int = 17) -> onnx.ModelProto:
    """input_ids [b, 1] -> logits [b, c] and embedding [b, d], each a row of its table."""
    nodes = [helper.make_node("Squeeze", ["input_ids", "one"], ["ids"])]
    nodes += [helper.make_node("Gather", [f"table {name}", "ids"], [name], axis=0) for name in ("logits", "embedding")]
    constants = {"table logits": logits, "table embedding": queries, "one": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", 1])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", table.shape[1]])
            for name, table in (("logits", logits), ("embedding", queries))
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def session_of(model: bytes) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def stored(rows: int, dtype: str, seed: int) -> NDArray[Any]:
    keys = np.random.default_rng(seed).standard_normal((rows, NDIM)).astype(np.float32)
    return VectorIndex.build(keys, IndexConfig(NDIM, dtype=dtype)).stored()


def make_case(rows: int, classes: int, dtype: str, config: BlendConfig, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed + 1)
    queries = rng.standard_normal((ASKED, NDIM))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    soft_labels = rng.dirichlet(np.full(classes, 0.3), size=rows).astype(np.float16)
    logits = (3 * rng.standard_normal((ASKED, classes))).astype(np.float32)
    return Case(logits, queries.astype(np.float32), Tables(stored(rows, dtype, seed), soft_labels, classes), config)


def top_labels(rows: int, classes: int, top: int, dtype: Any) -> NDArray[Any]:
    """For each row ``top`` different classes and shares that sum to the type's largest number."""
    rng = np.random.default_rng(rows)
    numbers = np.stack([rng.permutation(classes)[:top] for _ in range(rows)])
    shares = rng.multinomial(np.iinfo(dtype).max, rng.dirichlet(np.ones(top), size=rows))
    return np.concatenate([numbers, shares], axis=1).astype(dtype)


def rounded(query: NDArray[np.float32]) -> Wide:
    """The query in 8 bits, as ONNX defines DynamicQuantizeLinear."""
    low, high = min(query.min(), np.float32(0)), max(query.max(), np.float32(0))
    scale = (high - low) / np.float32(255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    steps = np.clip(np.rint(query / scale) + zero, 0, 255) - zero
    return steps.astype(np.float64) * np.float64(scale)


PLAIN = BlendConfig(5, 0.1, 0.4, student_temperature=1.7)
VARIANTS = {
    "constant": PLAIN,
    "one neighbour": replace(PLAIN, k=1),
    "every row": replace(PLAIN, k=300),
    "more than there are": replace(PLAIN, k=301),
    "student alone": replace(PLAIN, student_weight=1.0),
    "neighbours alone": replace(PLAIN, student_weight=0.0),
    "cold": replace(PLAIN, tau=1e-3),
    "buckets": replace(PLAIN, weight=BucketWeight((0.4, 0.55, 0.7), (0.9, 0.6, 0.3, 0.1))),
    "one bucket": replace(PLAIN, weight=BucketWeight((), (0.25,))),
    "logistic": replace(PLAIN, weight=LogisticWeight(-0.5, (2.0, -3.0, 1.5, -2.5, 0.75))),
    "a steep logistic": replace(PLAIN, weight=LogisticWeight(900.0, (-1500.0, 40.0, 0.0, 0.0, -20.0))),
}
