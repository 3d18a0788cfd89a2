"""Open files and streams for the readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from .....errors import DataError, UsageError
from .compression import LONGEST_MAGIC, SUFFIXES, ZIP, compression_of, decompressed, may_be_magic
from .encoding import (
    LONGEST_MARK,
    UTF8,
    as_utf8,
    cr_to_lf,
    encoding_of,
    ends_lines_with_cr,
    first_line_of,
    may_be_mark,
    require_encoding,
)
from .source import Source, Tell, chunks_of, silent, stream_of


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


def binary_source(stream: BinaryIO, name: str, tell: Tell = silent) -> Source:
    """Return the source of a binary format, such as Parquet.

    Raises:
        UsageError: the stream is a pipe: such a file is read from its end.
        DataError: the file is compressed as a whole.
    """
    if not stream.seekable():
        raise UsageError(
            "this format cannot be read from a pipe", path=name, remedy="Give the name of the file, or pipe JSON lines."
        )
    if Path(name).suffix.lower() in SUFFIXES:
        raise DataError(
            "a file of this format cannot be read while it is compressed",
            path=name,
            expected="the decompressed file",
            remedy="Decompress it first: the format has its own compression.",
        )
    return Source(name, stream, tell=tell)


def text_source(
    stream: BinaryIO, name: str, encoding: str | None = None, tell: Tell = silent, *, plain: bool = False
) -> Source:
    r"""Return the source of a text format: decompressed, UTF-8, lines ending with ``\n``.

    The compression and a byte order mark are known by the first bytes, so that a pipe is read like a file.

    Args:
        stream: the bytes of the file.
        name: the file's name, for messages.
        encoding: the encoding of a file without a byte order mark; None = UTF-8.
        tell: receives the remarks.
        plain: whether it is plain text, see `ends_lines_with_cr`.

    Raises:
        UsageError: the encoding is unknown, or a zip archive comes from a pipe.
    """
    named = UTF8 if encoding is None else require_encoding(encoding)
    head, chunks = _begin(chunks_of(stream), LONGEST_MAGIC, may_be_magic)
    compression = compression_of(head)
    if compression is not None:
        # An archive is read from its end, the others from the bytes that have come.
        chunks = decompressed(stream if compression == ZIP else stream_of(chunks), compression, name)
    head, chunks = _begin(chunks, LONGEST_MARK, may_be_mark)
    marked = encoding_of(head)
    found = Source(name, stream, marked or named, tell)
    if marked is not None and marked != named and (encoding is not None or marked != UTF8):
        found.remark(f"read as {marked.upper()}, which its byte order mark names")
    if found.encoding != UTF8:
        chunks = as_utf8(chunks, found.encoding)
    return Source(name, stream_of(_with_line_ends(chunks, found, plain)), found.encoding, tell)


def _begin(chunks: Iterator[bytes], size: int, waits: Callable[[bytes], bool]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes, more than the first chunk only while they decide nothing, and all chunks again."""
    head = b""
    while len(head) < size and (not head or waits(head)):
        chunk = next(chunks, None)
        if chunk is None:
            break
        head += chunk
    return head, chain([head], chunks)


def _with_line_ends(chunks: Iterator[bytes], source: Source, plain: bool) -> Iterator[bytes]:
    head, chunks = first_line_of(chunks)
    if not ends_lines_with_cr(head, plain=plain):
        return chunks
    source.remark("lines end with CR alone")
    return cr_to_lf(chunks)
