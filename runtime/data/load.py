"""Loading a data set from a folder of split files, or from one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ...errors import DataError
from .assemble import assemble, read_split
from .dataset import SPLIT_NAMES, Columns, Dataset, Split
from .formats.clinc150 import read_split_object
from .formats.csv_tsv import read_csv, read_tsv
from .formats.jsonl import read_json, read_jsonl
from .formats.parquet import read_parquet
from .known_tasks import CLINC, CLINC_OOS, known_task, require_task, task_columns
from .rows import Table

Reader = Callable[[BinaryIO, str], Table]
READERS: dict[str, Reader] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": read_parquet,
}
_SUFFIXES = (*READERS, ".json")
_SPLIT_STEMS = {
    "train": ("train",),
    "dev": ("dev", "val", "valid", "validation", "dev_matched", "validation_matched"),
    "test": ("test", "test_matched"),
}
_CLINC_FILE = "data_full.json"
_CATEGORIES_FILE = "categories.json"


def load_dataset(
    path: Path,
    columns: Columns = Columns(),  # noqa: B008  (frozen)
    task: str | None = None,
    label_names: Sequence[str] | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        path: a folder with files ``train``, ``dev`` (``val``, ``valid``, ``validation``, ``dev_matched``) and ``test``
            (``.csv``, ``.tsv``, ``.jsonl``, ``.json``, ``.parquet``), a GLUE folder, clinc150's JSON or its folder, or
            one file of rows, which becomes ``train``. ``categories.json`` (a list of names) in the folder gives the
            classes and their order.
        columns: the columns to use; None = found by themselves.
        task: ``sst2``, ``mrpc``, ``rte``, ``cola``, ``qnli``, ``qqp``, ``mnli``, ``wnli``, ``banking77``, ``clinc150``
            or ``clinc150_oos`` (with the out-of-scope rows as one more class); None = told by the data. Of a folder of
            such folders it chooses one.
        label_names: the classes to expect, in order, as those of a bundle; None = those of the data. Given, train may
            hold a single row or class.

    Raises:
        ColumnError: a column is missing or cannot be told.
        LabelError: a label is missing, is none of the classes, or there is only one class to train on.
        TextError: a text is missing, empty, over 1,000,000 characters, or not UTF-8.
        DataError: no such file, no row, a malformed row.
        UsageError: an unknown task.
        DependencyError: Parquet without pyarrow.
    """
    path = Path(path)
    chosen = require_task(task)
    if not path.exists():
        raise DataError(
            "no such file or folder", path=path, expected="a data set", remedy="Check the path given as --data."
        )
    if path.is_file():
        return _load_file(path, columns, chosen, label_names)
    files = _find_splits(path)
    if files:
        return _load_folder(path, files, columns, chosen, label_names)
    if (path / _CLINC_FILE).is_file():
        return _load_file(path / _CLINC_FILE, columns, chosen or CLINC, label_names)
    inner = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and known_task(folder.name) == chosen]
    if chosen is not None and inner:
        return load_dataset(inner[0], columns, chosen, label_names)
    raise _no_splits(path)


def _load_folder(
    path: Path, files: dict[str, Path], columns: Columns, task: str | None, label_names: Sequence[str] | None
) -> Dataset:
    splits = {name: _read_file(file, columns, task, label=name != "test") for name, file in files.items()}
    name = task or known_task(path.resolve().name) or path.resolve().name
    return assemble(name, splits, label_names, _read_categories(path / _CATEGORIES_FILE))


def _load_file(path: Path, columns: Columns, task: str | None, label_names: Sequence[str] | None) -> Dataset:
    name = task or known_task(path.stem) or path.stem
    if path.suffix.lower() == ".json":
        with _readable(path):
            content = read_json(path, str(path))
        if isinstance(content, dict):
            # A bundle that knows the class asks for its rows.
            with_oos = task == CLINC_OOS or (task != CLINC and "oos" in (label_names or ()))
            return assemble(name, read_split_object(content, str(path), with_oos=with_oos), label_names)
    return assemble(name, {"train": _read_file(path, columns, task, label=True)}, label_names)


def _read_file(path: Path, columns: Columns, task: str | None, *, label: bool) -> Split:
    suffix = path.suffix.lower()
    source = str(path)
    if suffix not in _SUFFIXES:
        raise DataError(
            "unknown kind of file",
            path=path,
            found=suffix or "no suffix",
            expected=f"one of {', '.join(_SUFFIXES)}",
            remedy="Rename the file by what it holds.",
        )
    with _readable(path):
        if suffix == ".json":
            content = read_json(path, source)
            if not isinstance(content, Table):
                raise DataError("the file holds splits of its own", path=path, expected="rows of one split")
            return read_split(content, source, columns, label=label)
        if suffix == ".tsv":
            columns = task_columns(task, columns)
        with path.open("rb") as stream:
            return read_split(READERS[suffix](stream, source), source, columns, label=label)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a DataError."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file that is there but cannot be opened or read."""
    return DataError(
        "the file cannot be read",
        path=path,
        found=error.strerror or str(error),
        expected="a readable file",
        remedy="Check its permissions.",
    )


def _find_splits(folder: Path) -> dict[str, Path]:
    """The split files of a folder.

    Raises:
        DataError: two files could be the same split.
    """
    found = {}
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    for name in SPLIT_NAMES:
        candidates = [file for file in files if file.stem.lower() in _SPLIT_STEMS[name]]
        if len(candidates) > 1:
            raise DataError(
                f"several files could be the {name} split",
                path=folder,
                found=", ".join(file.name for file in candidates),
                expected="one",
                remedy="Move the others elsewhere.",
            )
        if candidates:
            found[name] = candidates[0]
    return found


def _read_categories(path: Path) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    try:
        with _readable(path):
            names = json.loads(path.read_bytes())
    except ValueError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(
            "the file does not name the classes",
            path=path,
            expected="a JSON list of strings",
            remedy="Correct it, or remove it: the classes are then those of the rows.",
        )
    return tuple(names)


def _no_splits(folder: Path) -> DataError:
    names = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    found = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return DataError(
        "the folder holds no split files",
        path=folder,
        found=found or "an empty folder",
        expected=f"train, dev or test with one of {', '.join(_SUFFIXES)}",
        remedy="Rename the files, or give one file.",
    )
