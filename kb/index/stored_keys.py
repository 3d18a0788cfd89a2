"""The form of keys and queries for usearch: checked, and scaled to the range of the stored type."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError

NEAR_ONE = (2.0**-10, 2.0**10)
"""Squared lengths of queries that every dtype can hold without scaling."""

_ROUNDING = 0.01  # deviation from length 1 of a key that was stored in 16 bits


def checked_keys(keys: NDArray[np.float32], ndim: int) -> NDArray[np.float32]:
    """Keys [n, d] as contiguous float32, checked.

    Raises:
        UsageError: another shape, values that are not finite, or keys of length zero.
    """
    keys = np.ascontiguousarray(keys, np.float32)
    if keys.ndim != 2 or keys.shape[1] != ndim:
        raise UsageError("keys of the wrong shape", found=str(keys.shape), expected=f"(rows, {ndim})")
    if len(keys):
        norms = np.linalg.norm(keys.astype(np.float64), axis=1)
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if len(bad):
            raise UsageError(
                "a key has no direction",
                row=int(bad[0]) + 1,
                found=f"length {norms[bad[0]]}, in {len(bad)} of {len(keys)} keys",
                expected="finite values, not all zero",
            )
    return keys


def stored_form(keys: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """Checked keys in the form that usearch gets: int8 for ``"i8"``, otherwise float32 of length 1."""
    return _whole_numbers(keys) if dtype == "i8" else _of_length_one(keys)


def checked_queries(queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Queries [n, d], scaled where a dtype could not hold them.

    usearch casts a query to the keys' dtype. float16 overflows at 65,504 and underflows at 6e-8, and usearch then
    answers NaN, or an arbitrary row with similarity 0. Scaling by powers of two changes no bit of a cosine.

    Raises:
        UsageError: a query has NaN or infinite values, or is all zero.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", queries, queries)
    odd = np.flatnonzero(~((squares > NEAR_ONE[0]) & (squares < NEAR_ONE[1])))
    if not len(odd):
        return queries
    largest = np.abs(queries[odd]).max(axis=1, initial=0)
    lost = odd[~(np.isfinite(largest) & (largest > 0))]
    if len(lost):
        raise UsageError(
            "a query has no direction",
            row=int(lost[0]) + 1,
            found=f"largest component {np.abs(queries[lost[0]]).max()}",
            expected="finite values, not all zero",
        )
    scaled: NDArray[np.float32] = queries.copy()
    scaled[odd] = np.ldexp(queries[odd], -np.frexp(largest)[1][:, np.newaxis])
    return scaled


def _whole_numbers(keys: NDArray[np.float32]) -> NDArray[np.int8]:
    """Keys in the whole range of int8, each with its own scale, which does not change a cosine.

    usearch scales a key to length 1 and truncates, so that 128 components use about 50 of 255 steps.
    """
    largest = np.abs(keys).max(axis=1, keepdims=True)
    whole: NDArray[np.int8] = np.rint(keys / largest * 127).astype(np.int8)
    return whole


def _of_length_one(keys: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keys scaled to length 1, so that 16 bits can hold them; a key of length 1 within rounding is unchanged."""
    largest = np.abs(keys).max(axis=1, keepdims=True, initial=0)
    scaled = keys / largest  # first, so that squares neither underflow nor overflow
    directions: NDArray[np.float32] = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    near = np.abs(np.linalg.norm(keys.astype(np.float64), axis=1, keepdims=True) - 1) < _ROUNDING
    return np.where(near, keys, directions)
