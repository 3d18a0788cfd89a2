"""Rows that two splits share: a knowledge base must never hold a row of the set it is judged on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from .dataset import Split


def normalise(text: str) -> str:
    """A text with its outer white space gone and every inner run of white space made one space; case is kept."""
    return " ".join(text.split())


def drop_duplicates_of(train: Split, held: Iterable[Split]) -> npt.NDArray[np.int64]:
    """Which rows of ``train`` are in none of the held-out splits.

    Two rows are the same when their texts (both texts of a pair, in order) are equal after ``normalise``; labels are
    not looked at. Repetitions within ``train`` stay.

    Args:
        train: the rows to thin out.
        held: the splits that must not leak into them.

    Returns:
        int64 [m], the 0-based rows of ``train`` to keep, ascending.
    """
    taken = {key for split in held for key in _keys(split)}
    kept = [row for row, key in enumerate(_keys(train)) if key not in taken]
    return np.asarray(kept, dtype=np.int64)


def _keys(split: Split) -> list[tuple[str, ...]]:
    if split.pairs is None:
        return [(normalise(text),) for text in split.texts]
    return [(normalise(text), normalise(pair)) for text, pair in zip(split.texts, split.pairs, strict=True)]
