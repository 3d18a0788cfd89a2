"""Fuzz held-out rows: they are read and match the bundle, or an error says why not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from reaugkd.errors import ReaugkdError
from reaugkd.runtime.bundle.heldout_rows import HELDOUT_FILE, HeldOutRows

from .common import rewrite, scratch

LABELS, NDIM, KB_ROWS = 3, 4, 10


@cache
def _folder() -> Path:
    return scratch()


@cache
def seeds() -> list[bytes]:
    """Return some rows, and no rows."""
    found = []
    for rows in (5, 0):
        logits, queries = np.zeros((rows, LABELS), np.float32), np.ones((rows, NDIM), np.float32)
        numbers = np.arange(rows, dtype=np.int64)
        HeldOutRows(logits, queries, numbers % LABELS, numbers, 7).save(_folder())
        found.append((_folder() / HELDOUT_FILE).read_bytes())
    return found


def check(data: bytes) -> None:
    """Raise an error if the input breaks a promise."""
    rewrite(_folder() / HELDOUT_FILE, data)
    try:
        rows = HeldOutRows.open(_folder(), LABELS, NDIM, KB_ROWS)
    except ReaugkdError:
        return
    assert rows.logits.shape == (len(rows), LABELS) and rows.queries.shape == (len(rows), NDIM)
    assert np.isfinite(rows.logits).all() and np.isfinite(rows.queries).all()
    assert 0 <= rows.unrelated <= KB_ROWS
