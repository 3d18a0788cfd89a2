"""Prototypes: their means, the rows that represent them, and knowledge bases of prototypes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from reaugkd.errors import UsageError
from reaugkd.export.bundle.prototypes import Condensation, Prototypes, build
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.knowledge_base import KnowledgeBase

Floats = NDArray[np.float32]


def rows_of(rows: int, classes: int = 4, seed: int = 0, ndim: int = 6) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    exponents = np.exp(2 * rng.standard_normal((rows, classes)))
    labels = (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
    return rng.standard_normal((rows, ndim)).astype(np.float32), labels


def same(found: Prototypes, keys: Floats, labels: Floats, rows: list[int]) -> None:
    np.testing.assert_allclose(found.keys, keys, atol=1e-6)
    np.testing.assert_allclose(found.soft_labels, labels, atol=1e-6)
    assert found.rows.tolist() == rows and len(found) == len(rows)


@given(rows=st.integers(1, 30), seed=st.integers(0, 99), share=st.floats(0, 1))
def test_a_prototype_is_the_mean_of_its_rows(rows: int, seed: int, share: float) -> None:
    keys, labels = rows_of(rows, seed=seed)
    compaction = Condensation.of(keys, labels)
    count = compaction.fewest + int(share * (rows - compaction.fewest))
    found = compaction.prototypes(count)
    clusters = compaction.merges.clusters(count)
    unit = keys.astype(np.float64) / np.linalg.norm(keys.astype(np.float64), axis=1, keepdims=True)
    for number in range(count):
        members = np.flatnonzero(clusters == number)
        mean = unit[members].mean(axis=0)
        np.testing.assert_allclose(found.keys[number], mean / np.linalg.norm(mean), atol=1e-5)
        np.testing.assert_allclose(found.soft_labels[number], labels[members].mean(axis=0), atol=1e-6)
        assert found.rows[number] in members
        nearest = (unit[members] @ mean).max()
        assert unit[found.rows[number]] @ mean == pytest.approx(nearest, abs=1e-6)
    assert set(labels.argmax(axis=1)[found.rows]) == set(labels.argmax(axis=1))
    # A mean of labels that agree on the likeliest class agrees with them.
    np.testing.assert_array_equal(found.soft_labels.argmax(axis=1), labels.argmax(axis=1)[found.rows])


def test_all_rows_are_themselves() -> None:
    keys, labels = rows_of(12)
    unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    same(Condensation.of(7 * keys, labels).prototypes(12), unit, labels, list(range(12)))


def test_equal_keys_are_merged_first() -> None:
    keys = np.array([[1, 0], [0, 1], [1, 0], [0.9, 0.1], [0, 2]], np.float32)
    labels = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [1.0, 0.0], [0.8, 0.2]], np.float32)
    found = Condensation.of(keys, labels).prototypes(4)
    # Row 4 has the key of row 1, and another label.
    unit = keys[[0, 1, 3, 4]] / np.linalg.norm(keys[[0, 1, 3, 4]], axis=1, keepdims=True)
    same(found, unit, np.array([[0.8, 0.2], [0.4, 0.6], [1, 0], [0.8, 0.2]], np.float32), [0, 1, 3, 4])


def test_keys_that_cancel_out_leave_one_of_them() -> None:
    keys = np.array([[0, 1], [0, -1]], np.float32)
    labels = np.array([[0.8, 0.2], [0.6, 0.4]], np.float32)
    same(Condensation.of(keys, labels).prototypes(1), keys[:1], np.array([[0.7, 0.3]], np.float32), [0])


def test_one_row_of_one_class() -> None:
    found = Condensation.of(np.ones((1, 3), np.float32), np.ones((1, 1), np.float32))
    assert found.fewest == len(found) == 1
    same(found.prototypes(1), np.full((1, 3), 3**-0.5, np.float32), np.ones((1, 1), np.float32), [0])


def test_classes_are_not_merged() -> None:
    keys, labels = rows_of(30)
    compaction = Condensation.of(keys, labels)
    assert compaction.fewest == 4
    with pytest.raises(UsageError, match="cannot be merged"):
        compaction.prototypes(3)


@pytest.mark.parametrize("keep_texts", [True, False])
@pytest.mark.parametrize("texts", [True, False])
def test_a_knowledge_base_of_them_names_the_rows_that_stand_for_them(texts: bool, keep_texts: bool) -> None:
    keys, labels = rows_of(40)
    gold, ids = np.arange(40) % 5 - 1, np.arange(40, dtype=np.uint64) + np.uint64(2**63)
    given_texts = [f"text {row}" for row in range(40)] if texts else None
    kb = KnowledgeBase.build(keys, labels, config=IndexConfig(6), gold=gold, ids=ids, texts=given_texts)
    prototypes = Condensation.of(kb.keys(), np.asarray(kb.soft_labels)).prototypes(15)
    small = build(kb, prototypes, IndexConfig(6, dtype="f32"), keep_texts)
    assert len(small) == 15 and small.config.dtype == "f32"
    np.testing.assert_allclose(small.keys(), prototypes.keys, atol=1e-6)
    np.testing.assert_allclose(np.asarray(small.soft_labels), prototypes.soft_labels, atol=1e-3)
    for number, row in enumerate(prototypes.rows):
        assert (small.label(number), small.id(number)) == (gold[row], ids[row])
        assert small.text(number) == (f"text {row}" if texts and keep_texts else None)
