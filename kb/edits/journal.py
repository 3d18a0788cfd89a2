"""The journal of edits: one line of JSON an edit, each with the hash of the line before it and its own.

    {"add":[ROW,...],"after":H,"before":H,"labels":[...],"op":"add","relabel":[...],"remove":[ID,...],"restore":[ID,...],
     "seq":7,"time":"2026-11-21T19:06:29Z","who":"anna","why":"..."}

``op`` is what was asked for; ``add``, ``remove``, ``restore``, ``relabel`` and ``labels`` (new ones) are what it
changed. A ROW is ``{"digest":H,"id":ID,"labelling":LABELLING,"payload":{"key":BASE64,"salt":HEX,"text":TEXT}}``, and a
LABELLING ``{"label":NAME or null,"pin":true,"soft":null or {NAME:SHARE,...}}``.

``after`` is the SHA-256 of the line as canonical JSON (keys in order, no spaces, ASCII) without ``after``, without a
``signature`` of it, and without the payloads, which are bound by their digests. So the first hash, of a sealed export,
and the last one say which edits lie between them, and the payload of a row that was removed can be erased without a
break in the chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import BundleIntegrityError
from ..storage.ed25519 import PrivateKey, PublicKey, Signature, sign, verify
from .change import Change, canonical, change_json, hash_of, number_of, read_change, string_of

CONTEXT = b"reaugkd edit v1"
OPERATIONS = ("add", "remove", "relabel", "undo", "compact")
MOST_BYTES = 1 << 28
"""Of a journal: what is longer is refused unread."""


@dataclass(frozen=True)
class Entry:
    """A line of the journal.

    Attributes:
        seq: its number, from 1.
        time: UTC, ``YYYY-MM-DDTHH:MM:SSZ``.
        who: who made the edit.
        why: the reason given, "" for none.
        op: one of `OPERATIONS`.
        change: what it changed.
        before: hash of the line before, or of what the journal began with.
        after: its own hash, 64 hexadecimal digits.
        undoes: for an undo, the number of the edit taken back.
        generation: for a compact, the number of the generation that it made.
        files: for a compact, the SHA-256 of that generation's files.
        signature: of ``after`` (`signature.Signature.to_bytes`), by who made the edit; None for none.
    """

    seq: int
    time: str
    who: str
    why: str
    op: str
    change: Change
    before: str
    after: str = ""
    undoes: int | None = None
    generation: int | None = None
    files: Mapping[str, str] | None = None
    signature: str | None = None

    def sealed(self, key: PrivateKey | None = None) -> Entry:
        """The same with its hash, and signed, if there is a key."""
        after = self.digest()
        signed = None if key is None else sign(after.encode(), key, context=CONTEXT).to_bytes().decode()
        return replace(self, after=after, signature=signed)

    def check_signature(self, key: PublicKey, path: Path) -> None:
        """Prove that the owner of a key made the edit.

        Args:
            key: the one that is trusted.
            path: the journal, for messages.

        Raises:
            BundleIntegrityError: it is not signed, or by another key, or another edit was.
            DependencyError: the library ``cryptography`` is missing.
        """
        if self.signature is None:
            raise BundleIntegrityError(
                "an edit is not signed",
                path=path,
                found=f"edit {self.seq}, by {self.who!r}",
                expected=f"a signature by key {key.key_id}",
                remedy="Make edits with --sign-key KEY.pem where bundles are opened with --require-signature.",
            )
        verify(
            self.after.encode(), Signature.from_bytes(self.signature.encode(), path), key, context=CONTEXT, path=path
        )

    def digest(self) -> str:
        """What ``after`` has to be."""
        obj = self.as_json(payloads=False)
        del obj["after"]
        obj.pop("signature", None)
        return hashlib.sha256(canonical(obj)).hexdigest()

    def line(self) -> bytes:
        """As it is in the journal, with the line's end."""
        return canonical(self.as_json()) + b"\n"

    def as_json(self, payloads: bool = True) -> dict[str, Any]:
        """As JSON values, with the payloads of added rows or without."""
        files = None if self.files is None else dict(self.files)
        more = {"undoes": self.undoes, "generation": self.generation, "files": files, "signature": self.signature}
        return {
            **{name: value for name, value in more.items() if value is not None},
            **{name: getattr(self, name) for name in ("seq", "time", "who", "why", "op", "before", "after")},
            **change_json(self.change, payloads),
        }

    def erased(self, gone: Callable[[int], bool]) -> Entry:
        """Without the payloads of the rows that are gone; the hash stays right."""
        return replace(self, change=self.change.erased(gone))


def read_journal(data: bytes, path: Path, dtype: str, ndim: int, seq: int, before: str) -> Iterator[Entry]:
    """The entries of a journal, each checked against the one before it.

    Args:
        data: whole lines.
        path: the file, for messages.
        dtype: of the index, which says how keys are stored.
        ndim: dimensions of a key.
        seq: the number of the last entry before these.
        before: its hash.

    Raises:
        BundleIntegrityError: a line is damaged, missing or out of its place.
    """
    for line in data.splitlines(keepends=True):
        try:
            entry = _entry(json.loads(line.decode("ascii")), dtype, ndim)
            same = entry.line() == line
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise damaged(path, f"after edit {seq}, {type(error).__name__}: {error}") from error
        if not same:
            raise damaged(path, f"after edit {seq}, a line that is not written as journals are")
        if entry.seq != seq + 1 or entry.before != before or entry.after != entry.digest():
            raise damaged(path, f"edit {entry.seq} where {seq + 1} belongs, or another hash")
        seq, before = entry.seq, entry.after
        yield entry


def damaged(path: Path, found: str) -> BundleIntegrityError:
    """The complaint about a journal."""
    return BundleIntegrityError(
        "the journal of edits is damaged",
        path=path,
        found=found,
        expected="the lines that were written, one after the other",
        remedy="Restore it from a copy of the bundle.",
    )


def _entry(obj: Any, dtype: str, ndim: int) -> Entry:
    if not isinstance(obj, dict):
        raise TypeError("no object")
    op = string_of(obj["op"])
    if op not in OPERATIONS:
        raise ValueError(f"unknown operation {op!r}")
    undoes, generation = (number_of(obj[name]) if name in obj else None for name in ("undoes", "generation"))
    files = {string_of(name): hash_of(digest) for name, digest in obj["files"].items()} if "files" in obj else None
    return Entry(
        seq=number_of(obj["seq"]),
        time=string_of(obj["time"]),
        who=string_of(obj["who"]),
        why=string_of(obj["why"]),
        op=op,
        change=read_change(obj, dtype, ndim),
        before=hash_of(obj["before"]),
        after=hash_of(obj["after"]),
        undoes=undoes,
        generation=generation,
        files=files,
        signature=string_of(obj["signature"]) if "signature" in obj else None,
    )
