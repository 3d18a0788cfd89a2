"""Soft labels in both forms: round trip, bounded loss, and refusal of invalid tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from reaugkd.errors import BundleError
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.knowledge_base import SOFT_LABELS_FILE, KnowledgeBase
from reaugkd.kb.soft_labels import FEW_CLASSES, DenseLabels, TopLabels, decode, encode

Floats = NDArray[np.float64]


def distributions(rows: int, classes: int, sharpness: float = 3.0, seed: int = 0) -> Floats:
    """Return softmaxes of normal logits; a larger ``sharpness`` concentrates them."""
    exponents = np.exp(sharpness * np.random.default_rng(seed).standard_normal((rows, classes)))
    found: Floats = exponents / exponents.sum(axis=1, keepdims=True)
    return found


def likeliest_alone(probabilities: Floats, top: int) -> Floats:
    """Return each row's ``top`` likeliest classes, scaled to sum to one, row by row."""
    cut = np.zeros_like(probabilities)
    for row, label in enumerate(probabilities):
        kept = sorted(range(len(label)), key=lambda number: (-label[number], number))[:top]
        cut[row, kept] = label[kept] / sum(label[number] for number in kept)
    return cut


def total_variation(one: Floats, other: Floats) -> float:
    return float(np.abs(one - other).sum(axis=1).mean() / 2)


class TestTheLikeliestClasses:
    @given(
        rows=st.integers(1, 20),
        classes=st.sampled_from([17, 77, 256, 257, 300]),
        sharpness=st.floats(2, 8),
        loss=st.sampled_from([0.01, 0.1, 0.3]),
        seed=st.integers(0, 99),
    )
    def test_they_are_kept_in_proportion_and_no_more_of_them_than_needed(
        self, rows: int, classes: int, sharpness: float, loss: float, seed: int
    ) -> None:
        exact = distributions(rows, classes, sharpness, seed)
        labels = encode(exact, loss)
        if not isinstance(labels, TopLabels):
            return
        most = 255 if classes <= 256 else 65535
        assert labels.stored.dtype == (np.uint8 if classes <= 256 else np.uint16)
        assert labels.stored.shape == (rows, 2 * labels.top) and labels.nbytes < 2 * exact.size
        np.testing.assert_allclose(np.asarray(labels), likeliest_alone(exact, labels.top), atol=1 / most)
        assert (labels.stored[:, labels.top :].sum(axis=1, dtype=int) == most).all()
        assert total_variation(likeliest_alone(exact, labels.top), exact) <= loss + 1e-12
        if labels.top > 1:
            assert total_variation(likeliest_alone(exact, labels.top - 1), exact) > loss

    def test_a_label_by_hand(self) -> None:
        exact = np.zeros((1, 20))
        exact[0, [3, 7, 19]] = 0.3, 0.5, 0.2
        labels = encode(exact, 0.25)
        # 0.3 / 0.8 and 0.5 / 0.8 of 255: 95.6 and 159.4, whose floors lack one, which the larger remainder gets
        assert labels.stored.tolist() == [[3, 7, 96, 159]]  # classes ascending
        np.testing.assert_allclose(labels[0][[3, 7]], [96 / 255, 159 / 255], rtol=1e-6)

    def test_of_earlier_versions_have_another_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("reaugkd.kb.soft_labels._BLOCK", 2)
        stored = np.array([[7, 3, 19, 159, 96, 0]] * 5, np.uint8)
        np.testing.assert_allclose(decode(stored, 20)[4][[3, 7]], [96 / 255, 159 / 255], rtol=1e-6)
        for row, column, value, message in ((4, 2, 7, "twice"), (3, 5, 1, "sum")):
            damaged = stored.copy()
            damaged[row, column] = value
            with pytest.raises(ValueError, match=message):
                decode(damaged, 20)

    def test_rows_can_be_had_in_every_way(self) -> None:
        labels = encode(distributions(9, 40), 0.05)
        assert isinstance(labels, TopLabels)
        dense = np.asarray(labels)
        assert labels.shape == dense.shape == (9, 40) and len(labels) == 9
        np.testing.assert_array_equal(labels[-1], dense[-1])
        np.testing.assert_array_equal(labels[2:5], dense[2:5])
        np.testing.assert_array_equal(labels.take(np.array([7, 0, 7])), dense[[7, 0, 7]])


class TestFloat16Stays:
    @pytest.mark.parametrize(
        ("exact", "loss"),
        [
            (distributions(5, FEW_CLASSES), 0.1),
            (distributions(5, 77), 0.0),
            (np.full((5, 300), 1 / 300), 0.1),  # all classes would have to be kept
            (np.zeros((0, 77)), 0.1),
        ],
        ids=["few classes", "no loss", "undecided", "no rows"],
    )
    def test_where_nothing_is_saved(self, exact: Floats, loss: float) -> None:
        labels = encode(exact, loss)
        assert isinstance(labels, DenseLabels)
        np.testing.assert_array_equal(labels.stored, exact.astype(np.float16))
        np.testing.assert_array_equal(labels.take(np.arange(len(exact))), exact.astype(np.float16).astype(np.float32))

    def test_one_hot_labels_take_two_bytes_a_row(self) -> None:
        labels = encode(np.eye(77)[[5, 76, 0]], 0.01)
        assert labels.stored.tolist() == [[5, 255], [76, 255], [0, 255]]


class TestWhatIsStored:
    def test_a_knowledge_base_has_them_again(self, tmp_path: Path) -> None:
        keys = np.random.default_rng(1).standard_normal((30, 8)).astype(np.float32)
        exact, config = distributions(30, 77), IndexConfig(8)
        built = KnowledgeBase.build(keys, exact, config=config, label_loss=0.1)
        assert built.format_version == 2
        built.save(tmp_path)
        opened = KnowledgeBase.open(tmp_path, config, 77)
        np.testing.assert_array_equal(np.asarray(opened.soft_labels), np.asarray(built.soft_labels))
        assert opened.format_version == 2 and opened.num_labels == 77

    @pytest.mark.parametrize(
        ("stored", "classes"),
        [
            (np.zeros((3, 4), np.float32), 4),
            (np.zeros((3, 4), np.float16), 5),
            (np.zeros(3, np.uint8), 20),
            (np.array([[0, 255]], np.uint8), None),
            (np.array([[0, 1, 255]], np.uint8), 20),
            (np.zeros((2, 0), np.uint8), 20),
            (np.array([[20, 255]], np.uint8), 20),
            (np.array([[0, 1, 128, 128]], np.uint8), 20),  # 256: as a uint8 it would be 0
            (np.array([[3, 3, 128, 127]], np.uint8), 20),
            (np.array([[0, 255]], np.uint8), 300),
            (np.array([[0, 65535]], np.uint16), 20),
            (np.array([[0, 1, 2, 255, 0, 0]], np.uint8), 2),
        ],
    )
    def test_invalid_tables_are_refused(self, stored: NDArray[np.generic], classes: int | None, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"."):
            decode(stored, classes)
        KnowledgeBase.build(np.eye(3, dtype=np.float32), np.eye(3), config=IndexConfig(3)).save(tmp_path)
        np.save(tmp_path / SOFT_LABELS_FILE, stored)
        with pytest.raises(BundleError, match=r"do not match|cannot be read"):
            KnowledgeBase.open(tmp_path, IndexConfig(3), classes)
