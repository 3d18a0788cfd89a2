from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reaugkd import BundleError, BundleIntegrityError, UsageError
from reaugkd.kb.index import hnsw as module
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.hnsw import VectorIndex

TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "i8": 3e-2}


def vectors(rows: int, ndim: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, ndim)).astype(np.float32)


def cosines(queries: NDArray[np.float32], keys: NDArray[np.float32]) -> NDArray[np.float64]:
    """The reference: exact cosines in float64."""
    wide_q, wide_k = queries.astype(np.float64), keys.astype(np.float64)
    norms = np.linalg.norm(wide_q, axis=1)[:, None] * np.linalg.norm(wide_k, axis=1)[None]
    return wide_q @ wide_k.T / norms


@pytest.mark.parametrize("dtype", ["f32", "f16", "i8"])
def test_search_agrees_with_brute_force_in_float64(dtype: str) -> None:
    keys, queries, k = vectors(300, 24), vectors(40, 24, seed=1), 7
    index = VectorIndex.build(keys, IndexConfig(24, dtype=dtype, expansion_search=300))
    reference = cosines(queries, keys)
    best = -np.sort(-reference, axis=1)[:, :k]
    for query, row_reference, row_best in zip(queries, reference, best, strict=True):
        rows, similarities = index.search(query, k)
        assert rows.dtype == np.int64 and similarities.dtype == np.float32
        assert len(set(rows.tolist())) == k
        assert (np.diff(similarities) <= 0).all()
        np.testing.assert_allclose(similarities, row_reference[rows], atol=TOLERANCE[dtype])
        np.testing.assert_allclose(similarities, row_best, atol=TOLERANCE[dtype])


def test_the_graph_finds_nearly_all_neighbours_of_a_larger_base() -> None:
    keys, queries = vectors(4000, 32), vectors(50, 32, seed=1)
    index = VectorIndex.build(keys, IndexConfig(32, dtype="f32"))
    rows, _ = index.search_many(queries, 10)
    true = np.argsort(-cosines(queries, keys), axis=1)[:, :10]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), true.tolist(), strict=True)])
    assert recall > 0.85


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 40), k=st.integers(0, 500), queries=st.integers(0, 5), seed=st.integers(0, 10_000))
def test_any_k_on_any_size_gives_known_rows_once_and_numbers(rows: int, k: int, queries: int, seed: int) -> None:
    index = VectorIndex.build(vectors(rows, 4, seed), IndexConfig(4, connectivity=2, expansion_search=1))
    wanted = min(rows, k)
    asked = vectors(queries, 4, seed + 1)
    many_rows, many_similarities = index.search_many(asked, k)
    assert many_rows.shape == many_similarities.shape == (queries, wanted)
    for at, query in enumerate(asked):
        found, similarities = index.search(query, k)
        assert found.shape == similarities.shape == (wanted,)
        assert len(set(found.tolist())) == wanted
        assert all(0 <= row < rows for row in found)
        assert np.isfinite(similarities).all()
        assert found.tolist() == many_rows[at].tolist()
        assert similarities.tobytes() == many_similarities[at].tobytes()


def test_one_row_and_many_rows_alone_and_together_and_on_threads_answer_the_same(tmp_path: Path) -> None:
    config = IndexConfig(16, expansion_search=16)
    queries = vectors(64, 16, seed=1)
    built = VectorIndex.build(vectors(500, 16), config)
    built.save(tmp_path / "index")
    viewed = VectorIndex.view(tmp_path / "index", config)
    expected_rows, expected = built.search_many(queries, 8)
    for index in (built, viewed):
        for threads in (1, 2, 3):
            rows, similarities = index.search_many(queries, 8, threads)
            assert rows.tobytes() == expected_rows.tobytes()
            assert similarities.tobytes() == expected.tobytes()
        for at, query in enumerate(queries):
            rows, similarities = index.search(query, 8)
            assert rows.tobytes() == expected_rows[at].tobytes()
            assert similarities.tobytes() == expected[at].tobytes()


def test_searches_from_several_python_threads_do_not_disturb_each_other() -> None:
    index = VectorIndex.build(vectors(500, 16), IndexConfig(16))
    queries = vectors(50, 16, seed=1)
    expected = [index.search(query, 8) for query in queries]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(10):
            for at, query in enumerate(queries):
                rows, similarities = index.search(query, 8)
                if (rows != expected[at][0]).any() or (similarities != expected[at][1]).any():
                    wrong.append(at)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        VectorIndex.build(vectors(3000, 8), IndexConfig(8)).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("rows", [0, 1, 2, 50])
def test_view_finds_the_saved_rows(tmp_path: Path, rows: int) -> None:
    config = IndexConfig(8)
    index = VectorIndex.build(vectors(rows, 8), config)
    index.save(tmp_path / "index")
    viewed = VectorIndex.view(tmp_path / "index", config)
    assert len(viewed) == len(index) == rows
    assert viewed.nbytes == index.nbytes == (tmp_path / "index").stat().st_size
    query = vectors(1, 8, seed=1)[0]
    assert viewed.search(query, 3)[0].tolist() == index.search(query, 3)[0].tolist()


def test_expansion_comes_from_the_configuration_not_from_the_file(tmp_path: Path) -> None:
    keys, queries = vectors(3000, 48), vectors(40, 48, seed=1)
    VectorIndex.build(keys, IndexConfig(48, connectivity=4, expansion_add=8, expansion_search=4)).save(tmp_path / "i")
    true = np.argsort(-cosines(queries, keys), axis=1)[:, :4]

    def recall(expansion: int) -> float:
        config = IndexConfig(48, connectivity=4, expansion_add=8, expansion_search=expansion)
        rows, _ = VectorIndex.view(tmp_path / "i", config).search_many(queries, 4)
        return float(np.mean([len(set(a) & set(b)) for a, b in zip(rows.tolist(), true.tolist(), strict=True)]))

    assert recall(256) > recall(4)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (IndexConfig(9), "8 dimensions, i8"),
        (IndexConfig(8, dtype="f32"), "8 dimensions, i8"),
        (IndexConfig(8, dtype="f16"), "8 dimensions, i8"),
    ],
)
def test_an_index_of_other_parameters_is_refused(tmp_path: Path, config: IndexConfig, found: str) -> None:
    VectorIndex.build(vectors(5, 8), IndexConfig(8)).save(tmp_path / "index")
    with pytest.raises(BundleError, match=found):
        VectorIndex.view(tmp_path / "index", config)


@pytest.mark.parametrize("content", [b"", b"usearch", b"\0" * 4096, b"no index " * 100])
def test_a_file_that_is_no_index_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index").write_bytes(content)
    with pytest.raises(BundleError) as caught:
        VectorIndex.view(tmp_path / "index", IndexConfig(8))
    assert caught.value.path == str(tmp_path / "index")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleIntegrityError, match="missing"):
        VectorIndex.view(tmp_path / "index", IndexConfig(8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_keys_without_a_direction_are_refused(bad: float) -> None:
    keys = vectors(5, 8)
    keys[3] = bad
    with pytest.raises(UsageError, match="row 4"):
        VectorIndex.build(keys, IndexConfig(8))


def test_keys_of_another_width_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(5, 8\).*\(rows, 9\)"):
        VectorIndex.build(vectors(5, 8), IndexConfig(9))


@pytest.mark.parametrize(
    "change",
    [
        {"ndim": 0},
        {"ndim": 2.0},
        {"dtype": "auto"},
        {"connectivity": 0},
        {"expansion_search": True},
        {"expansion_add": 10**30},
    ],
)
def test_parameters_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        IndexConfig(**{"ndim": 8, **change})  # type: ignore[arg-type]


def test_progress_counts_up_and_can_stop_the_build() -> None:
    seen: list[tuple[int, int]] = []
    VectorIndex.build(vectors(2500, 4), IndexConfig(4), progress=lambda done, total: not seen.append((done, total)))
    assert [total for _, total in seen] == [2500] * len(seen)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen}) and seen[-1][0] == 2500
    with pytest.raises(RuntimeError, match="stopped"):
        VectorIndex.build(vectors(2500, 4), IndexConfig(4), progress=lambda done, total: False)


def test_an_interrupt_while_building_or_trying_widths_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """usearch itself raises a RuntimeError with this text."""

    def terminated(*_: object, **__: object) -> None:
        raise RuntimeError("Operation has been terminated")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck")

    keys = np.eye(4, dtype=np.float32)
    index = VectorIndex.build(keys, IndexConfig(4))
    width = index._index.expansion_search
    for failing, error in ((terminated, KeyboardInterrupt), (broken, RuntimeError)):
        monkeypatch.setattr(index, "_built", SimpleNamespace(search_many=failing, expansion_search=width))
        with pytest.raises(error):
            index.trial(keys, 2, 500)
        assert index._index.expansion_search == width
        monkeypatch.setattr(module, "_empty_index", lambda *_, failing=failing: SimpleNamespace(add_many=failing))
        with pytest.raises(error):
            VectorIndex.build(keys, IndexConfig(4))


def test_an_interrupt_inside_a_search_stays_an_interrupt() -> None:
    index = VectorIndex.build(vectors(500, 16), IndexConfig(16))
    queries = vectors(2000, 16, seed=1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(5):  # usearch itself would raise RuntimeError("Operation has been terminated")
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            with pytest.raises(KeyboardInterrupt):
                while True:
                    index.search_many(queries, 8)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(index.search(queries[0], 8)[0]) == 8
