from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reaugkd import BundleError, BundleIntegrityError, UsageError
from reaugkd.kb.index import shard_tuning
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.exact_search import unit
from reaugkd.kb.index.hnsw import VectorIndex
from reaugkd.kb.index.shard_tuning import RECALL, exact_neighbours, tune
from reaugkd.kb.index.shards import SHARDS_FILE, Centres, ShardedIndex, shard_path

Floats = NDArray[np.float32]


def clusters(rows: int, ndim: int, shards: int, seed: int = 0) -> tuple[list[Floats], Centres]:
    """Keys around two centres for each shard, and the centres; a shard may be empty."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((2 * shards, ndim)))
    keys = unit(centres[rng.integers(0, 2 * shards, rows)] + 0.2 * rng.standard_normal((rows, ndim)))
    groups = Centres(centres, np.repeat(np.arange(shards, dtype=np.int32), 2))
    shard = groups.shards_of(keys)
    return [keys[shard == number] for number in range(shards)], groups


def sharded(rows: int, ndim: int, shards: int, probes: int, seed: int = 0) -> tuple[ShardedIndex, Floats]:
    parts, centres = clusters(rows, ndim, shards, seed)
    config = IndexConfig(ndim, connectivity=8, expansion_search=max(rows, 1), probes=probes)
    return ShardedIndex([VectorIndex.build(part, config) for part in parts], centres, config), np.concatenate(parts)


def queries_of(count: int, ndim: int, seed: int = 1) -> Floats:
    return unit(np.random.default_rng(seed).standard_normal((count, ndim)))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 60),
    shards=st.integers(1, 5),
    probes=st.integers(1, 12),
    k=st.integers(0, 80),
    seed=st.integers(0, 99),
)
def test_the_best_rows_of_the_near_shards_in_float64(rows: int, shards: int, probes: int, k: int, seed: int) -> None:
    index, _ = sharded(rows, 6, shards, probes, seed)
    stored = index.stored().astype(np.float64)
    lengths = np.array([len(shard) for shard in index.shards])
    of_row = np.repeat(np.arange(shards), lengths)
    queries = queries_of(3, 6, seed)
    many = index.search_many(queries, k)
    for number, query in enumerate(queries):
        order = np.argsort(-(index.centres.centres.astype(np.float64) @ query), kind="stable")
        near = np.unique(index.centres.shard[order[:probes]])
        searched = near if lengths[near].sum() >= min(k, rows) else np.arange(shards)
        cosines = stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)
        best = -np.sort(-cosines[np.isin(of_row, searched)])[:k]
        found, similarities = index.search(query, k)
        assert len(found) == len(set(found.tolist())) == min(k, rows)
        assert np.isin(of_row[found], searched).all()
        np.testing.assert_allclose(cosines[found], similarities, atol=0.03)
        np.testing.assert_allclose(similarities, best, atol=0.03)
        assert (many[0][number] == found).all() and (many[1][number] == similarities).all()


def test_files_give_the_same_answers(tmp_path: Path) -> None:
    index, _ = sharded(500, 16, 3, 2)
    index.save(tmp_path)
    read = ShardedIndex.view(tmp_path, index.config)
    read.load()
    assert len(read) == 500 and read.nbytes == index.nbytes
    for query in queries_of(20, 16):
        for exact in (False, True):
            expected, found = index.search(query, 9, exact), read.search(query, 9, exact)
            assert (expected[0] == found[0]).all()
            np.testing.assert_allclose(expected[1], found[1], atol=1e-6)
    rows = np.array([499, 0, 250, 0])
    assert (read.stored_rows(rows) == index.stored()[rows]).all()


def test_shards_that_the_centres_rule_out_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    index, keys = sharded(600, 16, 4, 1)
    searched: list[int] = []
    real = VectorIndex.search
    monkeypatch.setattr(
        VectorIndex, "search", lambda self, *rest: searched.append(index.shards.index(self)) or real(self, *rest)
    )
    for row in (0, 599):
        searched.clear()
        assert index.search(keys[row], 3)[0][0] == row
        assert searched == [index.centres.shards_of(keys[row : row + 1])[0]]


def test_tuning_finds_the_cheapest_search_with_the_recall() -> None:
    parts, centres = clusters(4000, 24, 6)
    config = IndexConfig(24, connectivity=8, probes=1)
    index = ShardedIndex([VectorIndex.build(part, config) for part in parts], centres, config)
    queries = unit(np.concatenate(parts)[::40] + 0.1 * queries_of(100, 24))
    stored = index.stored().astype(np.float64)
    true = np.argsort(-(queries @ unit(stored).T), axis=1, kind="stable")[:, :10]
    assert (
        np.sort(exact_neighbours(index, queries, 10)[0]) == np.sort(true)
    ).mean() > 0.999  # float32 may order a tie otherwise
    chosen = tune(index, queries, 10)
    found = index.search_many(queries, 10)[0]
    recall = np.mean([np.isin(want, have).mean() for want, have in zip(true, found, strict=True)])
    assert recall == pytest.approx(chosen.recall, abs=0.002) and chosen.recall >= RECALL
    assert (index.config.probes, index.config.expansion_search) == (chosen.probes, chosen.expansion_search)
    assert chosen.compared < 2000, "half of all keys"


@pytest.mark.parametrize("damage", ["no shard", "gap", "length", "dimensions", "no centres", "rows"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    index, _ = sharded(60, 8, 3, 1)
    index.save(tmp_path)
    centres, config = index.centres, index.config
    if damage == "no shard":
        shard_path(tmp_path, 2).unlink()
    elif damage == "gap":
        Centres(centres.centres, centres.shard * 2).save(tmp_path / SHARDS_FILE)
    elif damage == "length":
        Centres(centres.centres * 2, centres.shard).save(tmp_path / SHARDS_FILE)
    elif damage == "dimensions":
        config = replace(config, ndim=9)
    elif damage == "no centres":
        Centres(centres.centres[:0], centres.shard[:0]).save(tmp_path / SHARDS_FILE)
    else:
        shard_path(tmp_path, 1).write_bytes(shard_path(tmp_path, 1).read_bytes()[:-4])
    with pytest.raises((BundleError, BundleIntegrityError)) as caught:
        ShardedIndex.view(tmp_path, config)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("rows", [0, 7, 300, 599, 600, 900])
def test_exact_neighbours_in_the_first_rows(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_tuning, "_BLOCK", 64)
    index, _ = sharded(600, 16, 4, 1)
    queries = queries_of(5, 16)
    cosines = queries.astype(np.float64) @ unit(index.stored().astype(np.float64))[:rows].T
    found, similarities = exact_neighbours(index, queries, 9, rows)
    assert found.shape == (5, min(rows, 9)) and (found < rows).all()
    np.testing.assert_allclose(similarities, -np.sort(-cosines, axis=1)[:, :9], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines, found, 1), similarities, atol=1e-6)


def test_a_query_without_a_direction_is_an_error() -> None:
    index, _ = sharded(60, 8, 3, 1)
    for query in (np.zeros(8, np.float32), np.full(8, np.nan, np.float32)):
        with pytest.raises(UsageError, match="no direction"):
            index.search(query, 3)
        with pytest.raises(UsageError, match="no direction"):
            index.search_many(query[np.newaxis], 3)
