"""Decompress files while they are read: gzip, bzip2, xz, zstandard, and zip archives of one file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO

from .....errors import DataError, DependencyError, UsageError
from .source import chunks_of, damage_reported

if TYPE_CHECKING:
    import zipfile

ZIP = ".zip"
_MAGIC = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00", ".zst": b"(\xb5/\xfd", ZIP: b"PK\x03\x04"}
SUFFIXES = tuple(_MAGIC)
LONGEST_MAGIC = max(map(len, _MAGIC.values()))

# A hostile file of some kilobytes can hold gigabytes. Text rarely shrinks to a fiftieth.
_MAX_RATIO = 250
_FREE_BYTES = 64 * 1024 * 1024
# What a Mac adds to an archive.
_MAC_NAMES = ("__MACOSX/", ".DS_Store")


def compression_of(head: bytes) -> str | None:
    """Return the suffix of the compression that the first bytes of a file show, or None."""
    return next((suffix for suffix, magic in _MAGIC.items() if head.startswith(magic)), None)


def may_be_magic(head: bytes) -> bool:
    """Whether these few bytes could be the beginning of a compressed file, if more of it were there."""
    return any(magic.startswith(head) for magic in _MAGIC.values())


def inner_name(path: Path) -> PurePath:
    """Return the name of the file within a compressed file: ``rows.csv`` for ``rows.csv.gz``, else the name itself.

    Raises:
        DataError: the archive does not hold exactly one file.
    """
    suffix = path.suffix.lower()
    if suffix == ZIP and path.is_file():
        import zipfile

        with path.open("rb") as stream, _damage_reported(str(path)), zipfile.ZipFile(stream) as archive:
            return PurePath(_only_member(archive, str(path)).filename)
    return path.with_suffix("") if suffix in SUFFIXES else path


def decompressed(stream: BinaryIO, suffix: str, source: str) -> Iterator[bytes]:
    """Yield the decompressed bytes of a stream.

    Args:
        stream: the compressed file, from its beginning.
        suffix: the compression, one of ``SUFFIXES``.
        source: the file's name, for messages.

    Raises:
        DataError: the file is damaged, or it is over 250 times as large when decompressed (beyond 64 MiB).
        UsageError: a zip archive comes from a pipe.
        DependencyError: nothing that reads zstandard is installed.
    """  # noqa: DOC501
    counted = _Counted(stream)
    size = 0
    with _damage_reported(source):
        for chunk in chunks_of(_OPENERS[suffix](counted, source)):
            size += len(chunk)
            if size > max(_FREE_BYTES, counted.size * _MAX_RATIO):
                raise _too_large(source, size, counted.size)
            yield chunk


def require_sane_archive(stream: BinaryIO, source: str) -> None:
    """Refuse a zip archive (such as a workbook) that is far larger when it is decompressed.

    Raises:
        DataError: the archive is too large.
        zipfile.BadZipFile: it is damaged, or no archive.
    """  # noqa: DOC501
    import zipfile

    members = zipfile.ZipFile(stream).infolist()
    size, compressed = sum(one.file_size for one in members), sum(one.compress_size for one in members)
    if size > max(_FREE_BYTES, compressed * _MAX_RATIO):
        raise _too_large(source, size, compressed)
    stream.seek(0)


class _Counted:
    """Counts the bytes read from a stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size = 0
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    closed = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.size += len(data)
        return data

    def close(self) -> None:
        """Leave the stream open: the caller closes it."""


def _zstandard(stream: Any, source: str) -> BinaryIO:
    try:
        return importlib.import_module("compression.zstd").ZstdFile(stream)  # type: ignore[no-any-return]
    except ImportError:
        pass
    try:
        pyarrow = importlib.import_module("pyarrow")
    except ImportError as error:
        raise DependencyError(
            "reading zstandard (.zst) needs pyarrow, or Python 3.14",
            path=source,
            remedy="Run pip install pyarrow, or decompress the file first.",
        ) from error
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), "zstd")  # type: ignore[no-any-return]


def _unzipped(stream: Any, source: str) -> BinaryIO:
    import zipfile

    if not stream.seekable():
        raise UsageError(
            "a zip archive cannot be read from a pipe", path=source, remedy="Give the name of the file, or pipe gzip."
        )
    archive = zipfile.ZipFile(stream)
    return archive.open(_only_member(archive, source))  # type: ignore[return-value]


# Of the standard library, and imported when needed: most files are not compressed.
_OPENERS: dict[str, Callable[[Any, str], Any]] = {
    ".gz": lambda stream, _source: importlib.import_module("gzip").GzipFile(fileobj=stream),
    ".bz2": lambda stream, _source: importlib.import_module("bz2").BZ2File(stream),
    ".xz": lambda stream, _source: importlib.import_module("lzma").LZMAFile(stream),
    ".zst": _zstandard,
    ZIP: _unzipped,
}


def _only_member(archive: zipfile.ZipFile, source: str) -> zipfile.ZipInfo:
    members = [one for one in archive.infolist() if not one.is_dir() and not _of_a_mac(one.filename)]
    if len(members) != 1:
        shown = ", ".join(one.filename for one in members[:4]) + (", ..." if len(members) > 4 else "")
        raise DataError(
            "the archive does not hold exactly one file",
            path=source,
            found=shown or "none",
            expected="one file of rows",
            remedy="Unpack it, and give the folder or one of the files.",
        )
    return members[0]


def _of_a_mac(name: str) -> bool:
    return name.startswith(_MAC_NAMES) or name.endswith(".DS_Store")


def _damage_reported(source: str) -> AbstractContextManager[None]:
    return damage_reported(
        source,
        "the compressed file cannot be read",
        expected="a complete file, without a password",
        remedy="Copy or compress it again, or give the decompressed file.",
    )


def _too_large(source: str, size: int, compressed: int) -> DataError:
    return DataError(
        "the compressed file becomes suspiciously large",
        path=source,
        found=f"{compressed:,} bytes that become {size:,} or more",
        expected=f"at most {_MAX_RATIO} times as many",
        remedy="If it is to be trusted, decompress it and give the decompressed file.",
    )
