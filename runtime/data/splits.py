"""Split rows: stratified splits, a dev split held out from train, the split to score, rows that two splits share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

from ...errors import DataError, LabelError, UsageError
from .dataset import Dataset, Split, label_indices

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# numpy is imported in functions, because the command line imports this package for the help of its options.
Indices: TypeAlias = "npt.NDArray[np.int64]"

ALL = "all"
DEV_SHARE = 0.1
_DEV_SEED = 0


def stratified_split(
    labels: npt.ArrayLike, share: float | None = None, *, count: int | None = None, seed: int = 0
) -> tuple[Indices, Indices]:
    """Hold out an exact number of rows, with every class in proportion.

    The count is distributed by the largest-remainder method, so every class is within one row of its exact quota unless
    it has too few rows: a class always keeps one row, so a class of one row is never held out. The rows of a class are
    drawn with numpy's PCG64, which gives the same rows on every machine.

    Args:
        labels: int [n], the class of every row; any integers.
        share: the share to hold out, 0 <= share < 1 (rounded to the nearest count).
        count: the number of rows to hold out, instead of ``share``.
        seed: the seed of the draw, >= 0.

    Returns:
        ``(rest, held)``, int64 row numbers, each ascending; together they have every row once.

    Raises:
        UsageError: neither or both of ``share`` and ``count`` are given, one is out of range, or the classes do not
            have enough rows.
        ValueError: ``labels`` are not integers [n].
    """
    import numpy as np

    classes = np.asarray(labels)
    if classes.ndim != 1 or (classes.size and classes.dtype.kind not in "iu"):
        raise ValueError(f"labels must be integers [n], found {classes.dtype} {list(classes.shape)}")
    held_out = _held_out_rows(classes.size, share, count)
    _, which, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    if held_out > int((sizes - 1).sum()):
        raise UsageError(
            "too many rows to hold out",
            found=f"{held_out} of {classes.size} rows in {sizes.size} classes",
            expected=f"at most {int((sizes - 1).sum())}, so that every class keeps a row",
            remedy="Hold out fewer rows, or provide more rows.",
        )
    quotas = _quotas([int(size) for size in sizes], held_out)
    generator = np.random.Generator(np.random.PCG64(seed))
    held = np.zeros(classes.size, dtype=bool)
    for class_number, quota in enumerate(quotas):
        members = np.flatnonzero(which == class_number)
        held[generator.permutation(members)[:quota]] = True
    return np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64)


def _held_out_rows(rows: int, share: float | None, count: int | None) -> int:
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


def _quotas(sizes: list[int], total_quota: int) -> list[int]:
    """Return whole numbers that sum to ``total_quota``, in proportion to ``sizes``, each less than its size."""
    total = sum(sizes)
    exact = [Fraction(size * total_quota, total) for size in sizes]
    quotas = [min(int(value), size - 1) for value, size in zip(exact, sizes, strict=True)]
    # Several rounds, because the quota of a class at its limit goes to the others.
    while (missing := total_quota - sum(quotas)) > 0:
        open_classes = [number for number, size in enumerate(sizes) if quotas[number] < size - 1]
        open_classes.sort(key=lambda number: (quotas[number] - exact[number], number))
        for number in open_classes[:missing]:
            quotas[number] += 1
    return quotas


def hold_out(split: Split, label_names: tuple[str, ...], count: int, seed: int) -> tuple[Indices, Indices]:
    """Hold out ``count`` rows with ``stratified_split``, or fewer if the classes do not have enough rows.

    Returns:
        ``(rest, held)`` row numbers.

    Raises:
        DataError: the classes do not have a row that can be held out.
    """
    import numpy as np

    labels = label_indices(split, label_names, unseen=True)
    spare = int((np.unique(labels, return_counts=True)[1] - 1).sum())
    count = min(count, spare)
    if count < 1:
        raise DataError(
            "too few rows to hold any out",
            path=split.source,
            found=f"{len(split)} rows of {len(set(labels.tolist()))} classes",
            expected="at least 20 rows, and several of each class",
            remedy="Provide more labelled rows.",
        )
    return stratified_split(labels, count=count, seed=seed)


def with_dev_split(dataset: Dataset) -> Dataset:
    """Return the data set with a dev split: its own, or a stratified tenth of train, held out with a fixed seed.

    Call this before the rows are changed: then training and evaluation hold out the same rows.
    """
    train = dataset.splits.get("train")
    if "dev" in dataset.splits or train is None:
        return dataset
    rest, held = hold_out(train, dataset.label_names, round(len(train) * DEV_SHARE), _DEV_SEED)
    splits = {**dataset.splits, "train": train.take(rest), "dev": train.take(held)}
    return replace(dataset, splits=splits)


def is_held_out(dataset: Dataset, name: str) -> bool:
    """Whether the split that ``choose_split`` returns under this name is held out from train."""
    return name == "dev" and "dev" not in dataset.splits


def choose_split(dataset: Dataset, name: str | None) -> tuple[str, Split]:
    """Choose the split to score.

    Args:
        dataset: the data set, as loaded.
        name: ``train``, ``dev`` (held out from train if there is none), ``test``, or ``all`` for every labelled row;
            None = ``test`` if it has labels, else ``dev``.

    Returns:
        The name and the rows of the split.

    Raises:
        UsageError: there is no such split.
        LabelError: the split has no labels.
    """  # noqa: DOC501
    test = dataset.splits.get("test")
    if name is None:
        name = "test" if test is not None and test.labels is not None else "dev"
    if name == ALL:
        return name, _joined([split for split in dataset.splits.values() if split.labels is not None], dataset)
    if name in ("train", "dev"):
        dataset = _with_dev_split(dataset, name)
    if name not in dataset.splits:
        raise UsageError(
            f"there is no split {name!r}",
            path=dataset.name,
            expected=f"one of {', '.join(dataset.splits)}, {ALL}",
            remedy="Choose another --split.",
        )
    if dataset.splits[name].labels is None:
        raise _unlabelled(dataset.splits[name].source)
    return name, dataset.splits[name]


def unlabelled_split(dataset: Dataset) -> Split:
    """Return a split whose labels are not needed: test, else dev, else train."""
    return next(dataset.splits[name] for name in ("test", "dev", "train") if name in dataset.splits)


def _with_dev_split(dataset: Dataset, name: str) -> Dataset:
    try:
        return with_dev_split(dataset)
    except LabelError:
        raise
    except DataError as error:
        if name == "train":
            return dataset
        raise error.at(remedy=f"Score every row with --split {ALL}.") from error


def _joined(splits: Sequence[Split], dataset: Dataset) -> Split:
    if not splits:
        raise _unlabelled(dataset.name)
    if len(splits) == 1:
        return splits[0]
    return Split(
        texts=[text for split in splits for text in split.texts],
        pairs=[text for split in splits for text in split.pairs or ()] if dataset.text_pair else None,
        labels=[label for split in splits for label in split.labels or ()],
        source=", ".join(split.source for split in splits),
        rows=[row for split in splits for row in split.rows],
        label_column=splits[0].label_column,
    )


def _unlabelled(source: str) -> LabelError:
    return LabelError(
        "the split has no labels to score against",
        path=source,
        expected="labelled rows",
        remedy="Choose another --split.",
    )


def normalise(text: str) -> str:
    """Strip a text and replace every run of white space in it by one space."""
    return " ".join(text.split())


def drop_duplicates_of(train: Split, held: Iterable[Split]) -> npt.NDArray[np.int64]:
    """Find the rows of ``train`` that are not in a held-out split, because a knowledge base must not hold those.

    Two rows are the same if their texts (both texts of a pair, in order) are equal after ``normalise``; labels are
    ignored. Repetitions within ``train`` stay.

    Args:
        train: the rows to filter.
        held: the held-out splits.

    Returns:
        int64 [m], the 0-based rows of ``train`` to keep, ascending.
    """
    import numpy as np

    taken = {key for split in held for key in _keys(split)}
    kept = [row for row, key in enumerate(_keys(train)) if key not in taken]
    return np.asarray(kept, dtype=np.int64)


def _keys(split: Split) -> list[tuple[str, ...]]:
    if split.pairs is None:
        return [(normalise(text),) for text in split.texts]
    return [(normalise(text), normalise(pair)) for text, pair in zip(split.texts, split.pairs, strict=True)]
