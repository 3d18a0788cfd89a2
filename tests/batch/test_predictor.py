from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batch_jobs import texts
from support.heldout_bundle import add_abstention
from support.tiny_bundle import WORDS, tiny_texts

from reaugkd import BundleError, ColumnError, ReaugkdError, Runtime, TextError, UsageError
from reaugkd.batch import Predictor

ADDED = ("label", "score", "retrieved", "abstained", "error")

CELLS = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join),
    st.text(max_size=8),
    st.sampled_from(["", " ", "nan", "<NA>", "\x00", "ø", "\ud800", "noon\n", "1"]),
)
OTHERS = st.one_of(
    st.none(), st.integers(), st.floats(), st.booleans(), st.binary(max_size=8), st.lists(st.integers(), max_size=2)
)


@pytest.fixture(scope="module")
def runtime(edge_bundle: Path) -> Any:
    with Runtime.open(edge_bundle) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def predictor(edge_bundle: Path) -> Predictor:
    return Predictor(edge_bundle)


def expected(runtime: Runtime, cell: object) -> tuple[object, ...]:
    """The added cells but the error, by one call of `Runtime.predict`; None where it refuses or the text is missing."""
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "surrogateescape")
    try:
        answer = runtime.predict(cell)  # type: ignore[arg-type]
    except ReaugkdError:
        answer = None
    if answer is None or cell in ("nan", "NaN", "NAN", "<NA>"):
        return (None, None, None, None)
    return (answer.label, answer.probability, answer.retrieved, False)


def check(runtime: Runtime, cells: list[Any], found: list[list[Any]]) -> None:
    *values, errors = found
    assert [tuple(row) for row in zip(*values, strict=True)] == [expected(runtime, cell) for cell in cells]
    assert [isinstance(error, str) and len(error) > 5 for error in errors] == [row is None for row in values[0]]
    assert all(error is None for error, label in zip(errors, values[0], strict=True) if label is not None)


def objects(cells: list[Any]) -> Any:
    array = np.empty(len(cells), object)
    array[:] = cells
    return array


def without_nan(values: Any) -> list[Any]:
    return [None if isinstance(value, float) and np.isnan(value) else value for value in values.tolist()]


@given(cells=st.lists(st.one_of(CELLS, OTHERS), max_size=8))
def test_arrays_of_any_cells(runtime: Runtime, predictor: Predictor, cells: list[Any]) -> None:
    batch = {"text": objects(cells), "vector": np.zeros((len(cells), 3))}
    found = predictor(batch)
    assert list(found) == ["text", "vector", *ADDED] and list(batch) == ["text", "vector"]
    assert found["text"] is batch["text"] and found["vector"] is batch["vector"]
    check(runtime, cells, [without_nan(found[name]) for name in ADDED])


@given(cells=st.lists(st.one_of(CELLS, OTHERS), max_size=8))
def test_data_frames_of_any_cells(runtime: Runtime, predictor: Predictor, cells: list[Any]) -> None:
    frame = pd.DataFrame({"text": pd.Series(cells, dtype=object), "n": range(len(cells))})
    frame.index = frame.index + 10
    found = predictor(frame)
    assert isinstance(found, pd.DataFrame) and list(found.columns) == ["text", "n", *ADDED]
    pd.testing.assert_frame_equal(found[["text", "n"]], frame)
    check(runtime, cells, [without_nan(found[name].to_numpy()) for name in ADDED])


@given(
    cells=st.lists(
        st.one_of(st.none(), st.binary(max_size=8), CELLS.filter(lambda one: one.isprintable())), max_size=8
    ),
    kind=st.sampled_from(["string", "large_string", "binary", "dictionary", "view"]),
    chunks=st.booleans(),
)
def test_arrow_columns_of_every_kind(
    runtime: Runtime, predictor: Predictor, cells: list[Any], kind: str, chunks: bool
) -> None:
    """Also strings that are not UTF-8, which Arrow does not look for."""
    raw = [one.encode() if isinstance(one, str) else one for one in cells]
    column = pa.array(raw, pa.binary())
    if kind in ("string", "large_string"):
        wide = pa.array(raw, pa.large_binary() if kind == "large_string" else pa.binary())
        column = wide.view(getattr(pa, kind)())
    elif kind == "view":
        column = pa.array(raw, pa.binary_view())
    elif kind == "dictionary":
        column = column.dictionary_encode()
    table = pa.table({"n": range(len(cells)), "text": column}).replace_schema_metadata({"a": "b"})
    if chunks and len(cells) > 1:
        table = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    found = predictor(table)
    assert type(found) is pa.Table and found.schema.metadata == {b"a": b"b"}
    assert found.select(["n", "text"]).equals(table)
    assert found.schema.names[2:] == list(ADDED)
    assert [str(found.schema.field(name).type) for name in ADDED] == ["string", "double", "bool", "bool", "string"]
    check(runtime, raw, [found[name].to_pylist() for name in ADDED])
    for batch in table.to_batches():
        part = predictor(batch)
        assert type(part) is pa.RecordBatch and part.num_rows == batch.num_rows


def test_other_options(edge_bundle: Path, bundle: Path) -> None:
    some = texts(20)
    with Runtime.open(edge_bundle) as runtime:
        table = Predictor(edge_bundle, text="t", prefix="p_", top_k=2, threads=3)(pa.table({"t": some, "label": some}))
        for row, text in zip(table.to_pylist(), some, strict=True):
            answer = runtime.predict(text)
            assert row["label"] == row["t"] == text and row["p_label"] == answer.label
            assert list(zip(row["p_labels"], row["p_scores"], strict=True)) == list(answer.top(2))
    with Runtime.open(edge_bundle, retrieval="never") as runtime:
        table = Predictor(edge_bundle, retrieval="never")(pa.table({"text": some}))
        assert table["retrieved"].to_pylist() == [False] * 20
        assert table["score"].to_pylist() == [runtime.predict(text).probability for text in some]
    goal = "coverage=60%"
    abstained = Predictor(add_abstention(bundle), abstain=goal)(pa.table({"text": some}))["abstained"].to_pylist()
    with Runtime.open(bundle) as runtime:
        assert abstained == [runtime.predict(text, abstain=goal).abstained for text in some]
    assert set(abstained) == {True, False}


def test_pairs(pair_bundle: Path) -> None:
    pairs = tiny_texts(10, pairs=True)
    batch = {"a": np.array([a for a, _ in pairs]), "b": objects([*(b for _, b in pairs[:-1]), None])}
    found = Predictor(pair_bundle, text="a", text_pair="b")(batch)
    with Runtime.open(pair_bundle) as runtime:
        assert found["label"].tolist()[:-1] == [runtime.predict(pair).label for pair in pairs[:-1]]
    assert found["error"][-1].startswith("column 'b': the text is missing")


def test_a_masked_cell_is_a_missing_text(predictor: Predictor) -> None:
    found = predictor({"text": np.ma.masked_array(["noon", "alarm"], [False, True])})
    assert found["error"][0] is None and "the text is missing" in found["error"][1]


def test_a_pickle_opens_the_bundle_again(edge_bundle: Path) -> None:
    predictor = Predictor(edge_bundle, prefix="p_", abstain=None, on_error="raise")
    copy = pickle.loads(pickle.dumps(predictor))
    table = pa.table({"text": texts(5)})
    assert copy.runtime is not predictor.runtime and copy(table).equals(predictor(table))
    with pytest.raises(TextError, match="column 'text': the text is missing"):
        copy(pa.table({"text": ["noon", None]}))


def test_what_does_not_fit_is_refused_at_once(edge_bundle: Path, pair_bundle: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ({"text_pair": "b"}, "this model reads single texts"),
        ({"on_error": "skip"}, "on_error is unknown"),
        ({"top_k": 0}, "the number of labels is unusable"),
        ({"abstain": "coverage=95%"}, "abstention"),
        ({"abstain": "often"}, "not an abstention goal"),
        ({"retrieval": "gated"}, "no gate"),
        ({"prefix": None}, "prefix of the new columns"),
    ):
        with pytest.raises(UsageError, match=message):
            Predictor(edge_bundle, **arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="this model reads pairs"):
        Predictor(pair_bundle)
    with pytest.raises(BundleError):
        Predictor(tmp_path)
    predictor = Predictor(edge_bundle)
    with pytest.raises(ColumnError, match=r"'label': the input has .* prefix=\"predicted_\""):
        predictor({"text": np.array(["noon"]), "label": np.array([1])})
    with pytest.raises(ColumnError, match="found the columns 'question'"):
        predictor(pd.DataFrame({"question": ["noon"]}))
    with pytest.raises(UsageError, match="differ in length"):
        predictor({"text": np.array(["noon"]), "id": np.arange(2)})
    for cells in ("noon", np.array("noon")):
        with pytest.raises(UsageError, match="the column 'text' is no array"):
            predictor({"text": cells})
    for other in (["noon"], "noon", None):
        with pytest.raises(UsageError, match="the batch is of an unknown kind"):
            predictor(other)


def test_without_pyarrow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("reaugkd.batch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ReaugkdError, match=r"pip install 'reaugkd\[batch\]'"):
        __import__("reaugkd.batch")
