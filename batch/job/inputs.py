"""The files of a job: those that are named, those in folders, and those that a pattern matches."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ...errors import DataError, UsageError
from ...runtime.data.formats import FileFormat, format_of
from ...runtime.data.formats.decoding.source import Tell

FORMATS = ("parquet", "csv", "tsv", "jsonl", "txt")
"""The formats that are read in constant memory."""


@dataclass(frozen=True)
class InputFile:
    """A file, as it was when it was looked at.

    Attributes:
        path: absolute.
        size: in bytes.
        modified: the time of its last change, in nanoseconds.
    """

    path: str
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> InputFile:
        """Look at a file.

        Raises:
            DataError: it cannot be found.
        """
        try:
            found = path.stat()
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError("the file cannot be read", path=path, found=reason, expected="a readable file") from error
        return cls(os.path.abspath(path), found.st_size, found.st_mtime_ns)  # noqa: PTH100  (links stay)

    @property
    def format(self) -> FileFormat:
        """The format that its suffix names.

        Raises:
            DataError: the suffix names none, or one that cannot be read in constant memory.
        """
        found = format_of(Path(self.path))
        if found is None or found.name not in FORMATS:
            raise DataError(
                "this kind of file cannot be read row by row",
                path=self.path,
                found=Path(self.path).suffix if found is None else found.name,
                expected=f"{', '.join(FORMATS)}; all but parquet also compressed",
                remedy="Write the rows as Parquet or JSON lines.",
            )
        return found


def find_files(names: Sequence[str], out: Path, tell: Tell) -> list[InputFile]:
    """Return the input files in order: of each name, and within a folder or pattern by path.

    Args:
        names: files, folders (with all below them) and patterns such as ``logs/**/*.jsonl.gz``. In folders and
            patterns, names that begin with ``.`` or ``_`` are no data, nor are files of the output folder.
        out: the output folder, which must not be in an input folder.
        tell: receives a remark for each file of a folder that is not read.

    Raises:
        DataError: a name matches nothing, a folder cannot be read, or a file is of another kind.
        UsageError: a file is given twice, or the output is in an input folder.
    """
    found: dict[str, InputFile] = {}
    for name in names:
        if Path(name).is_dir():
            _require_outside(out, Path(name))
        before = len(found)
        for path in _matches(name, out, tell):
            file = InputFile.of(path)
            if file.path in found:
                raise UsageError(
                    "the file is given twice", path=path, expected="every file once: its rows would be used twice"
                )
            file.format  # noqa: B018  (refuses other kinds)
            found[file.path] = file
        if len(found) == before:
            raise DataError("no input file", path=name, expected=f"a file, folder or pattern of {', '.join(FORMATS)}")
    return list(found.values())


def _matches(name: str, out: Path, tell: Tell) -> Iterator[Path]:
    path = Path(name)
    if path.is_dir():
        yield from _below(path, tell)
    elif path.exists() or not glob.has_magic(name):
        yield path
    else:
        spelled = path.parts
        for match in map(Path, sorted(glob.glob(name, recursive=True))):  # noqa: PTH207  (Path.glob takes no absolute)
            hidden = any(_is_hidden(part) and part not in spelled for part in match.parts)
            if not hidden and not match.is_dir() and not match.resolve().is_relative_to(out.resolve()):
                yield match


def _below(folder: Path, tell: Tell) -> Iterator[Path]:
    found = []
    for place, folders, files in os.walk(folder, onerror=_refuse_folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        linked = [name for name in folders if Path(place, name).is_symlink()]
        found += [Path(place, name) for name in (*linked, *files) if not _is_hidden(name)]
    for path in sorted(found):
        kind = format_of(path)
        if path.is_dir():
            tell(f"{path}: not read, it is a link to a folder")
        elif not path.is_file():
            tell(f"{path}: not read, it is no file")
        elif kind is None or kind.name not in FORMATS:
            tell(f"{path}: not read, it is not one of {', '.join(FORMATS)}")
        else:
            yield path


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _refuse_folder(error: OSError) -> NoReturn:
    reason = error.strerror or str(error)
    raise DataError("the folder cannot be read", path=error.filename, found=reason, expected="a readable folder")


def _require_outside(out: Path, folder: Path) -> None:
    if out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            "the output folder is in an input folder",
            path=out,
            found=f"input {folder}",
            expected="an output folder outside of it: its parts would be read as input",
        )
