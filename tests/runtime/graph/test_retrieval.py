"""The graph after the student, compared with the blend in numpy float64 from the stored arrays."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from reaugkd import BundleError
from reaugkd.export.onnx.fused_check import tolerance
from reaugkd.export.onnx.fused_graph import FusedTables, fused_model
from reaugkd.export.onnx.fused_weight import rounded_up
from reaugkd.kb.index.hnsw import DTYPES, IndexConfig, VectorIndex
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.blending import blend, blend_batch
from reaugkd.runtime.decision.mixture_weight import BucketWeight, ExampleWeight, LogisticWeight
from reaugkd.runtime.inference.onnxruntime_setup import import_onnxruntime

Wide = NDArray[np.float64]
NDIM = 12
ASKED = 6

SHAPES = {
    "label": ("tensor(string)", ["batch"]),
    "probabilities": ("tensor(float)", ["batch", "c"]),
    "student_probabilities": ("tensor(float)", ["batch", "c"]),
    "retrieval_probabilities": ("tensor(float)", ["batch", "c"]),
    "student_weight": ("tensor(float)", ["batch"]),
    "neighbour_rows": ("tensor(int64)", ["batch", "k"]),
    "neighbour_similarities": ("tensor(float)", ["batch", "k"]),
    "neighbour_weights": ("tensor(float)", ["batch", "k"]),
    "logits": ("tensor(float)", ["batch", "c"]),
    "embedding": ("tensor(float)", ["batch", "d"]),
}


@dataclass(frozen=True)
class Case:
    """A student that looks up its outputs in two tables, with retrieval and blend appended."""

    logits: NDArray[np.float32]
    queries: NDArray[np.float32]
    knowledge: FusedTables
    config: BlendConfig

    @property
    def labels(self) -> list[str]:
        return [f"läbel {number}" for number in range(self.logits.shape[1])]

    def model(self, opset: int = 17) -> onnx.ModelProto:
        metadata = {"max_length": 24, "bundle_seal": "é"}
        return fused_model(lookup(self.logits, self.queries, opset), self.knowledge, self.config, self.labels, metadata)

    def run(self, ids: list[int]) -> dict[str, Any]:
        session = session_of(self.model())
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {"input_ids": np.array(ids)[:, None]}), strict=True))


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


def session_of(model: onnx.ModelProto) -> Any:
    onnx.checker.check_model(model, full_check=True)
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@cache
def stored(rows: int, dtype: str, seed: int) -> NDArray[np.float32]:
    keys = np.random.default_rng(seed).standard_normal((rows, NDIM)).astype(np.float32)
    return VectorIndex.build(keys, IndexConfig(NDIM, dtype=dtype)).vectors()


def make_case(rows: int, classes: int, dtype: str, config: BlendConfig, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed + 1)
    queries = rng.standard_normal((ASKED, NDIM))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    soft_labels = rng.dirichlet(np.full(classes, 0.3), size=rows).astype(np.float16)
    logits = (3 * rng.standard_normal((ASKED, classes))).astype(np.float32)
    return Case(logits, queries.astype(np.float32), FusedTables(stored(rows, dtype, seed), dtype, soft_labels), config)


def dense(soft_labels: NDArray[Any], classes: int) -> Wide:
    """Labels [n, c] of either form."""
    if soft_labels.dtype == np.float16:
        return soft_labels.astype(np.float64)
    found = np.zeros((len(soft_labels), classes))
    for row, (numbers, shares) in enumerate(zip(*np.split(soft_labels, 2, axis=1), strict=True)):
        for number, part in zip(numbers, shares, strict=True):
            found[row, number] += part / shares.sum(dtype=np.int64)
    return found


def top_labels(rows: int, classes: int, top: int, dtype: Any) -> NDArray[Any]:
    """For each row ``top`` different classes and shares that sum to the type's largest number."""
    rng = np.random.default_rng(rows)
    numbers = np.stack([rng.permutation(classes)[:top] for _ in range(rows)])
    shares = rng.multinomial(np.iinfo(dtype).max, rng.dirichlet(np.ones(top), size=rows))
    return np.concatenate([numbers, shares], axis=1).astype(dtype)


def softmax(values: Wide) -> Wide:
    exponents = np.exp(values - values.max())
    return exponents / exponents.sum()


def entropy(p: Wide) -> float:
    return -math.fsum(x * math.log(x) for x in p if x > 0) / math.log(len(p)) if len(p) > 1 else 0.0


def rounded(query: Wide, dtype: str) -> Wide:
    if dtype == "i8":
        return np.trunc(query * 127 / math.sqrt(math.fsum(query * query)))
    return query.astype({"f16": np.float16, "f32": np.float32}[dtype]).astype(np.float64)


def share(weight: ExampleWeight | None, config: BlendConfig, p: Wide, r: Wide, similarities: Wide) -> float:
    top, last = similarities[0], similarities[-1]
    if weight is None:
        return config.student_weight
    if isinstance(weight, BucketWeight):
        return weight.weights[sum(top >= edge for edge in weight.edges)]
    features = [top, top - last, entropy(r), entropy(p), float(p.argmax() == r.argmax())]
    score = weight.intercept + math.fsum(a * x for a, x in zip(weight.coefficients, features, strict=True))
    return 1 / (1 + math.exp(-score))


def by_hand(case: Case, asked: int) -> dict[str, Any]:
    """The formulas of docs/reference/bundle.md in float64."""
    config, knowledge = case.config, case.knowledge
    query = rounded(case.queries[asked].astype(np.float64), knowledge.dtype)
    keys = knowledge.keys.astype(np.float64)
    cosines = keys @ query / np.linalg.norm(keys, axis=1) / np.linalg.norm(query)
    rows = np.argsort(-cosines, kind="stable")[: config.k]
    weights = softmax(cosines[rows] / config.tau)
    r = weights @ dense(knowledge.soft_labels, case.logits.shape[1])[rows]
    r /= r.sum()
    p = softmax(case.logits[asked].astype(np.float64) / config.student_temperature)
    w = share(config.weight, config, p, r, cosines[rows])
    return {
        "probabilities": w * p + (1 - w) * r,
        "student_probabilities": p,
        "retrieval_probabilities": r,
        "student_weight": w,
        "neighbour_rows": rows,
        "neighbour_similarities": cosines[rows],
        "neighbour_weights": weights,
    }


def require_right(case: Case) -> None:
    found = case.run(list(range(ASKED)))
    for asked in range(ASKED):
        expected = by_hand(case, asked)
        assert found["neighbour_rows"][asked].tolist() == expected.pop("neighbour_rows").tolist()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][asked], value, atol=tolerance(case.config), err_msg=name)
        assert found["label"][asked] == case.labels[int(found["probabilities"][asked].argmax())]
        np.testing.assert_array_equal(found["embedding"][asked], case.queries[asked])
        np.testing.assert_array_equal(found["logits"][asked], case.logits[asked])
    require_same_blend(case)


def require_same_blend(case: Case) -> None:
    """The runtime's blend of one text and of a batch give what the ONNX nodes are compared with."""
    config, knowledge = case.config, case.knowledge
    expected = [by_hand(case, asked) for asked in range(ASKED)]
    student, similarities, retrieved, mixed, shares = (
        np.stack([one[name] for one in expected])
        for name in (
            "student_probabilities",
            "neighbour_similarities",
            "retrieval_probabilities",
            "probabilities",
            "student_weight",
        )
    )
    labels = np.stack([dense(knowledge.soft_labels, student.shape[1])[one["neighbour_rows"]] for one in expected])
    many = blend_batch(student, similarities, labels, config)
    np.testing.assert_allclose(many.probabilities, mixed, atol=1e-9)
    np.testing.assert_allclose(many.retrieval_probabilities, retrieved, atol=1e-9)
    np.testing.assert_allclose(many.student_weights, shares, atol=1e-9)
    for asked in range(ASKED):
        one = blend(student[asked].astype(np.float32), similarities[asked].astype(np.float32), labels[asked], config)
        for found, value in (
            (one.probabilities, mixed[asked]),
            (one.retrieval_probabilities, retrieved[asked]),
            (one.weights, expected[asked]["neighbour_weights"]),
            (one.student_weight, shares[asked]),
        ):
            np.testing.assert_allclose(found, value, atol=tolerance(config))


numbers = st.floats(-8, 8, width=32)


@st.composite
def weights(draw: st.DrawFn) -> ExampleWeight | None:
    kind = draw(st.sampled_from(["constant", "buckets", "logistic"]))
    if kind == "logistic":
        return LogisticWeight(draw(numbers), draw(st.tuples(*[numbers] * 5)))
    if kind == "buckets":
        edges = sorted(draw(st.lists(st.floats(-1, 1), max_size=4, unique=True)))
        return BucketWeight(tuple(edges), tuple(draw(st.floats(0, 1)) for _ in range(len(edges) + 1)))
    return None


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 40),
    k=st.integers(1, 45),
    classes=st.sampled_from([1, 2, 3, 77]),
    dtype=st.sampled_from(DTYPES),
    tau=st.floats(0.02, 5),
    constant=st.floats(0, 1),
    temperature=st.floats(0.3, 4),
    weight=weights(),
    seed=st.integers(0, 3),
)
def test_it_computes_the_blend(
    rows: int,
    k: int,
    classes: int,
    dtype: str,
    tau: float,
    constant: float,
    temperature: float,
    weight: ExampleWeight | None,
    seed: int,
) -> None:
    config = BlendConfig(k, tau, constant, student_temperature=temperature, weight=weight)
    require_right(make_case(rows, classes, dtype, config, seed))


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_it_computes_each_form_of_it(name: str, dtype: str) -> None:
    require_right(make_case(300, 4, dtype, VARIANTS[name]))


@pytest.mark.parametrize(("classes", "top", "dtype"), [(20, 1, np.uint8), (150, 4, np.uint8), (300, 3, np.uint16)])
@pytest.mark.parametrize("name", ["constant", "one neighbour", "logistic"])
def test_labels_may_be_the_likeliest_few(name: str, classes: int, top: int, dtype: Any) -> None:
    case = make_case(200, classes, "f16", VARIANTS[name])
    knowledge = replace(case.knowledge, soft_labels=top_labels(200, classes, top, dtype))
    require_right(replace(case, knowledge=knowledge))


def test_a_batch_is_answered_as_its_rows() -> None:
    case = make_case(50, 7, "f16", VARIANTS["logistic"])
    together = case.run([3, 0, 3, 5])
    for place, asked in enumerate([3, 0, 3, 5]):
        for name, value in case.run([asked]).items():
            if name == "label":
                assert value[0] == together[name][place]
            else:
                np.testing.assert_allclose(together[name][place], value[0], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_equally_near_rows_the_lower_comes_first(dtype: str) -> None:
    case = make_case(9, 3, dtype, replace(PLAIN, k=4))
    twice = FusedTables(np.tile(case.knowledge.keys, (5, 1)), dtype, np.tile(case.knowledge.soft_labels, (5, 1)))
    found = replace(case, knowledge=twice).run(list(range(ASKED)))
    nearest = case.run(list(range(ASKED)))["neighbour_rows"][:, 0]
    np.testing.assert_array_equal(found["neighbour_rows"], nearest[:, None] + 9 * np.arange(4))


def test_a_similarity_at_an_edge_belongs_above_it() -> None:
    case = make_case(30, 3, "f16", replace(PLAIN, k=1))
    tops = case.run(list(range(ASKED)))["neighbour_similarities"][:, 0]
    for asked, top in enumerate(tops.astype(np.float64)):
        for edge, expected in ((top, 0.9), (math.nextafter(top, 2), 0.1)):
            weight = BucketWeight((edge,), (0.1, 0.9))
            found = replace(case, config=replace(case.config, weight=weight)).run([asked])
            assert found["student_weight"][0] == np.float32(expected)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, width=32))
def test_an_edge_in_float32_divides_the_float32_as_before(edge: float, value: float) -> None:
    (narrow,) = rounded_up([edge])
    assert narrow.dtype == np.float32
    assert (np.float32(value) >= narrow) == (value >= edge)
    near = np.float32(np.clip(edge, -3e38, 3e38))
    for close in (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))):
        assert (close >= narrow) == (float(close) >= edge)


def test_a_key_that_its_type_left_nothing_of_is_like_nothing() -> None:
    case = make_case(3, 2, "f16", replace(PLAIN, k=3))
    keys = case.knowledge.keys.copy()
    keys[1] = 0
    found = replace(case, knowledge=replace(case.knowledge, keys=keys)).run([0])
    place = found["neighbour_rows"][0].tolist().index(1)
    assert found["neighbour_similarities"][0][place] == 0 and np.isfinite(found["probabilities"]).all()


class TestTheFile:
    def test_its_names_and_shapes(self) -> None:
        case = make_case(20, 3, "i8", PLAIN)
        session = session_of(case.model())
        sizes = {"c": 3, "k": 5, "d": NDIM, "batch": "batch"}
        expected = {name: (kind, [sizes[one] for one in shape]) for name, (kind, shape) in SHAPES.items()}
        assert {output.name: (output.type, output.shape) for output in session.get_outputs()} == expected
        assert [given.name for given in session.get_inputs()] == ["input_ids"]
        assert all(output.doc_string for output in case.model().graph.output)

    def test_names_and_metadata(self) -> None:
        case = make_case(20, 3, "f16", PLAIN)
        found = session_of(case.model()).get_modelmeta().custom_metadata_map
        assert {name: json.loads(value) for name, value in found.items()} == {
            "reaugkd.labels": case.labels,
            "reaugkd.max_length": 24,
            "reaugkd.bundle_seal": "é",
        }

    def test_a_student_may_use_our_names(self) -> None:
        case = make_case(20, 3, "f16", PLAIN)
        student = lookup(case.logits, case.queries)
        student.graph.node[0].output[0] = student.graph.node[1].input[1] = student.graph.node[2].input[1] = "label"
        model = fused_model(student, case.knowledge, case.config, case.labels, {})
        assert session_of(model).run(["neighbour_rows"], {"input_ids": np.array([[2]])})[0].shape == (1, 5)

    @pytest.mark.parametrize("opset", [16, 17, 18, 21])
    def test_it_keeps_the_students_operator_set(self, opset: int) -> None:
        case = make_case(20, 3, "i8", VARIANTS["logistic"])
        model = case.model(opset)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
        assert {node.domain for node in model.graph.node} == {""}
        (found,) = session_of(model).run(["probabilities"], {"input_ids": np.array([[2]])})
        np.testing.assert_allclose(found[0], by_hand(case, 2)["probabilities"], atol=1e-5)

    def test_an_older_opset_is_refused(self) -> None:
        with pytest.raises(BundleError, match="opset 15"):
            make_case(20, 3, "f16", PLAIN).model(opset=15)

    @pytest.mark.parametrize(("dtype", "width"), [("f32", 4), ("f16", 2), ("i8", 1)])
    def test_keys_take_the_bytes_of_their_type(self, dtype: str, width: int) -> None:
        small, large = (len(make_case(rows, 3, dtype, PLAIN).model().SerializeToString()) for rows in (100, 300))
        row = NDIM * width + 4 + 3 * 2  # the key, one over its length, three float16 labels
        assert abs(large - small - 200 * row) < 16
        knowledge = make_case(300, 3, dtype, PLAIN).knowledge
        assert knowledge.nbytes == 300 * row
