"""Make a checked data set from rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from ...errors import ColumnError, DataError, LabelError, UsageError
from ..labels import LabelNames
from .cells import check_text, optional_label
from .columns import ChosenColumns, choose_columns
from .dataset import SPLIT_NAMES, Columns, Dataset, Split, sort_labels
from .formats.rows import BadRow, RawRow, Table, empty_file
from .split_labels import SplitLabels


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
    split = Split([], None if chosen.pair is None else [], None, source, [], chosen.label)
    labels = _LabelColumn()
    for row in rows:
        number, cells = _named_cells(row, source)
        _append(split, number, cells, chosen)
        if chosen.label is not None:
            labels.append(cells.get(chosen.label), split)
    if not len(split):
        raise empty_file(source)
    return split if chosen.label is None else labels.of(split, required=label)


def _append(split: Split, number: int, cells: Mapping[str, object], chosen: ChosenColumns) -> None:
    split.texts.append(check_text(cells.get(chosen.text), split.source, number, chosen.text))
    if split.pairs is not None and chosen.pair is not None:
        split.pairs.append(check_text(cells.get(chosen.pair), split.source, number, chosen.pair))
    split.rows.append(number)


@dataclass
class _LabelColumn:
    """The labels of a split while it is read.

    Attributes:
        texts: the label of each row, without blanks at its ends; None where it is missing.
        padded: the labels that had blanks, as in the source.
    """

    texts: list[str | None] = field(default_factory=list)
    padded: list[str] = field(default_factory=list)

    def append(self, value: object, split: Split) -> None:
        """Append the label of the last row of a split."""
        self.texts.append(optional_label(value, split.source, split.rows[-1], split.label_column))
        if isinstance(value, str) and self.texts[-1] is not None and value != value.strip():
            self.padded.append(value)

    def of(self, split: Split, *, required: bool) -> Split:
        """Return the rows that have a label, with their labels; without any label, all rows.

        Raises:
            LabelError: no row has a label, and labels are required.
        """
        kept = [row for row, label in enumerate(self.texts) if label is not None]
        if not kept and required:
            raise LabelError(
                "no row has a label",
                path=split.source,
                column=split.label_column,
                found=f"0 labels in {len(split):,} rows",
                expected="a label in each row",
                remedy="Fill the cells, or name another column with --label-column.",
            )
        if not kept:
            return replace(split, label_column=None)
        labels = [label for label in self.texts if label is not None]
        return replace(split.take(kept), labels=labels, notes=tuple(self._notes(split)))

    def _notes(self, split: Split) -> Iterator[str]:
        missing = [number for number, label in zip(split.rows, self.texts, strict=True) if label is None]
        if missing:
            yield (
                f"{split.source}: {len(missing):,} of {len(split):,} rows have no label and are left out "
                f"(the first is row {missing[0]})"
            )
        if self.padded:
            yield (
                f"{split.source}: blanks at the ends of labels are removed, in {len(self.padded):,} rows "
                f"(such as {self.padded[0]!r})"
            )


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
        label_names: the classes that the caller expects (those of a bundle); train may then have a single row or class,
            and rows with other labels.
        source_names: the classes that the source names, in order.

    Raises:
        ColumnError: some splits are pairs, others single texts.
        LabelError: train has only one class or a label that the source does not name, or no label of dev is in train.
        DataError: train has a single row.
        UsageError: a class is named twice.
    """
    splits = {key: splits[key] for key in SPLIT_NAMES if key in splits}
    _require_same_kind(name, splits)
    named = label_names or [one.strip() for one in source_names or ()]
    known = LabelNames(named) if named else _found_labels(splits)
    names = tuple(named or sort_labels(known.names))
    if len(set(names)) < len(names):
        twice = next(one for one in names if names.count(one) > 1)
        raise UsageError("a class is named twice", path=name, found=repr(twice), expected="every class once")
    read = SplitLabels(splits, known, training=label_names is None)
    if label_names is None and "train" in read.splits:
        _require_trainable(read.splits["train"])
    notes = (*(note for split in splits.values() for note in split.notes), *read.notes)
    return Dataset(name, dict(read.splits), names, notes)


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
            found=f"{len(train)} row" if len(train) == 1 else "none",
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


def _found_labels(splits: Mapping[str, Split]) -> LabelNames:
    """Return the classes of train, or without a train split the classes of all splits."""
    labelled = [splits["train"]] if "train" in splits else splits.values()
    return LabelNames.of_texts(label for split in labelled for label in split.labels or ())
