"""Synthetic knowledge bases, compared with cosines in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reaugkd.benchmarks.sweep.synthetic_kb import SyntheticKb, recall
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.kb.soft_labels import TopLabels

ROWS, NDIM, LABELS = 50, 24, 40
I8 = 0.01  # what a cosine loses when both keys are rounded to int8


def unit(keys: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = keys.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def own() -> KnowledgeBase:
    rng = np.random.default_rng(0)
    keys = (rng.normal(size=(5, NDIM)).repeat(ROWS // 5, 0) + 0.5 * rng.normal(size=(ROWS, NDIM))).astype(np.float32)
    soft = rng.dirichlet(np.full(LABELS, 0.05), ROWS)
    config = IndexConfig(ndim=NDIM, dtype="f16", connectivity=12, expansion_add=96, expansion_search=100)
    return KnowledgeBase.build(keys, soft, config=config, label_loss=0.05)


@pytest.fixture(scope="module")
def synthetic(own: KnowledgeBase) -> SyntheticKb:
    return SyntheticKb(own)


def test_copies_are_as_near_to_their_row_as_rows_are_to_each_other(
    own: KnowledgeBase, synthetic: SyntheticKb, tmp_path: Path
) -> None:
    keys = unit(own.keys())
    cosines = keys @ keys.T
    np.fill_diagonal(cosines, -1)
    nearest = np.sort(cosines.max(axis=1))
    assert np.sort(synthetic.nearest) == pytest.approx(nearest, abs=0.002)
    enlarged = synthetic.enlarge(21 * ROWS + 7, tmp_path / "kb").kb
    copies = unit(enlarged.keys())[ROWS:]
    of_parent = (copies * keys[np.arange(len(copies)) % ROWS]).sum(axis=1)
    # Each cosine is one of those between own keys, and they are drawn evenly.
    assert np.abs(of_parent[:, np.newaxis] - nearest).min(axis=1).max() < I8
    levels = [0.1, 0.5, 0.9]
    assert np.quantile(of_parent, levels) == pytest.approx(np.quantile(nearest, levels), abs=0.03)
    assert np.std(of_parent[::ROWS]) > 0.5 * np.std(nearest)  # of one row's copies, too
    # Two copies of a row are rotated in different directions.
    one, other = copies[:ROWS], copies[ROWS : 2 * ROWS]
    expected = of_parent[:ROWS] * of_parent[ROWS : 2 * ROWS]
    assert ((one * other).sum(axis=1) - expected).mean() == pytest.approx(0, abs=0.05)


def test_labels_come_along_in_the_form_that_they_have(
    own: KnowledgeBase, synthetic: SyntheticKb, tmp_path: Path
) -> None:
    assert isinstance(own.soft_labels, TopLabels)  # or the test shows nothing
    enlarged = synthetic.enlarge(2 * ROWS + 3, tmp_path / "kb").kb
    assert isinstance(enlarged.soft_labels, TopLabels) and enlarged.soft_labels.top == own.soft_labels.top
    parents = np.arange(2 * ROWS + 3) % ROWS
    assert np.array_equal(np.asarray(enlarged.soft_labels), np.asarray(own.soft_labels)[parents])


def test_only_the_first_rows_are_copied_where_asked(own: KnowledgeBase, tmp_path: Path) -> None:
    enlarged = SyntheticKb(own, rows=7).enlarge(ROWS, tmp_path / "kb").kb
    parents = np.arange(ROWS) % 7
    assert np.array_equal(np.asarray(enlarged.soft_labels), np.asarray(own.soft_labels)[parents])
    assert (unit(enlarged.keys()) * unit(own.keys())[parents]).sum(axis=1).min() > 0.05


def test_recall_is_the_share_of_neighbours_found() -> None:
    class Half(KnowledgeBase):
        """A search for four rows that finds the nearest, the third twice, and the farthest."""

        def search_many(self, queries: NDArray[np.float32], k: int, threads: int = 1) -> Any:
            rows, similarities = super().search_many(queries, 50)
            return rows[:, [0, 2, 2, 49]], similarities[:, :4]

    rng = np.random.default_rng(0)
    keys = rng.normal(size=(50, 8)).astype(np.float32)
    kb = Half.build(keys, np.ones((50, 1)), config=IndexConfig(ndim=8, dtype="f32", expansion_search=100))
    queries = unit(rng.normal(size=(5, 8))).astype(np.float32)
    assert recall(kb, queries, 4) == 0.5
