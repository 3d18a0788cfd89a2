"""The stored keys, read back: what the index compares is what it was given, rounded to its type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reaugkd.kb.index import DTYPES, IndexConfig, VectorIndex

Floats = NDArray[np.float32]


def some_keys(rows: int, ndim: int = 24) -> Floats:
    rng = np.random.default_rng(rows)
    lengths = rng.uniform(0.5, 2, size=(rows, 1))
    return (rng.standard_normal((rows, ndim)) * lengths).astype(np.float32)


def rounded(keys: Floats, dtype: str) -> Floats:
    if dtype == "bf16":  # to nearest, ties to even, on the bits
        bits = keys.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    if dtype == "i8":
        return np.rint(keys / np.abs(keys).max(axis=1, keepdims=True) * 127)
    return keys.astype(np.float16).astype(np.float32) if dtype == "f16" else keys


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
        np.testing.assert_array_equal(found, rounded(keys, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_index_answers_afterwards_as_before(dtype: str) -> None:
    keys = some_keys(50)
    index = VectorIndex.build(keys, IndexConfig(24, dtype=dtype))
    before = index.search(keys[7], 5)
    index.vectors()
    assert [part.tolist() for part in index.search(keys[7], 5)] == [part.tolist() for part in before]
