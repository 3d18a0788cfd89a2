"""Load a data set from a folder of split files, or from one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ...errors import DataError
from .assemble import assemble, read_split
from .dataset import SPLIT_NAMES, Columns, Dataset, Split
from .formats import FORMATS, FileFormat, format_of, open_file
from .formats.rows import SplitFile
from .known_tasks import CLINC, CLINC_OOS, known_task, require_task, task_columns

_SUFFIXES = tuple(suffix for one in FORMATS if one.labels for suffix in one.suffixes)
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
        path: a folder with the files ``train``, ``dev`` (or ``val``, ``valid``, ``validation``, ``dev_matched``) and
            ``test`` in any format with labels; a GLUE folder; CLINC150's JSON file or its folder; or one file of rows,
            which becomes ``train``. ``categories.json`` (a list of names) in the folder gives the classes and their
            order. Nothing else in the folder matters. Rows without a label are left out; `Dataset.notes` counts them.
        columns: the columns to use; None = detected.
        task: ``sst2``, ``mrpc``, ``rte``, ``cola``, ``qnli``, ``qqp``, ``mnli``, ``wnli``, ``banking77``, ``clinc150``
            or ``clinc150_oos`` (with the out-of-scope rows as one more class); None = detected. If the folder holds a
            folder for each task, it selects one of them.
        label_names: the expected classes in order, such as those of a bundle; None = those of the data. If given,
            train may hold a single row or class, and every split labels that are not expected.

    Raises:
        ColumnError: a column is missing or ambiguous.
        LabelError: no row of a split has a label, a label of train is not one of the classes, train has only one class,
            or none of dev's labels is one of the classes.
        TextError: a text is missing, empty, over 1,000,000 characters, or not UTF-8.
        DataError: the file does not exist, has no rows, or has a malformed row.
        UsageError: the task is unknown.
        DependencyError: the file is Parquet, and pyarrow is not installed.
    """  # noqa: DOC501
    path = Path(path)
    chosen = require_task(task)
    if not path.exists():
        raise DataError(
            "no such file or folder", path=path, expected="a data set", remedy="Check the path given as --data."
        )
    if path.is_file():
        return _load_file(path, columns, chosen, label_names)
    files = find_splits(path)
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
    splits = {name: _read_split_file(file, columns, task, label=name != "test") for name, file in files.items()}
    name = task or known_task(path.resolve().name) or path.resolve().name
    return assemble(name, splits, label_names, _read_categories(path / _CATEGORIES_FILE))


def _load_file(path: Path, columns: Columns, task: str | None, label_names: Sequence[str] | None) -> Dataset:
    name = task or known_task(path.stem) or path.stem
    file_format = _require_format(path)
    if file_format.splits:
        with open_file(path) as stream:
            content = file_format.read(stream, str(path))
        if isinstance(content, SplitFile):
            # The out-of-scope rows are read for a bundle that has their class, too.
            with_oos = task == CLINC_OOS or (task != CLINC and "oos" in (label_names or ()))
            tables = content.with_out_of_scope if with_oos else content.splits
            columns = Columns("text", None, "label")
            return assemble(
                name, {key: read_split(table, columns, label=True) for key, table in tables.items()}, label_names
            )
    return assemble(name, {"train": _read_split_file(path, columns, task, label=True)}, label_names)


def _read_split_file(path: Path, columns: Columns, task: str | None, *, label: bool) -> Split:
    file_format = _require_format(path)
    if file_format.name == "tsv":
        columns = task_columns(task, columns)
    with open_file(path) as stream:
        return read_split(file_format.read_rows(stream, str(path)), columns, label=label)


def _require_format(path: Path) -> FileFormat:
    file_format = format_of(path)
    if file_format is None or not file_format.labels:
        raise DataError(
            "unknown file format",
            path=path,
            found=path.suffix.lower() or "no suffix",
            expected=f"one of {', '.join(_SUFFIXES)}",
            remedy="Give the file the suffix of its format.",
        )
    return file_format


def find_splits(folder: Path) -> dict[str, Path]:
    """Return the split files of a folder.

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
                remedy="Move the others to another folder.",
            )
        if candidates:
            found[name] = candidates[0]
    return found


def _read_categories(path: Path) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    try:
        with open_file(path) as stream:
            names = json.loads(stream.read())
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
