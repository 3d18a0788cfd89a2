"""The rows' texts, or their digests: with digests a given text can be found, and no text can be read.

Digests tell whether a text is in the knowledge base and in which rows, for example to skip stored texts or to remove a
person's rows. Anyone who holds the digests can test guesses: a digest protects a text only as far as the text is hard
to guess. A random salt for each knowledge base prevents precomputed tables, and hides which texts two knowledge bases
share. A slow hash (such as scrypt) would not help: the row's key beside the digest confirms a guess just as well, at
any speed (docs/explanation/privacy.md).

On disk, ``text_digests.npy``: uint8 [n + 1, 32], the salt and then each row's SHA-256 of the salt and the text. The
text is hashed as JSON in UTF-8, ``"text"`` or ``["text", "pair"]``, as in ``texts.jsonl`` but without the line's end.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleIntegrityError
from .storage.npy import map_npy, misfit

DIGESTS_FILE = "text_digests.npy"
BYTES = 32


class TextDigests:
    """Salted SHA-256 digests of n texts.

    Args:
        table: uint8 [n + 1, 32]: the salt, and the digests.

    Raises:
        ValueError: a table of another type or shape.
    """

    def __init__(self, table: NDArray[np.uint8]) -> None:
        if table.dtype != np.uint8 or table.ndim != 2 or table.shape[1] != BYTES or not len(table):
            raise ValueError(f"{table.dtype} {table.shape}")
        self.table = table

    @classmethod
    def of(cls, texts: Sequence[str | tuple[str, str]], salt: bytes | None = None) -> TextDigests:
        """The digests of texts or pairs.

        Args:
            texts: [n].
            salt: 32 bytes. Default: random ones.
        """
        salt = secrets.token_bytes(BYTES) if salt is None else salt
        rows = [salt, *(_digest(salt, text) for text in texts)]
        return cls(np.frombuffer(b"".join(rows), np.uint8).reshape(-1, BYTES))

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> TextDigests:
        """The digests of some rows, with the same salt."""
        return TextDigests(np.concatenate([self.table[:1], self.table[1:][np.asarray(rows, np.int64)]]))

    def of_text(self, text: str | tuple[str, str]) -> str:
        """A text's digest with this salt, 64 hexadecimal digits."""
        return _digest(self.table[0].tobytes(), text).hex()

    def extended(self, digests: Sequence[str]) -> TextDigests:
        """The digests with more rows appended."""
        more = np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, BYTES)
        return TextDigests(np.concatenate([self.table, more]))

    def rows_of(self, text: str | tuple[str, str]) -> list[int]:
        """The rows that have this text, in order."""
        digest = np.frombuffer(_digest(self.table[0].tobytes(), text), np.uint8)
        found: list[int] = np.flatnonzero((self.table[1:] == digest).all(axis=1)).tolist()
        return found

    def __len__(self) -> int:
        return len(self.table) - 1

    def __getitem__(self, row: int) -> str:
        """The row's digest, 64 hexadecimal digits."""
        digest: bytes = self.table[1:][row].tobytes()
        return digest.hex()


def digest_of(salt: bytes, text: bytes) -> bytes:
    """The digest of a text that is given as `text_json`, 32 bytes."""
    return hashlib.sha256(salt + text).digest()


def _digest(salt: bytes, text: str | tuple[str, str]) -> bytes:
    return digest_of(salt, text_json(text))


def text_json(text: str | tuple[str, str]) -> bytes:
    """The JSON of a text, or the list of a pair, in UTF-8."""
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate: legal in Python and JSON, not in UTF-8
        return json.dumps(text).encode()


def open_texts(path: Path, size: int) -> bytes | mmap.mmap:
    """Map the rows' texts into memory.

    Args:
        path: the file.
        size: the size of the file in bytes; 0 if there is no file.

    Raises:
        BundleIntegrityError: the file is missing.
        BundleError: the file has another size.
    """  # noqa: DOC501
    if size == 0:
        return b""
    if not path.is_file():
        raise BundleIntegrityError("the file is missing", path=path, expected=f"{size} bytes of texts")
    found = path.stat().st_size
    if found != size:
        raise misfit(path, f"{found} bytes", f"{size} as in the row table")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def open_digests(folder: Path, rows: int) -> TextDigests | None:
    """The digests of the rows' texts; None if there is no file.

    Raises:
        BundleIntegrityError: the file cannot be read.
        BundleError: it has another number of rows.
    """  # noqa: DOC501
    path = folder / DIGESTS_FILE
    if not path.exists():
        return None
    table = map_npy(path, (np.dtype(np.uint8),))
    expected = f"uint8 ({rows + 1}, {BYTES})"
    try:
        digests = TextDigests(table)
    except ValueError as error:
        raise misfit(path, str(error), expected) from error
    if len(digests) != rows:
        raise misfit(path, f"uint8 {table.shape}", expected)
    return digests
