"""Carving rows out of a split so that every class keeps its share."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ...errors import UsageError

Indices = npt.NDArray[np.int64]


def stratified_split(
    labels: npt.ArrayLike, share: float | None = None, *, count: int | None = None, seed: int = 0
) -> tuple[Indices, Indices]:
    """Split rows into a rest and a held-out part of an exact size, class by class.

    The held-out count is shared out by largest remainder, so that every class is within one row of its exact quota
    unless its limit forbids it: a class always keeps a row in the rest, so one of a single row is never held out. The
    rows of a class are drawn by numpy's PCG64, which gives the same answer on every machine.

    Args:
        labels: int [n], the class of every row; any integers.
        share: the share to hold out, 0 <= share < 1 (rounded to the nearest count), or
        count: the number of rows to hold out.
        seed: of the draw, >= 0.

    Returns:
        ``(rest, held)``, int64 row numbers, both ascending, together every row once.

    Raises:
        UsageError: neither or both of ``share`` and ``count`` are given, one is out of range, or more rows are asked
            for than the classes can give.
    """
    classes = np.asarray(labels)
    if classes.ndim != 1 or (classes.size and classes.dtype.kind not in "iu"):
        raise ValueError(f"labels must be integers [n], found {classes.dtype} {list(classes.shape)}")
    wanted = _wanted(classes.size, share, count)
    _, which, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    if wanted > int((sizes - 1).sum()):
        raise UsageError(
            "too many rows to hold out",
            found=f"{wanted} of {classes.size} rows in {sizes.size} classes",
            expected=f"at most {int((sizes - 1).sum())}, so that every class keeps a row",
            remedy="Hold out less, or bring more rows.",
        )
    quotas = _quotas([int(size) for size in sizes], wanted)
    generator = np.random.Generator(np.random.PCG64(seed))
    held = np.zeros(classes.size, dtype=bool)
    for class_number, quota in enumerate(quotas):
        members = np.flatnonzero(which == class_number)
        held[generator.permutation(members)[:quota]] = True
    return np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64)


def _wanted(rows: int, share: float | None, count: int | None) -> int:
    if (share is None) == (count is None):
        raise UsageError("give either a share or a count of rows to hold out", expected="exactly one of the two")
    if share is not None:
        if not 0 <= share < 1:
            raise UsageError("the share to hold out is out of range", found=share, expected="0 <= share < 1")
        return round(rows * share)
    assert count is not None
    if count < 0:
        raise UsageError("the count to hold out is out of range", found=count, expected="0 or more")
    return count


def _quotas(sizes: list[int], wanted: int) -> list[int]:
    """Whole numbers that sum to ``wanted``, in proportion to ``sizes``, each below its size (largest remainder)."""
    total = sum(sizes)
    exact = [Fraction(size * wanted, total) for size in sizes]
    quotas = [min(int(value), size - 1) for value, size in zip(exact, sizes, strict=True)]
    # Several rounds, because a class at its limit hands its part on to the others.
    while (missing := wanted - sum(quotas)) > 0:
        open_classes = [number for number, size in enumerate(sizes) if quotas[number] < size - 1]
        open_classes.sort(key=lambda number: (quotas[number] - exact[number], number))
        for number in open_classes[:missing]:
            quotas[number] += 1
    return quotas
