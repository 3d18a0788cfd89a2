"""Load a data set from a folder of split files, or from one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import ColumnError, DataError
from .assemble import assemble, read_split
from .dataset import Columns, Dataset, Split
from .files import Parts, no_splits, once, require_label_format, split_parts, table_parts
from .formats import stem_of
from .formats.decoding.opening import open_file
from .formats.decoding.source import Tell, silent
from .formats.rows import SplitFile, Table
from .known_tasks import CLINC, CLINC_OOS, known_task, require_task, task_columns

_CLINC_FILE = "data_full.json"
_CATEGORIES_FILE = "categories.json"


def load_dataset(
    path: Path,
    columns: Columns = Columns(),  # noqa: B008  (frozen)
    task: str | None = None,
    label_names: Sequence[str] | None = None,
    tell: Tell = silent,
) -> Dataset:
    """Load a data set.

    Args:
        path: a folder with the files ``train``, ``dev`` (or ``val``, ``valid``, ``validation``, ``dev_matched``) and
            ``test`` in any format with labels, each one file or parts (``train-00000-of-00002.parquet``); a GLUE
            folder; CLINC150's JSON file or its folder; or one file of rows or a folder of its parts, which becomes
            ``train``. ``categories.json`` (a list of names) in the folder gives the classes and their order. Nothing
            else in the folder matters. Rows without a label are left out; `Dataset.notes` counts them.
        columns: the columns to use; None = detected.
        task: ``sst2``, ``mrpc``, ``rte``, ``cola``, ``qnli``, ``qqp``, ``mnli``, ``wnli``, ``banking77``, ``clinc150``
            or ``clinc150_oos`` (with the out-of-scope rows as one more class); None = detected. If the folder holds a
            folder for each task, it selects one of them.
        label_names: the expected classes in order, such as those of a bundle; None = those of the data. If given,
            train may hold a single row or class, and every split labels that are not expected.
        tell: receives remarks on how files are read where that is not the default.

    Raises:
        ColumnError: a column is missing or ambiguous.
        LabelError: no row of a split has a label, a label of train is not one of the classes, train has only one class,
            or none of dev's labels is one of the classes.
        TextError: a text is missing, empty, over 1,000,000 characters, or not UTF-8.
        DataError: the file does not exist, has no rows, or has a malformed row.
        UsageError: the task is unknown.
        DependencyError: the library that reads the format (pyarrow, openpyxl) is not installed.
    """  # noqa: DOC501
    path, tell = Path(path), once(tell)
    chosen = require_task(task)
    if not path.exists():
        raise DataError(
            "no such file or folder", path=path, expected="a data set", remedy="Check the path given as --data."
        )
    if path.is_file():
        return _load_file(path, columns, chosen, label_names, tell)
    splits = split_parts(path, tell)
    if splits:
        return _load_folder(path, splits, columns, chosen, label_names, tell)
    if (path / _CLINC_FILE).is_file():
        return _load_file(path / _CLINC_FILE, columns, chosen or CLINC, label_names, tell)
    inner = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and known_task(folder.name) == chosen]
    if chosen is not None and inner:
        return load_dataset(inner[0], columns, chosen, label_names, tell)
    parts = table_parts(path, tell)
    if parts is not None:
        return _load_folder(path, {"train": parts}, columns, chosen, label_names, tell)
    raise no_splits(path)


def _load_folder(
    path: Path,
    files: Mapping[str, Parts],
    columns: Columns,
    task: str | None,
    label_names: Sequence[str] | None,
    tell: Tell,
) -> Dataset:
    reader = _SplitReader(columns, task, tell)
    splits = {name: reader.read(parts, label=name != "test") for name, parts in files.items()}
    name = task or known_task(path.resolve().name) or path.resolve().name
    return assemble(name, splits, label_names, _read_categories(path / _CATEGORIES_FILE) or reader.class_names)


def _load_file(
    path: Path, columns: Columns, task: str | None, label_names: Sequence[str] | None, tell: Tell
) -> Dataset:
    name = task or known_task(stem_of(path)) or stem_of(path)
    reader = _SplitReader(columns, task, tell)
    file_format = require_label_format(path)
    if file_format.splits:
        with open_file(path) as stream:
            content = file_format.read_stream(stream, str(path), columns.encoding, tell)
        if isinstance(content, SplitFile):
            # The out-of-scope rows are read for a bundle that has their class, too.
            with_oos = task == CLINC_OOS or (task != CLINC and "oos" in (label_names or ()))
            tables = content.with_out_of_scope if with_oos else content.splits
            return assemble(
                name, {key: _read_table_of_splits(one, columns) for key, one in tables.items()}, label_names
            )
        return assemble(name, {"train": read_split(content, columns, label=True)}, label_names)
    train = reader.read(Parts((path,), str(path)), label=True)
    return assemble(name, {"train": train}, label_names, reader.class_names)


def _read_table_of_splits(table: Table, columns: Columns) -> Split:
    # CLINC150's rows are lists without names of their own.
    return read_split(table, columns if table.header is None else Columns("text", None, "label"), label=True)


class _SplitReader:
    """Reads splits, and keeps the first order of the classes that a file names.

    Attributes:
        class_names: the classes of the label column in order; None if no file names them.
    """

    def __init__(self, columns: Columns, task: str | None, tell: Tell) -> None:
        self._columns, self._task, self._tell = columns, task, tell
        self.class_names: tuple[str, ...] | None = None

    def read(self, parts: Parts, *, label: bool) -> Split:
        """Read all parts of a split; with several, rows are numbered on from part to part."""
        splits = [self._read_file(path, label=label) for path in parts.files]
        return splits[0] if len(splits) == 1 else _joined(splits, parts)

    def _read_file(self, path: Path, *, label: bool) -> Split:
        file_format = require_label_format(path)
        columns = task_columns(self._task, self._columns) if file_format.name == "tsv" else self._columns
        with open_file(path) as stream:
            table = file_format.read_rows(stream, str(path), columns.encoding, self._tell)
            split = read_split(table, columns, label=label)
        if self.class_names is None and split.label_column is not None:
            self.class_names = table.class_names.get(split.label_column)
        return split


def _joined(splits: Sequence[Split], parts: Parts) -> Split:
    """Join the parts of a split.

    Raises:
        ColumnError: the parts have other columns.
    """
    first = splits[0]
    for split in splits:
        if (split.pairs is None, split.label_column) != (first.pairs is None, first.label_column):
            raise ColumnError(
                "the part has other columns than the first part",
                path=split.source,
                found=f"the label column {split.label_column!r}",
                expected=f"{first.label_column!r}, as in {first.source}",
                remedy="Move it to another folder.",
            )
    rows, before = [], 0
    for split in splits:
        rows += [before + row for row in split.rows]
        before = rows[-1]
    return replace(
        first,
        texts=[text for split in splits for text in split.texts],
        pairs=None if first.pairs is None else [text for split in splits for text in split.pairs or ()],
        labels=None if first.labels is None else [label for split in splits for label in split.labels or ()],
        source=parts.name,
        rows=rows,
        notes=tuple(note for split in splits for note in split.notes),
    )


def _read_categories(path: Path) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    with open_file(path) as stream:
        content = stream.read()
    try:
        names = json.loads(content)
    except ValueError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(
            "the file does not name the classes",
            path=path,
            expected="a JSON list of strings",
            remedy="Correct it, or remove it to use the classes of the rows.",
        )
    return tuple(names)
