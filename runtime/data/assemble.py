"""Make a checked data set from rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from ...errors import ColumnError, DataError, LabelError, UsageError
from .cells import check_label, check_text
from .columns import ChosenColumns, choose_columns
from .dataset import SPLIT_NAMES, Columns, Dataset, Split, label_indices, sort_labels
from .formats.rows import BadRow, RawRow, Table, empty_file


def dataset_from_rows(
    name: str,
    splits: Mapping[str, Iterable[Mapping[str, object]]],
    columns: Columns = Columns(),  # noqa: B008  (frozen)
    label_names: Sequence[str] | None = None,
    source_names: Sequence[str] | None = None,
) -> Dataset:
    """Make a data set from rows that are already in memory.

    Args:
        name: the name of the data set; messages name ``NAME[SPLIT]``.
        splits: ``"train"``, ``"dev"``, ``"test"`` -> rows, column name -> cell; the first row has every column.
        columns: the columns to use; None = detected.
        label_names: the classes that the caller expects, in order (those of a bundle).
        source_names: the classes that the source names, in order. Without both, the classes are those of the rows.

    Raises:
        DataError: same as `load_dataset`.
    """
    read = {}
    for split, rows in splits.items():
        table = Table(f"{name}[{split}]", None, (RawRow(number, dict(row)) for number, row in enumerate(rows, 1)))
        read[split] = read_split(table, columns, label=split != "test")
    return assemble(name, read, label_names, source_names)


def read_split(table: Table, columns: Columns, *, label: bool) -> Split:
    """Read all rows of a table into a split.

    Args:
        table: the rows.
        columns: the columns to use.
        label: whether the rows must have labels.

    Raises:
        DataError: the table is empty, or a row cannot be used (the first one is raised, also as ColumnError, LabelError
            or TextError).
    """  # noqa: DOC501
    source = table.source
    header, rows = _read_header(table)
    chosen = choose_columns(header, columns, source, label=label)
    pairs: list[str] | None = None if chosen.pair is None else []
    labels: list[str] | None = None if chosen.label is None else []
    split = Split([], pairs, labels, source, [], chosen.label)
    for row in rows:
        _append(split, _named_cells(row, source), chosen)
    if not len(split):
        raise empty_file(source)
    return split


def _append(split: Split, row: tuple[int, Mapping[str, object]], chosen: ChosenColumns) -> None:
    number, cells = row
    split.texts.append(check_text(cells.get(chosen.text), split.source, number, chosen.text))
    if split.pairs is not None and chosen.pair is not None:
        split.pairs.append(check_text(cells.get(chosen.pair), split.source, number, chosen.pair))
    if split.labels is not None and chosen.label is not None:
        split.labels.append(check_label(cells.get(chosen.label), split.source, number, chosen.label))
    split.rows.append(number)


def _read_header(table: Table) -> tuple[tuple[str, ...], Iterator[RawRow | BadRow]]:
    """Return the column names (those of the first row, if each row names its own) and all rows.

    Raises:
        DataError: the table is empty.
    """  # noqa: DOC501
    source = table.source
    if table.header is not None:
        return table.header, table.rows
    first = next(table.rows, None)
    if first is None:
        raise empty_file(source)
    _, cells = _named_cells(first, source)
    return tuple(cells), chain([first], table.rows)


def _named_cells(row: RawRow | BadRow, source: str) -> tuple[int, Mapping[str, object]]:
    if isinstance(row, BadRow):
        raise row.error
    if not isinstance(row.value, dict):
        raise ColumnError(
            "the row has no named columns",
            path=source,
            row=row.row,
            found=repr(row.value),
            expected='an object, {"text": ..., "label": ...}',
            remedy="Write every row as a JSON object.",
        )
    return row.row, row.value


def assemble(
    name: str,
    splits: Mapping[str, Split],
    label_names: Sequence[str] | None,
    source_names: Sequence[str] | None = None,
) -> Dataset:
    """Check splits against each other and determine the classes.

    Args:
        name: the name of the data set.
        splits: split name -> its rows.
        label_names: the classes that the caller expects (those of a bundle); train may then have a single row or class.
        source_names: the classes that the source names, in order.

    Raises:
        ColumnError: some splits are pairs, others single texts.
        LabelError: a label is not one of the classes, or train has only one class.
        DataError: train has a single row.
        UsageError: a class is named twice.
    """
    splits = _without_placeholder_labels({key: splits[key] for key in SPLIT_NAMES if key in splits})
    _require_same_kind(name, splits)
    train = splits.get("train")
    if label_names is None and train is not None:
        _require_trainable(train)
    names = tuple(label_names or source_names or _found_labels(splits))
    if len(set(names)) < len(names):
        twice = next(one for one in names if names.count(one) > 1)
        raise UsageError("a class is named twice", path=name, found=repr(twice), expected="every class once")
    for split in splits.values():
        if split.labels is not None:
            label_indices(split, names)
    return Dataset(name, dict(splits), names)


def _without_placeholder_labels(splits: Mapping[str, Split]) -> Mapping[str, Split]:
    """Drop the labels of a test split that are all -1: on the hub, GLUE's test sets have it for "no label"."""
    test, train = splits.get("test"), splits.get("train")
    if test is None or test.labels is None or set(test.labels) != {"-1"}:
        return splits
    if train is not None and "-1" in (train.labels or ()):
        return splits
    return {**splits, "test": Split(test.texts, test.pairs, None, test.source, test.rows)}


def _require_same_kind(name: str, splits: Mapping[str, Split]) -> None:
    if len({split.pairs is None for split in splits.values()}) > 1:
        kinds = ", ".join(f"{key}: {'single' if one.pairs is None else 'pairs'}" for key, one in splits.items())
        raise ColumnError(
            "some splits are pairs of texts, others single texts",
            path=name,
            found=kinds,
            expected="the same columns in every split",
            remedy="Name the columns with --text-column and --text-pair-column.",
        )


def _require_trainable(train: Split) -> None:
    if len(train) < 2:
        raise DataError(
            "too few rows to train on",
            path=train.source,
            found="1 row",
            expected="at least 2, of 2 classes",
            remedy="Provide more labelled rows.",
        )
    labels = set(train.labels or ())
    if len(labels) == 1:
        raise LabelError(
            "there is only one class",
            path=train.source,
            found=f"{labels.pop()!r} in all {len(train):,} rows",
            expected="at least 2 classes",
            remedy="Check that --label-column names the right column.",
        )


def _found_labels(splits: Mapping[str, Split]) -> tuple[str, ...]:
    """Return the classes of train, or without a train split the classes of all splits."""
    labelled = [splits["train"]] if "train" in splits else splits.values()
    return sort_labels({label for split in labelled for label in split.labels or ()})
