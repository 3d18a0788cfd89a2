"""Carving a dev split out of train, the same rows at every call, and choosing the split to score on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import DataError, LabelError, UsageError
from .dataset import Dataset, Split, label_indices
from .stratified_split import Indices, stratified_split

ALL = "all"
DEV_SHARE = 0.1
_DEV_SEED = 0


def carve(split: Split, label_names: tuple[str, ...], count: int, seed: int) -> tuple[Indices, Indices]:
    """``stratified_split`` of at most ``count`` rows: fewer where the classes cannot spare them.

    Returns:
        ``(rest, held)`` row numbers.

    Raises:
        DataError: not a single row can be spared.
    """
    labels = label_indices(split, label_names)
    spare = int((np.unique(labels, return_counts=True)[1] - 1).sum())
    count = min(count, spare)
    if count < 1:
        raise DataError(
            "too few rows to hold any out",
            path=split.source,
            found=f"{len(split)} rows of {len(set(labels.tolist()))} classes",
            expected="at least 20 rows, and several of each class",
            remedy="Bring more labelled rows.",
        )
    return stratified_split(labels, count=count, seed=seed)


def with_dev_split(dataset: Dataset) -> Dataset:
    """The data set as it is, or, where it has no dev split, with a tenth of train carved out as one.

    Stratified, by a fixed seed, before anything else is done to the rows: training and evaluation, which both call
    this, agree on the rows.
    """
    train = dataset.splits.get("train")
    if "dev" in dataset.splits or train is None:
        return dataset
    rest, held = carve(train, dataset.label_names, round(len(train) * DEV_SHARE), _DEV_SEED)
    splits = {**dataset.splits, "train": train.take(rest), "dev": train.take(held)}
    return Dataset(dataset.name, splits, dataset.label_names)


def is_carved(dataset: Dataset, name: str) -> bool:
    """Whether ``choose_split`` gave, under this name, a split that the data set itself does not have."""
    return name == "dev" and "dev" not in dataset.splits


def choose_split(dataset: Dataset, name: str | None) -> tuple[str, Split]:
    """The split to score on: the one named, else test if it has labels, else dev (carved if there is none).

    Args:
        dataset: as read.
        name: ``train``, ``dev``, ``test``, or ``all`` for every labelled row, none carved out.

    Returns:
        Its name and its rows.

    Raises:
        UsageError: there is no split of that name.
        LabelError: the split has no labels.
    """
    test = dataset.splits.get("test")
    if name is None:
        name = "test" if test is not None and test.labels is not None else "dev"
    if name == ALL:
        return name, _joined([split for split in dataset.splits.values() if split.labels is not None], dataset)
    if name in ("train", "dev"):
        dataset = _carved(dataset, name)
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
    """A split whose texts are wanted, whether it has labels or not: test, else dev, else train."""
    return next(dataset.splits[name] for name in ("test", "dev", "train") if name in dataset.splits)


def _carved(dataset: Dataset, name: str) -> Dataset:
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
