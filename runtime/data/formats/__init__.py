"""The file formats that can be read. To add one, write its reader in this folder and add it to ``FORMATS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from ....errors import DataError
from .columnar import read_arrow, read_parquet
from .csv_tsv import read_csv, read_tsv
from .decoding.compression import SUFFIXES as COMPRESSIONS
from .decoding.compression import inner_name
from .decoding.opening import binary_source, text_source
from .decoding.source import Source, Tell, silent
from .excel import read_excel
from .json_file import read_json
from .jsonl import read_jsonl
from .rows import SplitFile, Table
from .txt import read_txt


@dataclass(frozen=True)
class FileFormat:
    """A file format.

    Attributes:
        name: its name on the command line.
        suffixes: the suffixes of its files, in lower case, with the dot.
        read: reads a source. It yields rows while it reads where the format allows.
        labels: whether a row can have a label.
        splits: whether ``read`` can return a `SplitFile`.
        binary: whether the file is no text: then it has no encoding, and a pipe or a compressed file cannot be read.
        pair_separator: the string between the two texts of a pair where a row is one string; None if it cannot be.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Source], Table | SplitFile]
    labels: bool = True
    splits: bool = False
    binary: bool = False
    pair_separator: str | None = None

    def read_stream(
        self, stream: BinaryIO, name: str, encoding: str | None = None, tell: Tell = silent
    ) -> Table | SplitFile:
        """Read a stream, decompressed and decoded.

        Args:
            stream: the bytes of the file.
            name: the name of the file, for messages.
            encoding: the encoding of a text file without a byte order mark; None = UTF-8.
            tell: receives remarks on how the file is read where that is not the default.

        Raises:
            DataError: the file cannot be read.
        """
        if self.binary:
            return self.read(binary_source(stream, name, tell))
        return self.read(text_source(stream, name, encoding, tell, plain=not self.labels))

    def read_rows(self, stream: BinaryIO, name: str, encoding: str | None = None, tell: Tell = silent) -> Table:
        """Read a stream that holds the rows of one split.

        Raises:
            DataError: the file holds several splits, or cannot be read.
        """
        content = self.read_stream(stream, name, encoding, tell)
        if not isinstance(content, SplitFile):
            return content
        if len(content.splits) == 1:
            return next(iter(content.splits.values()))
        raise DataError(
            "the file holds several splits",
            path=name,
            found=", ".join(content.splits),
            expected="the rows of one split",
            remedy="Write the rows of one split to a file of their own.",
        )


FORMATS = (
    FileFormat("csv", (".csv",), read_csv),
    FileFormat("tsv", (".tsv", ".tab"), read_tsv),
    FileFormat("jsonl", (".jsonl", ".ndjson"), read_jsonl),
    FileFormat("json", (".json",), read_json, splits=True),
    FileFormat("parquet", (".parquet",), read_parquet, binary=True),
    FileFormat("arrow", (".arrow", ".feather", ".ipc"), read_arrow, binary=True),
    FileFormat("excel", (".xlsx", ".xlsm"), read_excel, binary=True),
    FileFormat("txt", (".txt", ".text"), read_txt, labels=False, pair_separator="\t"),
)


def format_named(name: str) -> FileFormat | None:
    """Return the format of this name, or None."""
    return next((one for one in FORMATS if one.name == name), None)


def format_of(path: Path) -> FileFormat | None:
    """Return the format that the suffix of a file names, or of the file within a compressed one; None if unknown.

    Raises:
        DataError: a zip archive does not hold exactly one file.
    """
    suffix = inner_name(path).suffix.lower()
    return next((one for one in FORMATS if suffix in one.suffixes), None)


def stem_of(path: PurePath) -> str:
    """Return a file's name without the suffixes of its format and compression, in lower case."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return name.stem.lower()
