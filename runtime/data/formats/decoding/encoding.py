r"""Turn text files of any encoding and line end into UTF-8 with lines that end with ``\n``."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import chain

from .....errors import UsageError

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LONGEST_MARK = max(len(mark) for mark, _ in _MARKS)
UTF8 = "utf-8"
_FIRST_LINE_BYTES = 64 * 1024
_HANDLER = "reaugkd.undecodable"


def encoding_of(head: bytes) -> str | None:
    """Return the encoding that a byte order mark names, or None without one."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), None)


def may_be_mark(head: bytes) -> bool:
    """Whether these few bytes could be the beginning of a byte order mark, or of a longer one."""
    return any(mark.startswith(head) and mark != head for mark, _ in _MARKS)


def require_encoding(name: str) -> str:
    """Return the usual name of an encoding.

    Raises:
        UsageError: Python has no text encoding of this name.
    """
    try:
        codecs.getincrementaldecoder(name)(_HANDLER).decode(b"a" * 8)
        return codecs.lookup(name).name
    except (LookupError, UnicodeError, TypeError, AssertionError, ValueError):
        raise UsageError(
            "unknown encoding",
            found=repr(name),
            expected="an encoding of Python, such as cp1252, latin-1 or utf-16",
            remedy="Leave --encoding out for UTF-8.",
        ) from None


def as_utf8(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Convert chunks of bytes to UTF-8; a byte that cannot be decoded becomes a byte that is not UTF-8 either."""
    decoder = codecs.getincrementaldecoder(encoding)(_HANDLER)
    for chunk in chunks:
        yield decoder.decode(chunk).encode(UTF8, "surrogateescape")
    yield decoder.decode(b"", final=True).encode(UTF8, "surrogateescape")


def _keep_undecodable(error: UnicodeError) -> tuple[str, int]:
    """Stand in for undecodable bytes by the surrogate that ``surrogateescape`` writes as the first of them."""
    assert isinstance(error, UnicodeDecodeError)
    return chr(0xDC00 + max(error.object[error.start], 0x80)), error.end


codecs.register_error(_HANDLER, _keep_undecodable)


def first_line_of(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    r"""Return the bytes that hold the first ``\n``, or the first 64 KiB without one, and all chunks again."""
    head = b""
    while b"\n" not in head and len(head) < _FIRST_LINE_BYTES:
        chunk = next(chunks, None)
        if chunk is None:
            break
        head += chunk
    return head, chain([head], chunks)


def ends_lines_with_cr(head: bytes, *, plain: bool) -> bool:
    r"""Whether the lines end with ``\r`` alone, as in files of an old Mac or of Excel's "CSV (Macintosh)".

    Args:
        head: the first bytes, see `first_line_of`.
        plain: whether the file is plain text, where a ``\r`` can be part of a text: then there must be no ``\n``.
    """
    line, newline, _ = head.partition(b"\n")
    if plain and newline:
        return False
    at = line.removesuffix(b"\r").find(b"\r") if newline else line.find(b"\r")
    return at >= 0 and line[:at].count(b'"') % 2 == 0


def cr_to_lf(chunks: Iterator[bytes]) -> Iterator[bytes]:
    r"""Replace every ``\r`` by ``\n``."""
    return (chunk.replace(b"\r", b"\n") for chunk in chunks)
