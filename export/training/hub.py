"""Read data sets from the Hugging Face hub, or saved to a folder, with `datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from ...errors import DataError
from ...runtime.data import Columns, Dataset, dataset_from_rows
from ...runtime.data.columns import choose_columns

# Names of the splits in hub data sets, by our name; the first name that exists is used.
_SPLITS = {
    "train": ("train",),
    "dev": ("dev", "validation", "val", "valid", "validation_matched"),
    "test": ("test",),
}
# Files by which a folder of save_to_disk is recognised.
_SAVED = ("dataset_dict.json", "state.json")


def load_hub_dataset(
    name: str, columns: Columns, task: str | None = None, label_names: Sequence[str] | None = None
) -> Dataset:
    """Read a data set by its hub id, or from a folder that is a copy of a hub repository or comes from save_to_disk.

    Args:
        name: hub id or folder.
        columns: names of the columns, see ``Columns``.
        task: configuration (subset) of the hub data set, e.g. ``sst2`` of ``glue``.
        label_names: the labels in order; by default the names of the ClassLabel column, else the same as for files.

    Raises:
        DataError: the data set cannot be loaded (it does not exist, or the network is down), or has no usable split.
    """
    loaded = _load(name, task)
    splits = {}
    for ours, theirs in _SPLITS.items():
        found = next((loaded[one] for one in theirs if one in loaded), None)
        if found is not None:
            splits[ours] = found
    if not splits:
        raise DataError(
            "the data set has no usable split",
            path=name,
            found=", ".join(loaded) or "none",
            expected="train, validation or test",
        )
    first = next(iter(splits.values()))
    named = _class_names(first)
    label = choose_columns(tuple(first.features), columns, name, label=False).label
    rows = {ours: _rows(found, named) for ours, found in splits.items()}
    return dataset_from_rows(name, rows, columns, label_names, named.get(label or ""))


def _class_names(split: Any) -> dict[str, list[str]]:
    """Return the class names of each ClassLabel column."""
    return {
        column: feature.names
        for column, feature in split.features.items()
        if isinstance(feature, datasets.ClassLabel) and feature.names
    }


def _rows(split: Any, named: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """Yield the rows with class names for class numbers; -1 means no label, and a column of it no labels at all."""
    unlabelled = {column for column in named if len(split) and split.unique(column) == [-1]}
    for row in split:
        yield {
            column: _class_name(named[column], value) if column in named else value
            for column, value in row.items()
            if column not in unlabelled
        }


def _class_name(names: list[str], value: Any) -> Any:
    if not isinstance(value, int):
        return value
    return names[value] if value >= 0 else None


def _load(name: str, task: str | None) -> dict[str, Any]:
    try:
        if any((Path(name) / file).is_file() for file in _SAVED):
            loaded = datasets.load_from_disk(name)
            return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
        return dict(datasets.load_dataset(name, task))
    except Exception as error:  # the library's exceptions have no common base class
        raise DataError(
            "the data set cannot be loaded",
            path=name,
            found=(str(error).splitlines() or [type(error).__name__])[0],
            expected="a file, a folder, or the id of a data set on the Hugging Face hub",
            remedy="Check the path or id; without a network only files and folders can be read.",
        ) from error
