"""Search in inverted lists in the student's graph, compared with float64 and with the search over all keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.retrieval_case import ASKED, PLAIN, VARIANTS, Case, lookup, make_case, rounded, top_labels

from reaugkd.kb.index.lists import Lists
from reaugkd.runtime.graph.list_search import list_keys
from reaugkd.runtime.graph.retrieval import BLEND, ROWS, SCALED, retrieval_graph
from reaugkd.runtime.inference.session.onnxruntime_setup import import_onnxruntime
from reaugkd.runtime.inference.session.saturation import int8_saturates


def run(case: Case, asked: int, saturates: bool = False) -> dict[str, Any]:
    """The outputs for one input, with the arrays beside the model."""
    onnxruntime, classes = import_onnxruntime(), case.logits.shape[1]
    saturates = saturates or int8_saturates()  # a processor without VNNI, where the other way is wrong
    graph = retrieval_graph(case.tables, case.config, None, classes, saturates=saturates)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    kept = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in graph.arrays.items()}
    for name, value in kept.items():
        options.add_initializer(name, value)
    here = Path(__file__)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(here.parent))
    model = graph.appended_to(lookup(case.logits, case.queries).SerializeToString(), here.name)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, (part[0] for part in session.run(names, {"input_ids": [[asked]]})), strict=True))


def listed(case: Case, room: int, probes: int) -> Case:
    table = Lists.build(case.tables.keys, room).table
    return replace(case, tables=replace(case.tables, lists=Lists(table, min(probes, len(table)))))


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 60),
    k=st.integers(1, 70),
    room=st.sampled_from([1, 3, 16, 64]),
    name=st.sampled_from(sorted(VARIANTS)),
    labels=st.sampled_from(["all", "few"]),
    seed=st.integers(0, 3),
    saturates=st.booleans(),
)
def test_a_search_of_all_lists_is_the_search_of_all_keys(
    rows: int, k: int, room: int, name: str, labels: str, seed: int, saturates: bool
) -> None:
    case = make_case(rows, 20, "i8", replace(VARIANTS[name], k=k), seed)
    if labels == "few":
        case = replace(case, tables=replace(case.tables, soft_labels=top_labels(rows, 20, 3, np.uint8)))
    asked = seed % ASKED
    found, expected = run(listed(case, room, rows), asked, saturates), run(case, asked)
    assert set(found) == set(expected)
    assert len(set(found[ROWS].tolist())) == min(k, rows), "no row twice, and no empty place"
    same = found[ROWS] == expected[ROWS]
    np.testing.assert_allclose(found[SCALED], expected[SCALED], rtol=1e-5, atol=1e-5)  # where rows are equally near
    for output in set(found) - {ROWS}:
        if same.all():
            np.testing.assert_allclose(found[output], expected[output], atol=1e-5, rtol=1e-4, err_msg=output)


@pytest.mark.parametrize("probes", [1, 2, 5])
def test_it_finds_the_nearest_rows_of_the_lists_with_the_nearest_centres(probes: int) -> None:
    case = listed(make_case(300, 4, "i8", PLAIN), 16, probes)
    lists, keys = case.tables.lists, case.tables.keys.astype(np.float64)
    assert lists is not None
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    means = list_keys(case.tables.keys, lists).centres.astype(np.float64)
    for asked in range(ASKED):
        query = rounded(case.queries[asked])
        near = np.argsort(-(means @ query) / np.linalg.norm(means, axis=1))[: lists.enough(PLAIN.k)]
        rows = lists.table[near][lists.table[near] >= 0]
        rows = rows[np.argsort(-(keys[rows] @ query), kind="stable")][: PLAIN.k]
        found = run(case, asked)
        assert found[ROWS].tolist() == rows.tolist()
        np.testing.assert_allclose(found[SCALED] * PLAIN.tau, keys[rows] @ query, atol=1e-6)


def test_an_empty_place_is_no_neighbour_of_a_query_that_is_opposite_to_all_keys() -> None:
    case = make_case(5, 3, "i8", replace(PLAIN, k=5))
    keys = np.abs(case.tables.keys)
    case = replace(case, queries=-np.abs(case.queries), tables=replace(case.tables, keys=keys))
    found = run(listed(case, 64, 1), 0)
    assert sorted(found[ROWS].tolist()) == [0, 1, 2, 3, 4]
    assert (found[SCALED] < 0).all() and (found[SCALED] > -1 / PLAIN.tau).all()
    np.testing.assert_allclose(found[BLEND].sum(), 1, atol=1e-5)


def test_keys_that_cancel_out_and_a_key_of_zeros_have_finite_similarities() -> None:
    case = make_case(4, 2, "i8", replace(PLAIN, k=4))
    keys = case.tables.keys.copy()
    keys[1], keys[2] = -keys[0], 0
    lists = Lists(np.array([[0, 1, -1], [2, 3, -1]], np.int32), 2)
    found = run(replace(case, tables=replace(case.tables, keys=keys, lists=lists)), 0)
    assert sorted(found[ROWS].tolist()) == [0, 1, 2, 3] and np.isfinite(found[BLEND]).all()


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_keys_of_the_largest_components_are_multiplied_exactly(sign: int, saturates: bool) -> None:
    case = make_case(3, 2, "i8", replace(PLAIN, k=3))
    keys = np.full_like(case.tables.keys, sign * 127)
    keys[1, 0], keys[2, :2] = 0, -sign * 127
    lists = Lists(np.array([[0, 1], [2, -1]], np.int32), 2)
    found = run(replace(case, tables=replace(case.tables, keys=keys, lists=lists)), 2, saturates)
    wide = keys / np.linalg.norm(keys.astype(np.float64), axis=1, keepdims=True)
    expected = wide @ rounded(case.queries[2])
    assert found[ROWS].tolist() == np.argsort(-expected).tolist()
    np.testing.assert_allclose(found[SCALED] * PLAIN.tau, np.sort(expected)[::-1], atol=1e-6)
