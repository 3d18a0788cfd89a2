r"""Read the lines of a binary stream: split at ``\n`` only, of bounded length, and decoded one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from .....errors import TextError
from .encoding import UTF8
from .source import Source

OTHER_ENCODING = "Save the file as UTF-8, or name its encoding, such as --encoding cp1252 for files of Windows."

# The longest text allowed (1,000,000 characters) fits, even if JSON escapes every character of it.
MAX_LINE_BYTES = 32 * 1024 * 1024

_UTF8_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    r"""One line.

    Attributes:
        number: 1-based.
        text: without the ending ``\n``; bytes that are not UTF-8 are lone surrogates (``surrogateescape``).
        error: the reason why the line cannot be used, or None. With an error, use ``text`` only to find quotes.
    """

    number: int
    text: str
    error: TextError | None


def read_lines(source: Source) -> Iterator[Line]:
    r"""Read a stream line by line.

    Lines end at ``\n`` only: ``\r``, U+2028 and other separators are part of a text. A byte order mark is dropped.
    Only one line of at most ``MAX_LINE_BYTES`` is in memory; the rest of a longer line is skipped. A line that cannot
    be used is yielded with its error.

    Raises:
        TextError: the stream is UTF-16 without a byte order mark.
    """
    stream = source.stream
    offset = 0
    number = 0
    while data := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        start = offset
        offset += len(data)
        if number == 1:
            _refuse_utf16(data, source.name)
        if len(data) > MAX_LINE_BYTES and not data.endswith(b"\n"):
            offset += _skip_line(stream)
            yield Line(number, "", _too_long(source.name, number, offset - start))
            continue
        if number == 1 and data.startswith(_UTF8_BOM):
            data, start = data[3:], 3
            if not data:
                return
        yield _decode(data.removesuffix(b"\n"), source, number, start)


def _decode(data: bytes, source: Source, number: int, start: int) -> Line:
    try:
        return Line(number, data.decode(UTF8), None)
    except UnicodeDecodeError as error:
        finding = _undecodable(source, number, data[error.start], start + error.start)
        return Line(number, data.decode(UTF8, errors="surrogateescape"), finding)


def _undecodable(source: Source, number: int, byte: int, offset: int) -> TextError:
    encoding = source.encoding.upper()
    utf8 = source.encoding == UTF8
    return TextError(
        f"the bytes are not {encoding}",
        path=source.name,
        row=number,
        found=f"byte 0x{byte:02x} at byte offset {offset}" if utf8 else f"byte 0x{byte:02x}",
        expected=encoding,
        remedy=OTHER_ENCODING if utf8 else "Name another encoding with --encoding, or repair the row.",
    )


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while chunk := stream.readline(1 << 16):
        skipped += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return skipped


def _too_long(source: str, number: int, size: int) -> TextError:
    return TextError(
        "the line is too long",
        path=source,
        row=number,
        found=f"{size:,} bytes",
        expected=f"at most {MAX_LINE_BYTES:,} bytes",
        remedy="Shorten the text: models read only the first few hundred words.",
    )


def _refuse_utf16(head: bytes, source: str) -> None:
    # Mostly Latin letters have a zero byte in every pair of bytes.
    if b"\0" in head[:2] and head[:2] != b"\0\0":
        name = "utf-16-be" if head[0] == 0 else "utf-16-le"
        raise TextError(
            "the file is not UTF-8",
            path=source,
            found="zero bytes, as in UTF-16",
            expected="UTF-8, or a byte order mark",
            remedy=f"Save the file as UTF-8, or name its encoding: --encoding {name}.",
        )
