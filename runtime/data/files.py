"""Find the files that hold the rows: one file, split files in a folder, or parts of a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError, UsageError
from .dataset import SPLIT_NAMES
from .formats import FORMATS, FileFormat, format_named, format_of, stem_of
from .formats.decoding.compression import ZIP
from .formats.decoding.source import Tell

SUFFIXES = tuple(suffix for one in FORMATS if one.labels for suffix in one.suffixes)
_SPLIT_STEMS = {
    "train": ("train",),
    "dev": ("dev", "val", "valid", "validation", "dev_matched", "validation_matched"),
    "test": ("test", "test_matched"),
}
# The end of the name of one part: train-00000-of-00002, part-00000, shard_3; Spark adds more to it.
_OF = re.compile(r"^(?P<stem>.*?)[-_.]?(?P<part>\d+)-of-(?P<parts>\d+)$")
_NUMBER = re.compile(r"[-_.]\d+$")
_HEX = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+")
_INNER = "data"  # where the repositories of the Hugging Face hub have their files


@dataclass(frozen=True)
class Parts:
    """The files of one table, in order.

    Attributes:
        files: at least one.
        name: the name of the table, for messages: that of the file, or a pattern for several.
    """

    files: tuple[Path, ...]
    name: str

    @classmethod
    def of(cls, files: Sequence[Path]) -> Parts:
        """Return the files in order.

        Raises:
            DataError: a part is missing, or parts are of several formats.
        """  # noqa: DOC501
        ordered = sorted(files, key=lambda file: [int(one) if one.isdecimal() else one for one in _split(file.name)])
        first = ordered[0]
        if len(ordered) == 1 and not _OF.match(stem_of(first)):
            return cls((first,), str(first))
        formats = {format_of(file) for file in ordered}
        if len(formats) > 1:
            found = ", ".join(sorted({file.suffix for file in ordered}))
            raise _several("the parts of the table are of several formats", first.parent, found)
        _require_all_parts(ordered)
        pattern = _HEX.sub("*", first.name)
        return cls(tuple(ordered), str(first.parent / pattern) if len(ordered) > 1 else str(first))


def _split(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def _require_all_parts(files: Sequence[Path]) -> None:
    numbers = [_OF.match(stem_of(file)) for file in files]
    expected = {int(one["parts"]) for one in numbers if one}
    if expected and expected != {len(files)}:
        raise DataError(
            "parts of the table are missing",
            path=files[0].parent,
            found=f"{len(files)} files like {files[0].name}",
            expected=f"{max(expected)}",
            remedy="Copy all parts into the folder.",
        )


def split_parts(folder: Path, tell: Tell) -> dict[str, Parts]:
    """Return the split files of a folder, by split: files, parts of files, or folders of parts.

    Other files and folders beside them change nothing.

    Raises:
        DataError: two files could be the same split.
    """
    found = named_splits(folder) or _split_folders(folder)
    if not found and (folder / _INNER).is_dir():
        found = named_splits(folder / _INNER)
    for parts in found.values():
        _tell_several(parts, tell)
    return found


def named_splits(folder: Path) -> dict[str, Parts]:
    """Return the files in a folder that are named after their splits.

    Raises:
        DataError: two files could be the same split.
    """  # noqa: DOC501
    by_stem: dict[str, list[Path]] = {}
    for file in _data_files(folder):
        by_stem.setdefault(_whole_stem(file), []).append(file)
    found = {}
    for name in SPLIT_NAMES:
        candidates = [by_stem[stem] for stem in _SPLIT_STEMS[name] if stem in by_stem]
        files = [file for same in candidates for file in same]
        whole = any(stem_of(file) == _whole_stem(file) for file in files)
        if len(candidates) > 1 or (whole and len(files) > 1):
            names = ", ".join(sorted(file.name for file in files))
            raise _several(f"several files could be the {name} split", folder, names)
        if files:
            found[name] = Parts.of(files)
    return found


def _split_folders(folder: Path) -> dict[str, Parts]:
    found = {}
    for name in SPLIT_NAMES:
        inner = [folder / stem for stem in _SPLIT_STEMS[name] if (folder / stem).is_dir()]
        files = [file for one in inner for file in _data_files(one)]
        if files:
            found[name] = Parts.of(files)
    return found


def _whole_stem(file: Path) -> str:
    """Return the stem of the table that a file is a part of."""
    stem = stem_of(file)
    part = _OF.match(stem)
    return part["stem"] if part else _NUMBER.sub("", stem)


def table_parts(folder: Path, tell: Tell) -> Parts | None:
    """Return the parts of the one table that a folder holds: files of one format whose names differ in numbers.

    Raises:
        DataError: a part is missing.
    """
    files = _data_files(folder)
    names = {_HEX.sub("#", file.name.lower()) for file in files}
    if len(names) != 1 or not any("#" in name for name in names):
        return None
    parts = Parts.of(files)
    _tell_several(parts, tell)
    return parts


def _tell_several(parts: Parts, tell: Tell) -> None:
    if len(parts.files) > 1:
        tell(f"{parts.name}: the rows of {len(parts.files)} files are read as one table")


def _data_files(folder: Path) -> list[Path]:
    files = (file for file in folder.iterdir() if file.is_file() and not file.name.startswith((".", "_")))
    return sorted(file for file in files if _has_labels(file))


def _has_labels(file: Path) -> bool:
    if file.suffix.lower() == ZIP and stem_of(file) == file.stem.lower() and "." not in file.stem:
        return False  # an archive whose name says nothing of a table
    file_format = format_of(file)
    return file_format is not None and file_format.labels


def require_label_format(path: Path) -> FileFormat:
    """Return the format of a file of labelled rows.

    Raises:
        DataError: the suffix names none.
    """
    file_format = format_of(path)
    if file_format is None or not file_format.labels:
        raise DataError(
            "unknown file format",
            path=path,
            found=path.suffix.lower() or "no suffix",
            expected=f"one of {', '.join(SUFFIXES)}, also compressed (.gz, .bz2, .xz, .zst, .zip)",
            remedy="Convert the file to one of these; if it is one already, give it the suffix of its format.",
        )
    return file_format


def require_format(path: Path | None, name: str | None) -> FileFormat:
    """Return the named format, or without a name the one of the path's suffix.

    Raises:
        UsageError: the format is unknown.
    """
    found = format_named(name) if name else format_of(path or Path())
    if found is None:
        suffix = "" if path is None else path.suffix.removeprefix(".").lower()
        raise UsageError(
            "unknown input format",
            path=path,
            found=repr(name or suffix) if name or suffix else "no suffix",
            expected=f"one of {', '.join(one.name for one in FORMATS)}",
            remedy="Give the file the suffix of its format, or name it with --input-format (predict).",
        )
    return found


def parts_to_read(path: Path, tell: Tell) -> Parts:
    """Return the files of the one table at a path: the file itself, or the parts in a folder.

    Raises:
        DataError: there is nothing, or a folder holds several splits or no table.
    """  # noqa: DOC501
    if not path.is_dir():
        if path.exists():  # also a named pipe
            return Parts((path,), str(path))
        raise DataError("no such file", path=path, expected="a file of texts", remedy="Check the path.")
    splits = split_parts(path, tell)
    if len(splits) > 1:
        raise DataError(
            "the folder holds several splits",
            path=path,
            found=", ".join(splits),
            expected="the rows of one split",
            remedy="Give the file of one split.",
        )
    parts = next(iter(splits.values()), None) or table_parts(path, tell)
    if parts is None:
        raise no_splits(path)
    return parts


def no_splits(folder: Path) -> DataError:
    """Return the error for a folder without split files."""
    names = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    found = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return DataError(
        "the folder holds no split files",
        path=folder,
        found=found or "an empty folder",
        expected=f"train, dev or test with one of {', '.join(SUFFIXES)}",
        remedy="Name the files after their splits, or give one file.",
    )


def _several(message: str, folder: Path, found: str) -> DataError:
    return DataError(message, path=folder, found=found, expected="one", remedy="Move the others to another folder.")


def once(tell: Tell) -> Tell:
    """Return a function that passes every remark on once."""
    told: set[str] = set()

    def tell_once(remark: str) -> None:
        if remark not in told:
            told.add(remark)
            tell(remark)

    return tell_once
