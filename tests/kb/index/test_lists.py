"""Inverted lists: what they hold, how many are searched, and which files are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reaugkd import BundleError
from reaugkd.kb.index import lists as module
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.exact_search import exact_search, unit
from reaugkd.kb.index.hnsw import VectorIndex
from reaugkd.kb.index.lists import LISTS_FILE, Lists, centres, chosen_lists, least_probes, open_lists
from reaugkd.kb.storage.npy import save_npy

Floats = NDArray[np.float32]


def clustered(rows: int, ndim: int = 12, clusters: int = 40, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(99).standard_normal((clusters, ndim))
    return unit(means[rng.integers(clusters, size=rows)] + 0.4 * rng.standard_normal((rows, ndim)))


def rows_of(lists: Lists) -> list[int]:
    return sorted(lists.table[lists.table >= 0].tolist())


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 400), room=st.sampled_from([1, 2, 7, 64]), kinds=st.integers(1, 400), seed=st.integers(0, 3))
def test_every_row_is_in_one_list(rows: int, room: int, kinds: int, seed: int) -> None:
    """Of equal keys too."""
    keys = clustered(min(kinds, rows), seed=seed)[np.random.default_rng(seed).integers(min(kinds, rows), size=rows)]
    lists = Lists.build(keys, room)
    assert rows_of(lists) == list(range(rows))
    assert lists.table.shape[1] == room and lists.sizes().min() > 0
    assert lists.table.size <= 4 * (rows + 64), "no file that is refused"
    used = lists.table >= 0
    assert (used[:, :-1] >= used[:, 1:]).all(), "empty places come last"


def test_the_same_keys_give_the_same_lists() -> None:
    keys = clustered(5000)
    first, again = Lists.build(keys, 64), Lists.build(keys.copy(), 64)
    np.testing.assert_array_equal(first.table, again.table)
    assert len(keys) / first.table.size > 0.75, "most places are used"


def test_the_number_of_searched_lists_is_the_least_with_the_recall_on_the_queries() -> None:
    keys, queries = clustered(3000), clustered(200, seed=1)
    lists = Lists.build(keys, 32)
    exact, means = exact_search(keys, queries, 8)[0], centres(keys, lists.table)

    def recall(probes: int, asked: Floats, true: NDArray[np.int64]) -> float:
        near = np.argsort(-(asked @ means.T), axis=1)[:, :probes]
        return float(np.mean([np.isin(rows, lists.table[some]).mean() for rows, some in zip(true, near, strict=True)]))

    for least in (0.5, 0.97, 1.0):
        probes = least_probes(lists, keys, queries, 8, least)
        assert recall(probes, queries, exact) >= least
        assert probes == 1 or recall(probes - 1, queries, exact) < least
    others = clustered(200, seed=2)
    probes = least_probes(lists, keys, queries, 8)
    assert probes < len(lists.table) / 4
    assert recall(probes, others, exact_search(keys, others, 8)[0]) > 0.95, "it holds for other queries"


def test_lists_are_made_only_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    def index(keys: Floats, dtype: str = "i8") -> VectorIndex:
        return VectorIndex.build(keys, IndexConfig(keys.shape[1], dtype=dtype, expansion_add=16))

    queries = clustered(50, seed=1)
    keys = clustered(2000)
    assert chosen_lists(index(keys), queries, 4) is None, "too few rows"
    monkeypatch.setattr(module, "FEWEST_ROWS", 2000)
    monkeypatch.setattr(module, "_MOST_SHARE", 0.6)
    made = chosen_lists(index(keys), queries, 4)
    assert made is not None and 1 <= made.probes <= 0.6 * len(made.table)
    assert chosen_lists(index(keys), queries[:0], 4) is None, "no queries"
    assert chosen_lists(index(keys, "f16"), queries, 4) is None
    noise = unit(np.random.default_rng(0).standard_normal((2000, 64)))
    asked = unit(np.random.default_rng(1).standard_normal((50, 64)))
    assert chosen_lists(index(noise), asked, 4) is None, "most lists would be searched"
    monkeypatch.setattr(module, "MOST_ROWS", 1999)
    assert chosen_lists(index(keys), queries, 4) is None, "too many rows"


def test_other_rows_have_the_same_share_of_searched_lists() -> None:
    lists = Lists(Lists.build(clustered(1000), 32).table, 4)
    more = lists.rebuilt(clustered(2000))
    assert rows_of(more) == list(range(2000))
    assert more.probes == -(-4 * len(more.table) // len(lists.table))
    assert lists.rebuilt(clustered(3)).probes == 1


def test_enough_lists_are_searched_for_all_neighbours() -> None:
    lists = Lists(np.array([[0, 1, 2], [3, -1, -1], [4, 5, -1]], np.int32), 1)
    assert [lists.enough(k) for k in (1, 2, 3, 4, 6, 7)] == [1, 2, 2, 3, 3, 3]
    assert Lists(lists.table, 3).enough(1) == 3


def test_a_file_gives_them_back(tmp_path: Path) -> None:
    lists = Lists(Lists.build(clustered(300), 16).table, 5)
    assert open_lists(tmp_path, 300) is None
    lists.save(tmp_path / LISTS_FILE)
    found = open_lists(tmp_path, 300)
    assert found is not None and found.probes == 5
    np.testing.assert_array_equal(found.table, lists.table)
    assert lists.nbytes == (tmp_path / LISTS_FILE).stat().st_size - 128


GOOD = [[2, 0, 0], [0, 1, 2], [3, 4, -1]]
BAD: dict[str, list[list[int]]] = {
    "no list": [[1, 0, 0]],
    "nothing": [],
    "none searched": [[0, 0, 0], *GOOD[1:]],
    "fewer than none searched": [[-1, 0, 0], *GOOD[1:]],
    "more searched than there are": [[3, 0, 0], *GOOD[1:]],
    "a row beyond the last": [GOOD[0], [0, 1, 2], [3, 5, -1]],
    "a row far beyond": [GOOD[0], [0, 1, 2], [3, 2**31 - 1, -1]],
    "a row before the first": [GOOD[0], [0, 1, 2], [3, 4, -2]],
    "a row twice": [GOOD[0], [0, 1, 2], [3, 3, -1]],
    "a row missing": [GOOD[0], [0, 1, 2], [3, -1, -1]],
    "a row more": [GOOD[0], [0, 1, 2], [3, 4, 0]],
    "an empty list": [GOOD[0], [0, 1, 2], [3, 4, -1], [-1, -1, -1]],
    "an empty place before a row": [GOOD[0], [0, 1, 2], [3, -1, 4]],
    "many empty places": [row + [-1] * 1000 for row in GOOD],
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_table_of_the_rows_is_refused(name: str, tmp_path: Path) -> None:
    save_npy(tmp_path / LISTS_FILE, np.array(BAD[name], np.int32).reshape(len(BAD[name]), -1 if BAD[name] else 3))
    with pytest.raises(BundleError, match=LISTS_FILE):
        open_lists(tmp_path, 5)


@pytest.mark.parametrize("stored", [np.array(GOOD), np.array(GOOD, np.float32), np.array([2, 1], np.int32)])
def test_a_file_of_another_type_is_refused(stored: NDArray[Any], tmp_path: Path) -> None:
    save_npy(tmp_path / LISTS_FILE, stored)
    with pytest.raises(BundleError, match=LISTS_FILE):
        open_lists(tmp_path, 5)


def test_the_good_file_of_these_is_read(tmp_path: Path) -> None:
    save_npy(tmp_path / LISTS_FILE, np.array(GOOD, np.int32))
    assert open_lists(tmp_path, 5) is not None
