"""The rows, options and result of an edit of the knowledge base."""

from __future__ import annotations

import getpass
import math
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from ...errors import ReaugkdError, UsageError
from ...kb.edits.change import Change, Labelling, checked_labelling
from ...kb.edits.journal import Entry
from ...kb.storage.ed25519 import PrivateKey, read_private_key
from ..inference.text.inputs import Text
from .preview import Preview

WAIT = 10.0
"""Seconds to wait until another edit of the same bundle ends."""


@dataclass(frozen=True)
class Row:
    """A row to add.

    Attributes:
        text: a text, or a pair.
        label: its gold label.
        soft: label names and shares that sum to 1. Default: the whole share on ``label``.
    """

    text: Text
    label: str | None = None
    soft: Mapping[str, float] | None = None

    @property
    def labelling(self) -> Labelling:
        """The row's labelling; pinned where it has one label and no shares.

        Raises:
            UsageError: neither a label nor shares, a value of the wrong type, or shares that are no distribution.
        """
        return checked_labelling(Labelling(self.label, self.soft, pin=self.soft is None))


@dataclass(frozen=True, eq=False)
class Edit:
    """The result of an edit.

    Attributes:
        entry: its line of the journal; None for a preview, or where there was nothing to change.
        change: the rows that change.
        ids: ids of the rows that were added, relabelled or left unchanged, in the order of the arguments.
        unchanged: number of rows that had the label already.
        preview: the changed answers on the held-out rows; None unless ``preview`` or ``guard`` was given.
        compacted: the journal's entry of the automatic compaction; None if there was none.
        not_compacted: the error of an automatic compaction that failed; the edit itself is made.
    """

    entry: Entry | None
    change: Change
    ids: tuple[int, ...] = ()
    unchanged: int = 0
    preview: Preview | None = None
    compacted: Entry | None = None
    not_compacted: ReaugkdError | None = None

    def counts(self) -> dict[str, int]:
        """The numbers of rows added, removed, restored, relabelled and unchanged."""
        change = self.change
        return {
            "added": len(change.add),
            "removed": len(change.remove),
            "restored": len(change.restore),
            "relabelled": len(change.relabel),
            "unchanged": self.unchanged,
        }

    def as_record(self) -> dict[str, Any]:
        """The edit as JSON values: its number ``seq``, the counts, ``ids``, and ``flips`` of a preview."""
        flips = None if self.preview is None else [vars(flip) for flip in self.preview.flips]
        return {"seq": self.entry and self.entry.seq, **self.counts(), "ids": list(self.ids), "flips": flips}


class WriteKeywords(TypedDict, total=False):
    """Keywords of every call that writes to the journal.

    Attributes:
        why: the reason, kept in the journal. Default: none.
        who: the author, kept in the journal. Default: ``user@host``.
        wait: seconds to wait until another edit ends. Default: 10.
        key: the Ed25519 key that signs the edit: a path, PEM as bytes, or a key read before. Default: no signature.
        unsigned: edit a signed bundle without a signature. Devices that require one refuse the bundle from then on.
    """

    why: str
    who: str | None
    wait: float
    key: PrivateKey | bytes | str | os.PathLike[str] | None
    unsigned: bool


class EditKeywords(WriteKeywords, total=False):
    """Keywords of every call that changes rows: those of `WriteKeywords`, and three more.

    Attributes:
        guard: share of the held-out rows, 0 to 1, whose answer may change; an edit that changes more is refused.
        preview: report which held-out rows change, and write nothing.
        auto_compact: compact the edits when they are many (`undo.compaction_due`). Default: True.
    """

    guard: float | None
    preview: bool
    auto_compact: bool


@dataclass(frozen=True)
class WriteOptions:
    """The values of `WriteKeywords`, checked.

    Raises:
        UsageError: a value of the wrong type or out of range.
    """

    why: str = ""
    who: str | None = None
    wait: float = WAIT
    key: PrivateKey | None = None
    unsigned: bool = False

    def __post_init__(self) -> None:
        _check("why", self.why, str, "a string")
        _check("who", self.who, str | None, "a string or None")
        _check_number("wait", self.wait, math.inf, "seconds from 0")
        _check("unsigned", self.unsigned, bool, "True or False")

    @property
    def author(self) -> str:
        """The name for the journal."""
        if self.who is not None:
            return self.who
        try:
            user = getpass.getuser()
        except (KeyError, OSError, ImportError):
            user = f"uid {os.getuid()}"
        return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True)
class EditOptions(WriteOptions):
    """The values of `EditKeywords`, checked.

    Raises:
        UsageError: a value of the wrong type or out of range.
    """

    guard: float | None = None
    preview: bool = False
    auto_compact: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guard is not None:
            _check_number("guard", self.guard, 1, "a share from 0 to 1, or None")
        _check("preview", self.preview, bool, "True or False")
        _check("auto_compact", self.auto_compact, bool, "True or False")


def edit_options(keywords: EditKeywords) -> EditOptions:
    """The options of a call that changes rows.

    Raises:
        UsageError: a value of the wrong type or out of range, or a key that cannot be read.
        TypeError: an unknown keyword.
    """
    return EditOptions(**_read_key(dict(keywords), {field.name for field in fields(EditOptions)}))


def write_options(keywords: WriteKeywords) -> WriteOptions:
    """The options of a call that only writes to the journal.

    Raises:
        UsageError: a value of the wrong type or out of range, or a key that cannot be read.
        TypeError: an unknown keyword.
    """
    return WriteOptions(**_read_key(dict(keywords), {field.name for field in fields(WriteOptions)}))


def checked_flag(name: str, value: object) -> None:
    """Raise UsageError where a value is neither True nor False."""
    _check(name, value, bool, "True or False")


def _read_key(given: dict[str, Any], known: set[str]) -> dict[str, Any]:
    for name in given:
        if name not in known:
            raise TypeError(f"unexpected keyword argument {name!r}")
    key = given.get("key")
    if key is None or isinstance(key, PrivateKey):
        return given
    if not isinstance(key, bytes | str | os.PathLike):
        raise _wrong("key", key, "a path, PEM as bytes, or a private key")
    return {**given, "key": read_private_key(key)}


def _check(name: str, value: object, kind: type | object, expected: str) -> None:
    if not isinstance(value, kind):  # type: ignore[arg-type]
        raise _wrong(name, value, expected)


def _check_number(name: str, value: object, most: float, expected: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        raise _wrong(name, value, expected)


def _wrong(name: str, value: object, expected: str) -> UsageError:
    return UsageError(f"{name} is unusable", found=repr(value), expected=expected)
