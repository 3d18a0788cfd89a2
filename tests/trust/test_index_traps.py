"""Silent failures of vector indexes, tried on every dtype: built, mapped, and mapped again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from support.tiny_bundle import build_tiny_bundle

from reaugkd import ModelError, Runtime, UsageError
from reaugkd.kb.index.config import DTYPES, IndexConfig
from reaugkd.kb.index.hnsw import VectorIndex
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.runtime.bundle.bundle import MODEL_FILE
from reaugkd.runtime.inference.graph_pipeline import GraphPipeline
from reaugkd.runtime.inference.session.retrieval_session import RetrievalSession
from reaugkd.runtime.inference.session.student import StudentSession

NDIM = 16
TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "i8": 3e-2}
Opened = Callable[[NDArray[np.float32]], VectorIndex]


def vectors(rows: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, NDIM)).astype(np.float32)


# Every opening with the default dtype, and every other dtype once.
OPENINGS = [("i8", "built"), ("i8", "viewed"), ("i8", "viewed twice")]
OPENINGS += [("f16", "viewed"), ("f32", "built")]


@pytest.fixture(params=OPENINGS, ids=" ".join)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Return a function that builds an index of keys; ``opened.dtype`` is the type."""
    dtype, how = request.param
    config = IndexConfig(NDIM, dtype=dtype, connectivity=3, expansion_add=8, expansion_search=4)

    def make(keys: NDArray[np.float32]) -> VectorIndex:
        index = VectorIndex.build(keys, config)
        if how == "built":
            return index
        index.save(tmp_path / "index")
        if how == "viewed":
            return VectorIndex.view(tmp_path / "index", config)
        first, second = (VectorIndex.view(tmp_path / "index", config) for _ in range(2))
        if len(keys):
            first.search(vectors(1, seed=99)[0], 3)
        del first  # the second map must not hang on the first
        return second

    yield make


def cosines(query: NDArray[np.float32], keys: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return cosines in float64, for queries of any length."""
    directions = [wide / np.abs(wide).max(axis=-1, keepdims=True) for wide in (query.astype(float), keys.astype(float))]
    norms = [np.linalg.norm(wide, axis=-1) for wide in directions]
    cosine: NDArray[np.float64] = directions[1] @ directions[0] / norms[0] / norms[1]
    return cosine


def check_answer(index: VectorIndex, keys: NDArray[np.float32], query: NDArray[np.float32], k: int) -> None:
    """Check a result: the number of rows, no repeated row, the cosine of each, best first."""
    rows, similarities = index.search(query, k)
    wanted = min(k, len(keys))
    assert rows.shape == similarities.shape == (wanted,)
    assert rows.dtype == np.int64 and similarities.dtype == np.float32
    assert set(rows.tolist()) <= set(range(len(keys))) and len(set(rows.tolist())) == wanted
    assert np.isfinite(similarities).all() and (np.diff(similarities) <= 0).all()
    if wanted:
        tolerance = TOLERANCE[index.config.dtype]
        np.testing.assert_allclose(similarities, cosines(query, keys)[rows], atol=tolerance)
        if wanted == len(keys):
            np.testing.assert_allclose(similarities, -np.sort(-cosines(query, keys)), atol=tolerance)
    many_rows, many = index.search_many(np.stack([query, query]), k, threads=2)
    for found, similar in zip(many_rows, many, strict=True):
        assert found.tobytes() == rows.tobytes() and similar.tobytes() == similarities.tobytes()


@pytest.mark.parametrize("rows", [0, 1, 2, 57])
def test_any_k_on_any_size(opened: Opened, rows: int) -> None:
    keys = vectors(rows)
    index = opened(keys)
    for k in (0, 1, rows - 1, rows, rows + 1, 10_000):
        if k >= 0:
            check_answer(index, keys, vectors(1, seed=7)[0], k)
            if rows:
                check_answer(index, keys, keys[rows // 2], k)


def test_many_rows_with_one_key(opened: Opened) -> None:
    """Equal rows are common in data; their distances tie, and every graph walk ends among them."""
    keys = np.repeat(vectors(4), 40, axis=0)
    index = opened(keys)
    for k in (1, 39, 40, 41, 160, 200):
        for query in (keys[0], keys[-1], vectors(1, seed=3)[0]):
            check_answer(index, keys, query, k)


def test_all_rows_with_one_key(opened: Opened) -> None:
    keys = np.repeat(vectors(1), 100, axis=0)
    index = opened(keys)
    for k in (1, 50, 100):
        check_answer(index, keys, keys[0], k)
        check_answer(index, keys, -keys[0], k)


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-20, 1e-6, 1e-3, 1e3, 1e6, 1e20, 1e37])
@pytest.mark.filterwarnings("error")
def test_a_querys_length_does_not_matter(opened: Opened, scale: float) -> None:
    """In usearch it does: float16 ends at 65,504, and infinite or zero queries find nothing."""
    keys = vectors(60)
    index = opened(keys)
    for query in vectors(5, seed=5):
        scaled = (query.astype(np.float64) * scale).astype(np.float32)
        check_answer(index, keys, scaled, 60)
        if scale > 1e-30:  # below, float32 itself loses the direction
            np.testing.assert_allclose(index.search(scaled, 8)[1], index.search(query, 8)[1], atol=2e-3)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(NDIM),
        np.full(NDIM, np.nan),
        *(np.where(np.arange(NDIM) == at, value, 0.5) for at, value in ((0, np.nan), (NDIM - 1, -np.inf))),
    ],
)
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [0, 30])
def test_a_query_without_a_direction_is_refused(opened: Opened, rows: int, bad: NDArray[np.float64]) -> None:
    index, query = opened(vectors(rows)), bad.astype(np.float32)
    good = vectors(3, seed=2)
    with pytest.raises(UsageError, match="a query has no direction"):
        index.search(query, 5)
    for call in (lambda at: index.search_many(at, 5), lambda at: index.trial(at, 5, 16)):
        with pytest.raises(UsageError, match="row 3: a query has no direction"):
            call(np.stack([good[0], good[1], query, good[2]]))
    if rows:
        check_answer(index, vectors(rows), good[0], 5)


def test_a_query_of_another_width_is_refused(opened: Opened) -> None:
    index = opened(vectors(20))
    for width in (1, NDIM - 1, NDIM + 1, 2 * NDIM):
        with pytest.raises(ValueError, match="dimensions"):
            index.search(np.ones(width, np.float32), 3)


def test_threads_of_both_kinds_after_opening(opened: Opened) -> None:
    """With usearch's threads and with Python's: searches share scratch memory in the graph."""
    keys, queries = vectors(300), vectors(80, seed=1)
    index = opened(keys)
    expected_rows, expected = index.search_many(queries, 7)
    wrong: list[int] = []

    def work(threads: int) -> None:
        for at, query in enumerate(queries):
            rows, similarities = index.search(query, 7)
            if rows.tobytes() != expected_rows[at].tobytes() or similarities.tobytes() != expected[at].tobytes():
                wrong.append(at)
        rows, similarities = index.search_many(queries, 7, threads)
        if rows.tobytes() != expected_rows.tobytes() or similarities.tobytes() != expected.tobytes():
            wrong.append(-1)

    workers = [threading.Thread(target=work, args=(threads,)) for threads in (1, 2, 3, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 30),
    k=st.integers(1, 40),
    exponent=st.floats(-30, 30),
    copies=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
def test_any_finite_query_has_an_answer(dtype: str, rows: int, k: int, exponent: float, copies: int, seed: int) -> None:
    keys = np.repeat(vectors(rows, seed), copies, axis=0)
    index = VectorIndex.build(keys, IndexConfig(NDIM, dtype=dtype, connectivity=2, expansion_search=1))
    query = (vectors(1, seed + 1)[0].astype(np.float64) * 10**exponent).astype(np.float32)
    check_answer(index, keys, query, k)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_students_broken_embedding_is_an_error_and_no_answer(
    tmp_path: Path, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With i8 keys usearch returned the same similarity for every row."""
    with Runtime.open(build_tiny_bundle(tmp_path / "tiny", dtype="i8"), search="usearch") as runtime:
        answer = runtime.student.answer(runtime.tokenizer.encode("noon"))
        broken = answer._replace(embedding=np.full_like(answer.embedding, bad))
        monkeypatch.setattr(StudentSession, "answer", lambda *_: broken)
        with pytest.raises(ModelError, match=r"embedding is not a number; found an embedding with largest component"):
            runtime.predict("noon")
        (error,) = runtime.predict_many(["noon"], on_error="return")
        assert isinstance(error, ModelError) and error.path == str(runtime.student.path)
        assert runtime.with_retrieval("never").predict("noon").label


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_model_s_broken_embedding_is_an_error_in_the_graph_too(tmp_path: Path, bad: float) -> None:
    """The quantization of the query would turn it into numbers."""
    path = build_tiny_bundle(tmp_path / "tiny", dtype="i8")
    runtime = Runtime.open(path)
    model = onnx.load(str(path / MODEL_FILE))
    (last,) = (node for node in model.graph.node if "embedding" in node.output)
    last.output[:] = ["unbroken" if name == "embedding" else name for name in last.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(bad, np.float32), "bad"))
    model.graph.node.append(helper.make_node("Mul", ["unbroken", "bad"], ["embedding"]))
    kb = runtime.knowledge_base
    assert isinstance(kb, KnowledgeBase)
    session = RetrievalSession(path / MODEL_FILE, kb, runtime.manifest.blend, 3, 1, model.SerializeToString())
    pipeline = GraphPipeline(runtime.manifest, runtime.tokenizer, session, kb, runtime.labels)
    with pytest.raises(ModelError, match="embedding is not a number"):
        pipeline.answer("noon")
