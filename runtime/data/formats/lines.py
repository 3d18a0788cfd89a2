r"""Read the lines of a binary stream: split at ``\n`` only, of bounded length, and decoded one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ....errors import TextError

# The longest text allowed (1,000,000 characters) fits, even if JSON escapes every character of it.
MAX_LINE_BYTES = 32 * 1024 * 1024

_UTF8_BOM = b"\xef\xbb\xbf"
_OTHER_BOMS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_SAVE_UTF8 = "Save the file as UTF-8."


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


def read_lines(stream: BinaryIO, source: str) -> Iterator[Line]:
    r"""Read a stream line by line.

    Lines end at ``\n`` only: ``\r``, U+2028 and other separators are part of a text. A UTF-8 byte order mark is
    dropped. Only one line of at most ``MAX_LINE_BYTES`` is in memory; the rest of a longer line is skipped. A line
    that cannot be used is yielded with its error.

    Raises:
        TextError: the stream is UTF-16 or UTF-32.
    """
    offset = 0
    number = 0
    while data := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        start = offset
        offset += len(data)
        if number == 1:
            _refuse_other_encodings(data, source)
        if len(data) > MAX_LINE_BYTES and not data.endswith(b"\n"):
            offset += _skip_line(stream)
            yield Line(number, "", _too_long(source, number, offset - start))
            continue
        if number == 1 and data.startswith(_UTF8_BOM):
            data, start = data[3:], 3
            if not data:
                return
        yield _decode(data.removesuffix(b"\n"), source, number, start)


def _decode(data: bytes, source: str, number: int, start: int) -> Line:
    try:
        return Line(number, data.decode("utf-8"), None)
    except UnicodeDecodeError as error:
        finding = TextError(
            "the bytes are not UTF-8",
            path=source,
            row=number,
            found=f"byte 0x{data[error.start]:02x} at byte offset {start + error.start}",
            expected="UTF-8",
            remedy=_SAVE_UTF8,
        )
        return Line(number, data.decode("utf-8", errors="surrogateescape"), finding)


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


def _refuse_other_encodings(head: bytes, source: str) -> None:
    for mark, name in _OTHER_BOMS.items():
        if head.startswith(mark):
            raise TextError(
                "the file is not UTF-8",
                path=source,
                found=f"{name} (byte order mark)",
                expected="UTF-8",
                remedy=_SAVE_UTF8,
            )
    # UTF-16 without a byte order mark: mostly Latin letters have a zero byte in every pair of bytes.
    if b"\0" in head[:2] and head[:2] != b"\0\0":
        raise TextError(
            "the file is not UTF-8",
            path=source,
            found="zero bytes, as in UTF-16",
            expected="UTF-8",
            remedy=_SAVE_UTF8,
        )
