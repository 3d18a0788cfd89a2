"""Retrieval in the student's graph, compared with the search and the blend in numpy float64."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from support.retrieval_case import (
    ASKED,
    PLAIN,
    VARIANTS,
    Case,
    Wide,
    lookup,
    make_case,
    rounded,
    session_of,
    top_labels,
)

from reaugkd.export.onnx.fused_check import tolerance
from reaugkd.kb.index.config import DTYPES
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.blending import blend, blend_batch
from reaugkd.runtime.decision.mixture_weight import BucketWeight, ExampleWeight, LogisticWeight
from reaugkd.runtime.graph.retrieval import (
    BEST,
    BLEND,
    RETRIEVED,
    ROWS,
    SCALED,
    STUDENT,
    WEIGHT,
    Tables,
    retrieval_graph,
)
from reaugkd.runtime.graph.weight_nodes import rounded_up


def dense(soft_labels: NDArray[Any], classes: int) -> Wide:
    """Labels [n, c] of either form."""
    if soft_labels.dtype == np.float16:
        return soft_labels.astype(np.float64)
    found = np.zeros((len(soft_labels), classes))
    for row, (numbers, shares) in enumerate(zip(*np.split(soft_labels, 2, axis=1), strict=True)):
        for number, part in zip(numbers, shares, strict=True):
            found[row, number] += part / shares.sum(dtype=np.int64)
    return found


def softmax(values: Wide) -> Wide:
    exponents = np.exp(values - values.max())
    return exponents / exponents.sum()


def entropy(p: Wide) -> float:
    return -math.fsum(x * math.log(x) for x in p if x > 0) / math.log(len(p)) if len(p) > 1 else 0.0


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
    config, tables = case.config, case.tables
    query, keys = case.queries[asked], tables.keys.astype(np.float64)
    wide = rounded(query) if tables.keys.dtype == np.int8 and case.integer else query.astype(np.float64)
    cosines = keys @ wide / np.linalg.norm(keys, axis=1)
    rows = np.argsort(-cosines, kind="stable")[: config.k]
    weights = softmax(cosines[rows] / config.tau)
    labels = dense(tables.soft_labels, case.logits.shape[1])[rows]
    r = weights @ (labels / labels.sum(axis=1, keepdims=True))
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
    found, k = case.run(list(range(ASKED))), min(case.config.k, len(case.tables.keys))
    for asked in range(ASKED):
        expected = by_hand(case, asked)
        cosines = found[SCALED][asked] * case.config.tau
        assert found[SCALED].shape == (ASKED, k)
        require_nearest(case, asked, found[ROWS][asked], expected)
        outputs = {
            "probabilities": found[BLEND][asked],
            "student_probabilities": found[STUDENT][asked],
            "retrieval_probabilities": found[RETRIEVED][asked],
            "neighbour_similarities": cosines,
        }
        if case.config.weight is not None:
            outputs["student_weight"] = found[WEIGHT][asked][0]
        for name, value in outputs.items():
            np.testing.assert_allclose(value, expected[name], atol=tolerance(case.config), err_msg=name)
        assert found[BEST][asked] == found[BLEND][asked].argmax()
    require_same_blend(case)


def require_nearest(case: Case, asked: int, rows: NDArray[np.int64], expected: dict[str, Any]) -> None:
    """The rows are the nearest ones; float32 cannot tell rows apart that differ by its rounding."""
    if rows.tolist() != expected["neighbour_rows"].tolist():
        every = by_hand(replace(case, config=replace(case.config, k=len(case.tables.keys))), asked)
        of_row = dict(zip(every["neighbour_rows"].tolist(), every["neighbour_similarities"], strict=True))
        assert len(set(rows.tolist())) == len(rows)
        np.testing.assert_allclose([of_row[row] for row in rows], expected["neighbour_similarities"], atol=1e-6)


def require_same_blend(case: Case) -> None:
    """The runtime's blend of one text and of a batch give what the ONNX nodes are compared with."""
    config, tables = case.config, case.tables
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
    labels = np.stack([dense(tables.soft_labels, student.shape[1])[one["neighbour_rows"]] for one in expected])
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_it_computes_each_form_of_it(name: str, dtype: str) -> None:
    require_right(make_case(300, 4, dtype, VARIANTS[name]))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_graph_for_one_text_computes_it_too(name: str) -> None:
    require_right(replace(make_case(300, 4, "i8", VARIANTS[name]), single=True))


@pytest.mark.parametrize(("classes", "top", "dtype"), [(20, 1, np.uint8), (150, 4, np.uint8), (300, 3, np.uint16)])
@pytest.mark.parametrize("name", ["constant", "one neighbour", "logistic"])
def test_labels_may_be_the_likeliest_few(name: str, classes: int, top: int, dtype: Any) -> None:
    case = make_case(200, classes, "i8", VARIANTS[name])
    require_right(replace(case, tables=replace(case.tables, soft_labels=top_labels(200, classes, top, dtype))))


@pytest.mark.parametrize("name", ["constant", "logistic"])
def test_products_in_float32_are_exact_without_vnni(name: str) -> None:
    require_right(replace(make_case(200, 4, "i8", VARIANTS[name]), integer=False))


def test_a_batch_is_answered_as_its_rows() -> None:
    case = make_case(50, 7, "f16", VARIANTS["logistic"])
    together = case.run([3, 0, 3, 5], together=True)
    for place, asked in enumerate([3, 0, 3, 5]):
        for name, value in case.run([asked]).items():
            np.testing.assert_allclose(together[name][place], value[0], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_equally_near_rows_the_lower_comes_first(dtype: str) -> None:
    case = make_case(9, 3, dtype, replace(PLAIN, k=4))
    keys, labels = np.tile(case.tables.keys, (5, 1)), np.tile(case.tables.soft_labels, (5, 1))
    found = replace(case, tables=Tables(keys, labels, 3)).run(list(range(ASKED)))
    nearest = case.run(list(range(ASKED)))[ROWS][:, 0]
    np.testing.assert_array_equal(found[ROWS], nearest[:, None] + 9 * np.arange(4))


def test_a_similarity_at_an_edge_belongs_above_it() -> None:
    """With tau 1 the graph's similarities are the cosines themselves."""
    case = make_case(30, 3, "f16", replace(PLAIN, k=1, tau=1.0))
    tops = case.run(list(range(ASKED)))[SCALED][:, 0]
    for asked, top in enumerate(tops.astype(np.float64)):
        for edge, expected in ((top, 0.9), (math.nextafter(top, 2), 0.1)):
            weight = BucketWeight((edge,), (0.1, 0.9))
            found = replace(case, config=replace(case.config, weight=weight)).run([asked])
            assert found[WEIGHT][0, 0] == np.float32(expected)


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
    keys = case.tables.keys.copy()
    keys[1] = 0
    found = replace(case, tables=replace(case.tables, keys=keys)).run([0])
    place = found[ROWS][0].tolist().index(1)
    assert found[SCALED][0][place] == 0 and np.isfinite(found[BLEND]).all()


def test_with_labels_that_the_student_does_not_know_it_only_searches() -> None:
    case = make_case(20, 3, "i8", PLAIN)
    wider = replace(case.tables, soft_labels=np.full((20, 5), 0.2, np.float16), num_labels=5)
    found, whole = replace(case, tables=wider).run([2]), case.run([2])
    assert set(found) == {"logits", "embedding", STUDENT, SCALED, ROWS}
    np.testing.assert_array_equal(found[ROWS], whole[ROWS])


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_it_fits_a_students_operator_set(opset: int) -> None:
    case = make_case(20, 3, "i8", VARIANTS["logistic"])
    found = case.run([2], opset)[BLEND]
    np.testing.assert_allclose(found[0], by_hand(case, 2)["probabilities"], atol=1e-5)
    model = onnx.load_model_from_string(case.model(opset))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset), ("com.microsoft", 1)]


def test_a_model_may_know_the_operators_already() -> None:
    case = make_case(20, 3, "i8", PLAIN)
    student = lookup(case.logits, case.queries)
    student.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model = retrieval_graph(case.tables, case.config, None, 3).appended_to(student.SerializeToString())
    assert len(onnx.load_model_from_string(model).opset_import) == 2
    assert session_of(model).run([ROWS], {"input_ids": np.array([[2]])})[0].shape == (1, 5)


@pytest.mark.parametrize("weight", ["constant", "buckets", "logistic"])
def test_what_it_writes_is_what_the_onnx_library_reads(weight: str) -> None:
    """Names, attributes, constants and shapes, in the library's own words."""
    case = make_case(20, 3, "i8", VARIANTS[weight])
    model = onnx.load_model_from_string(case.model())
    onnx.checker.check_model(model)
    top = next(node for node in model.graph.node if node.op_type == "TopK")
    assert {entry.name: helper.get_attribute_value(entry) for entry in top.attribute} == {"axis": -1}
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    np.testing.assert_array_equal(constants["reaugkd/keys"], case.tables.keys.T)
    np.testing.assert_array_equal(constants["reaugkd/soft_labels"], case.tables.soft_labels)
    shapes = {
        one.name: [size.dim_param or size.dim_value for size in one.type.tensor_type.shape.dim]
        for one in model.graph.output
    }
    assert shapes[BLEND] == ["batch", 3] and shapes[ROWS] == ["batch", 5] and shapes[BEST] == ["batch"]
