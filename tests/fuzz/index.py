"""Fuzz an index file: it is refused, or a search finds existing rows; usearch does not crash."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from reaugkd.errors import ReaugkdError
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.hnsw import VectorIndex
from reaugkd.kb.index.usearch_file import read_index_file

from .common import rewrite, scratch


@cache
def _file() -> Path:
    return scratch() / "index.usearch"


@cache
def seeds() -> list[bytes]:
    """Return small indexes, one with levels."""
    found = []
    for rows, dtype in ((0, "f16"), (1, "i8"), (5, "f32"), (60, "f16")):
        keys = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
        VectorIndex.build(keys, IndexConfig(3, dtype=dtype, connectivity=2)).save(_file())
        found.append(_file().read_bytes())
    return found


def check(data: bytes) -> None:
    """Raise an error if the input breaks a promise."""
    path = _file()
    rewrite(path, data)
    try:
        said = read_index_file(path)
        config = IndexConfig(said.ndim, said.dtype, said.connectivity)
        index = VectorIndex.view(path, config)
        with suppress(ReaugkdError):  # a search in the graph needs the keys only
            assert index.stored().shape == (said.rows, said.ndim)
        index.load()
    except ReaugkdError:
        return
    assert len(index) == said.rows
    for query in np.random.default_rng(0).standard_normal((3, said.ndim)).astype(np.float32):
        rows, similarities = index.search(query, 10)
        assert len(rows) == len(similarities) == min(10, said.rows)
        assert all(0 <= row < said.rows for row in rows.tolist())
        assert len(set(rows.tolist())) == len(rows)
