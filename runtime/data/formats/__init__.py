"""The file formats that can be read. To add one, write its reader in this folder and add it to ``FORMATS``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ....errors import DataError
from .csv_tsv import read_csv, read_tsv
from .jsonl import read_json, read_jsonl
from .parquet import read_parquet
from .rows import SplitFile, Table
from .txt import read_txt


@dataclass(frozen=True)
class FileFormat:
    """A file format.

    Attributes:
        name: its name on the command line.
        suffixes: the suffixes of its files, in lower case, with the dot.
        read: reads a binary stream, whose name for messages is the second argument. It yields rows while it reads where
            the format allows.
        labels: whether a row can have a label.
        splits: whether ``read`` can return a `SplitFile`.
        pair_separator: the string between the two texts of a pair where a row is one string; None if it cannot be.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[BinaryIO, str], Table | SplitFile]
    labels: bool = True
    splits: bool = False
    pair_separator: str | None = None

    def read_rows(self, stream: BinaryIO, source: str) -> Table:
        """Read a file that holds the rows of one split.

        Raises:
            DataError: the file holds several splits, or cannot be read.
        """
        content = self.read(stream, source)
        if isinstance(content, SplitFile):
            raise DataError("the file holds several splits", path=source, expected="the rows of one split")
        return content


FORMATS = (
    FileFormat("csv", (".csv",), read_csv),
    FileFormat("tsv", (".tsv",), read_tsv),
    FileFormat("jsonl", (".jsonl", ".ndjson"), read_jsonl),
    FileFormat("json", (".json",), read_json, splits=True),
    FileFormat("parquet", (".parquet",), read_parquet),
    FileFormat("txt", (".txt", ".text"), read_txt, labels=False, pair_separator="\t"),
)


def format_named(name: str) -> FileFormat | None:
    """Return the format of this name, or None."""
    return next((one for one in FORMATS if one.name == name), None)


def format_of(path: Path) -> FileFormat | None:
    """Return the format that the file's suffix names, or None."""
    return next((one for one in FORMATS if path.suffix.lower() in one.suffixes), None)


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that exists.

    Raises:
        DataError: the operating system refuses to open or read it.
    """
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise DataError(
            "the file cannot be read",
            path=path,
            found=error.strerror or str(error),
            expected="a readable file",
            remedy="Check its permissions.",
        ) from error
