r"""The bytes that a reader gets: decompressed, and for text formats UTF-8 with lines that end with ``\n``."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from .....errors import DataError, ReaugkdError

CHUNK_BYTES = 64 * 1024

Tell = Callable[[str], object]
"""Receives a remark about a file, one line, for the terminal."""


def silent(_remark: str) -> None:
    """Drop a remark."""


@dataclass(frozen=True)
class Source:
    """A stream of bytes to read rows from.

    Attributes:
        name: the name of the file, for messages.
        stream: the bytes; read once, from its beginning.
        encoding: the encoding of the file; ``stream`` is UTF-8 whatever it is.
        tell: receives the remarks, which begin with the name.
    """

    name: str
    stream: BinaryIO
    encoding: str = "utf-8"
    tell: Tell = silent

    def remark(self, text: str) -> None:
        """Tell how the file is read where that is not the default."""
        self.tell(f"{self.name}: {text}")


@contextmanager
def damage_reported(name: str, message: str, expected: str, remedy: str) -> Iterator[None]:
    """Turn the errors of a library that reads a file into a DataError with these texts.

    Raises:
        ReaugkdError: an error that was reported already.
        DataError: the library cannot read the file.
    """
    try:
        yield
    except ReaugkdError:
        raise
    except Exception as error:  # each library has its own exceptions, without a common base class
        found = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(message, path=name, found=found, expected=expected, remedy=remedy) from error


def chunks_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of a stream as they arrive: it never waits for more than is there."""
    read = getattr(stream, "read1", stream.read)
    while data := read(CHUNK_BYTES):
        yield data


def stream_of(chunks: Iterator[bytes]) -> BinaryIO:
    """Return a buffered stream of the chunks."""
    return io.BufferedReader(_Chunks(chunks), CHUNK_BYTES)


class _Chunks(io.RawIOBase):
    """A raw stream over an iterator of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
