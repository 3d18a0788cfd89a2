"""Groups of related rows: phrases of one sentence, and pairs that share a text.

Whole groups are held out. If rows were held out one by one, related rows would be on both sides of the split: results
on the held-out rows would be too good, and the blend would give the model too much weight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...runtime.data import Split, normalise

Words = tuple[str, ...]

COMMON = 20
"""A text that more rows share (such as a fixed question) does not make them related."""


def related_rows(split: Split) -> NDArray[np.int64]:
    """Find the group of each row, int64 [n]; the number of a group is that of its first row.

    A single text is in the group of the longest text that contains its words contiguously (the first of the longest). A
    phrase of several sentences is in the group of one of them, so that common phrases do not join all groups. Pairs are
    in one group if they share a text, directly or through other pairs, unless more than ``COMMON`` rows have this text.
    """
    return _by_shared_text(split.texts, split.pairs) if split.pairs else _by_containment(split.texts)


def related_inputs(inputs: Sequence[str | tuple[str, str]]) -> NDArray[np.int64]:
    """Find the groups of related texts or pairs; see `related_rows`."""
    singles = [item for item in inputs if isinstance(item, str)]
    pairs = [item for item in inputs if not isinstance(item, str)]
    if singles or not pairs:
        return _by_containment(singles)
    return _by_shared_text([first for first, _ in pairs], [second for _, second in pairs])


def mean_and_error(values: NDArray[np.floating], groups: NDArray[np.integer]) -> tuple[float, float]:
    """Compute the mean of n values and its standard error if values within a group are correlated.

    The standard error is that of cluster sampling: sqrt(sum over groups of (sum of the group's deviations)^2) / n. With
    one row per group, it is the usual standard error with n instead of n - 1.
    """
    mean = float(values.mean())
    _, group = np.unique(groups, return_inverse=True)
    deviations = np.bincount(group, weights=values - mean)
    return mean, float(np.sqrt((deviations**2).sum()) / len(values))


def _by_containment(texts: Sequence[str]) -> NDArray[np.int64]:
    words = [tuple(normalise(text).split()) for text in texts]
    rows_of: dict[Words, list[int]] = {}
    for row, phrase in enumerate(words):
        rows_of.setdefault(phrase, []).append(row)
    lengths = _lengths_by_start(rows_of)
    group = np.full(len(texts), -1, np.int64)
    for phrase in sorted(rows_of, key=lambda phrase: -len(phrase)):  # stable: the first row wins a tie
        rows = rows_of[phrase]
        if group[rows[0]] >= 0:
            continue
        owner = rows[0]
        for part in _known_parts(phrase, lengths):
            for row in rows_of.get(part, ()):
                if group[row] < 0:
                    group[row] = owner
    return _by_first_row(group)


def _lengths_by_start(phrases: Iterable[Words]) -> dict[Words, set[int]]:
    """Map the first two words (or the only word) of phrases to the lengths of the phrases."""
    lengths: dict[Words, set[int]] = {}
    for phrase in phrases:
        lengths.setdefault(phrase[:2], set()).add(len(phrase))
    return lengths


def _known_parts(phrase: Words, lengths: dict[Words, set[int]]) -> Iterator[Words]:
    """Yield the parts of a phrase, including itself, that may be phrases too."""
    for start in range(len(phrase)):
        for length in lengths.get(phrase[start : start + 1], set()) | lengths.get(phrase[start : start + 2], set()):
            if start + length <= len(phrase):
                yield phrase[start : start + length]
    if not phrase:
        yield phrase


def _by_shared_text(texts: Sequence[str], pairs: Sequence[str]) -> NDArray[np.int64]:
    parent = list(range(len(texts)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[str, int] = {}
    both_of = [{normalise(text), normalise(pair)} for text, pair in zip(texts, pairs, strict=True)]
    rows_with = Counter(text for both in both_of for text in both)
    for row, both in enumerate(both_of):
        for text in (text for text in both if rows_with[text] <= COMMON):
            one, other = sorted((root(first.setdefault(text, row)), root(row)))
            parent[other] = one
    return np.array([root(row) for row in range(len(texts))], np.int64)


def _by_first_row(group: NDArray[np.int64]) -> NDArray[np.int64]:
    _, first, which = np.unique(group, return_index=True, return_inverse=True)
    return first[which].astype(np.int64)
