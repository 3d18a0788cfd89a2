"""The stored keys: equal to the input, rounded to the stored type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reaugkd.errors import BundleIntegrityError
from reaugkd.kb.index.config import DTYPES, IndexConfig
from reaugkd.kb.index.hnsw import VectorIndex

Floats = NDArray[np.float32]


def some_keys(rows: int, ndim: int = 24) -> Floats:
    rng = np.random.default_rng(rows)
    lengths = rng.uniform(0.5, 2, size=(rows, 1))
    return (rng.standard_normal((rows, ndim)) * lengths).astype(np.float32)


STEPS = {"f32": 2**-22, "f16": 2**-11}
"""Half the distance of two neighbouring numbers, of their size."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 300])
def test_they_are_the_keys_in_the_stored_type(dtype: str, rows: int, tmp_path: Path) -> None:
    keys, config = some_keys(rows), IndexConfig(24, dtype=dtype)
    built = VectorIndex.build(keys, config)
    built.save(tmp_path / "index.usearch")
    viewed = VectorIndex.view(tmp_path / "index.usearch", config)
    for index in (built, viewed):
        found = index.vectors()
        assert found.dtype == np.float32 and found.shape == (rows, 24)
        if dtype == "i8":
            np.testing.assert_array_equal(found, np.rint(keys / np.abs(keys).max(axis=1, keepdims=True) * 127))
        else:
            unit = keys / np.linalg.norm(keys.astype(np.float64), axis=1, keepdims=True)
            np.testing.assert_allclose(found, unit, rtol=1.01 * STEPS[dtype], atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1e-30, 1e-9, 1e6, 1e30])
def test_the_length_of_a_key_does_not_matter(dtype: str, length: float) -> None:
    keys = some_keys(50)
    scaled = (keys.astype(np.float64) * length).astype(np.float32)
    rows, similarities = VectorIndex.build(scaled, IndexConfig(24, dtype=dtype)).search(keys[7], 5)
    wanted, expected = VectorIndex.build(keys, IndexConfig(24, dtype=dtype)).search(keys[7], 5)
    assert rows.tolist() == wanted.tolist()
    np.testing.assert_allclose(similarities, expected, atol=2e-3)


def test_keys_without_a_direction_are_no_keys() -> None:
    """A hostile index may hold such keys; reaugkd checks keys when it builds an index."""
    index = VectorIndex.build(some_keys(3), IndexConfig(24, dtype="f32"))
    index._index.add_many(np.array([3], np.uint64), np.zeros((1, 24), np.float32))
    broken = VectorIndex(index._index, index.config)
    with pytest.raises(BundleIntegrityError, match="without a direction"):
        broken.vectors()


def test_rows_must_be_numbered_from_nought() -> None:
    index = VectorIndex.build(some_keys(3), IndexConfig(24))
    index._index.add_many(np.array([7], np.uint64), some_keys(1))
    broken = VectorIndex(index._index, index.config)
    with pytest.raises(BundleIntegrityError, match="rows that are not 0 to 3"):
        broken.vectors()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_index_answers_afterwards_as_before(dtype: str) -> None:
    keys = some_keys(50)
    index = VectorIndex.build(keys, IndexConfig(24, dtype=dtype))
    before = index.search(keys[7], 5)
    index.vectors()
    assert [part.tolist() for part in index.search(keys[7], 5)] == [part.tolist() for part in before]
