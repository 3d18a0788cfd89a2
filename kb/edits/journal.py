"""The journal of edits: one line of JSON for each edit, with its own hash and that of the line before it.

    {"add":[ROW,...],"after":H,"before":H,"labels":[...],"op":"add","relabel":[...],"remove":[ID,...],"restore":[ID,...],
     "seq":7,"time":"2026-11-21T19:06:29Z","who":"anna","why":"..."}

``op`` is the operation; ``add``, ``remove``, ``restore``, ``relabel`` and ``labels`` (new ones) are its change. A ROW
is ``{"digest":H,"id":ID,"labelling":LABELLING,"payload":{"key":BASE64,"salt":HEX,"text":TEXT}}``, and a LABELLING
``{"label":NAME or null,"pin":true,"soft":null or {NAME:SHARE,...}}``. A compaction and a fit of the classifier of new
labels change no row; ``files`` has the SHA-256 of the files that they wrote.

``after`` is the SHA-256 of the line as canonical JSON (sorted keys, no spaces, ASCII) without ``after``, its
``signature`` and the payloads, which are bound by their digests. So the first hash (of the sealed export) and the last
one prove all edits between them, and the payload of a removed row can be erased without breaking the chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import BundleIntegrityError
from ..storage.ed25519 import PrivateKey, PublicKey, Signature, sign, verify_signature
from .change import Change, canonical
from .change_json import change_json, hash_of, number_of, read_change, string_of
from .classifier_file import seq_of

CONTEXT = b"reaugkd edit v1"
OPERATIONS = ("add", "remove", "relabel", "undo", "compact", "fit")
MOST_BYTES = 1 << 28
"""Limit on a journal; a longer one is refused unread."""


@dataclass(frozen=True)
class Entry:
    """A line of the journal.

    Attributes:
        seq: its number, from 1.
        time: UTC, ``YYYY-MM-DDTHH:MM:SSZ``.
        who: who made the edit.
        why: the reason for the edit; "" if none was given.
        op: one of `OPERATIONS`.
        change: the changed rows.
        before: hash of the line before; the manifest's seal for the first edit.
        after: its own hash, 64 hexadecimal digits.
        undoes: for an undo, the number of the edit taken back.
        snapshot: for a compaction, the number of the snapshot that it wrote.
        files: for a compaction, the SHA-256 of that snapshot's files; for a fit, that of the classifier's file
            (`classifier_file`).
        signature: the author's signature of ``after`` (`ed25519.Signature.to_bytes`); None if there is none.
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
    snapshot: int | None = None
    files: Mapping[str, str] | None = None
    signature: str | None = None

    @property
    def edits_rows(self) -> bool:
        """Whether a user made it to change rows; a compaction and a fit change none."""
        return self.op not in ("compact", "fit")

    def sealed(self, key: PrivateKey | None = None) -> Entry:
        """The entry with its hash, and with a signature if a key is given."""
        after = self.digest()
        signed = None if key is None else sign(after.encode(), key, context=CONTEXT).to_bytes().decode()
        return replace(self, after=after, signature=signed)

    def check_signature(self, key: PublicKey, path: Path) -> None:
        """Prove that the owner of a key made the edit.

        Args:
            key: the trusted key.
            path: the journal, for messages.

        Raises:
            BundleIntegrityError: no signature, one by another key, or one of another edit.
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
        verify_signature(
            self.after.encode(), Signature.from_bytes(self.signature.encode(), path), key, context=CONTEXT, path=path
        )

    def digest(self) -> str:
        """The expected value of ``after``."""
        obj = self.as_json(payloads=False)
        del obj["after"]
        obj.pop("signature", None)
        return hashlib.sha256(canonical(obj)).hexdigest()

    def line(self) -> bytes:
        """The entry's line in the journal, with its end."""
        return canonical(self.as_json()) + b"\n"

    def as_json(self, payloads: bool = True) -> dict[str, Any]:
        """The entry as JSON values, with or without the payloads of added rows."""
        files = None if self.files is None else dict(self.files)
        # "generation" is the snapshot's name in format 1.
        more = {"undoes": self.undoes, "generation": self.snapshot, "files": files, "signature": self.signature}
        return {
            **{name: value for name, value in more.items() if value is not None},
            **{name: getattr(self, name) for name in ("seq", "time", "who", "why", "op", "before", "after")},
            **change_json(self.change, payloads),
        }

    def as_record(self) -> dict[str, Any]:
        """The entry as JSON values for readers: of the payload of a row only its text."""
        record = self.as_json()
        for row in record["add"]:
            if row["payload"] is not None:
                row["payload"] = {"text": row["payload"]["text"]}
        return record

    def erased(self, gone: Callable[[int], bool]) -> Entry:
        """The entry without the payloads of the rows for which ``gone`` is true; its hash stays valid."""
        return replace(self, change=self.change.erased(gone))


def read_journal(data: bytes, path: Path, dtype: str, ndim: int, seq: int, before: str) -> Iterator[Entry]:
    """The entries of a journal, each checked against the one before it.

    Args:
        data: whole lines.
        path: the file, for messages.
        dtype: type of the index, which defines how keys are stored.
        ndim: dimensions of a key.
        seq: the number of the last entry before these.
        before: its hash.

    Raises:
        BundleIntegrityError: a line is damaged, missing or out of order.
    """  # noqa: DOC501
    for line in data.splitlines(keepends=True):
        try:
            entry = _entry(json.loads(line.decode("ascii")), dtype, ndim)
            same = entry.line() == line
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise damaged(path, f"after edit {seq}, {type(error).__name__}: {error}") from error
        if not same:
            raise damaged(path, f"after edit {seq}, a line that is not in canonical form")
        if entry.seq != seq + 1 or entry.before != before or entry.after != entry.digest():
            raise damaged(path, f"edit {entry.seq} instead of {seq + 1}, or a wrong hash")
        seq, before = entry.seq, entry.after
        yield entry


def damaged(path: Path, found: str) -> BundleIntegrityError:
    """The error for a damaged journal."""
    return BundleIntegrityError(
        "the journal of edits is damaged",
        path=path,
        found=found,
        expected="the lines that were written, in order",
        remedy="Restore it from a copy of the bundle.",
    )


def _entry(obj: Any, dtype: str, ndim: int) -> Entry:
    if not isinstance(obj, dict):
        raise TypeError("not an object")
    op = string_of(obj["op"])
    if op not in OPERATIONS:
        raise ValueError(f"unknown operation {op!r}")
    undoes, snapshot = (number_of(obj[name]) if name in obj else None for name in ("undoes", "generation"))
    files = {string_of(name): hash_of(digest) for name, digest in obj["files"].items()} if "files" in obj else None
    seq, change = number_of(obj["seq"]), read_change(obj, dtype, ndim)
    if op == "fit" and (change or len(files or ()) != 1 or not 0 < (seq_of(next(iter(files or ()))) or 0) < seq):
        raise ValueError("a fit of rows, or without the file of a classifier")
    return Entry(
        seq=seq,
        time=string_of(obj["time"]),
        who=string_of(obj["who"]),
        why=string_of(obj["why"]),
        op=op,
        change=change,
        before=hash_of(obj["before"]),
        after=hash_of(obj["after"]),
        undoes=undoes,
        snapshot=snapshot,
        files=files,
        signature=string_of(obj["signature"]) if "signature" in obj else None,
    )
