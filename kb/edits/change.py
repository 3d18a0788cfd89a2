"""What an edit changes: rows added, removed, restored and relabelled, and labels that are new; as JSON values too."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError

Text = str | tuple[str, str]

_HASH = 64
_UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SHARE_STEP = 0.005
_LONGEST_LABEL = 10_000  # characters, as of a manifest
_LARGEST_ID = 2**63 - 1
_KEY_TYPES: dict[str, np.dtype[Any]] = {
    "i8": np.dtype("i1"),
    "f16": np.dtype("<f2"),
    "bf16": np.dtype("<f4"),
    "f32": np.dtype("<f4"),
}

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Labelling:
    """What a row says of its label.

    Attributes:
        label: the gold label's name; None where there is none.
        soft: label names and their shares, which sum to 1; None for all of it on ``label``.
        pin: whether the row answers alone for texts like its own (`KnowledgeBase.pins`).
    """

    label: str | None
    soft: Mapping[str, float] | None = None
    pin: bool = False

    def like(self, other: Labelling) -> bool:
        """Whether they say the same, to within what a knowledge base rounds shares by (1 of 255)."""
        if (self.label, self.pin) != (other.label, other.pin):
            return False
        names = {*self.shares, *other.shares}
        return all(abs(self.shares.get(name, 0.0) - other.shares.get(name, 0.0)) < _SHARE_STEP for name in names)

    @property
    def names(self) -> tuple[str, ...]:
        """All labels that it speaks of."""
        return tuple(dict.fromkeys([*([] if self.label is None else [self.label]), *self.shares]))

    @property
    def shares(self) -> Mapping[str, float]:
        """Label names and their shares."""
        return self.soft if self.soft is not None else {str(self.label): 1.0}


@dataclass(frozen=True)
class Payload:
    """What can be erased of a row.

    Attributes:
        key: as the index stores it: int8, float16 or float32 [d].
        text: text or pair; None where the knowledge base keeps no texts.
        text_digest: its digest, where digests are kept in place of texts: 64 hexadecimal digits.
        salt: random, so that the digest tells nothing of an erased text.
    """

    key: NDArray[Any]
    text: Text | None
    salt: str
    text_digest: str | None = None

    @classmethod
    def of(cls, key: NDArray[np.floating], text: Text | None, dtype: str, text_digest: str | None = None) -> Payload:
        """A new row's.

        Args:
            key: float32 [d].
            text: what is to be kept of its text.
            dtype: of the index.
            text_digest: its digest, where that is kept.
        """
        kind = _KEY_TYPES[dtype]
        scaled = key / np.abs(key).max()
        stored = np.rint(scaled * 127) if dtype == "i8" else scaled / np.linalg.norm(scaled)
        return cls(stored.astype(kind), text, os.urandom(8).hex(), text_digest)

    def digest(self) -> str:
        """SHA-256, 64 hexadecimal digits."""
        return hashlib.sha256(canonical(self.as_json())).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        key = base64.b64encode(self.key.tobytes()).decode()
        digest = {} if self.text_digest is None else {"text_digest": self.text_digest}
        return {"key": key, "salt": self.salt, "text": self.text, **digest}


@dataclass(frozen=True)
class NewRow:
    """A row that is added.

    Attributes:
        id: its identity, which no other row of this knowledge base has had.
        labelling: what it says.
        digest: of the payload.
        payload: None once it is erased.
    """

    id: int
    labelling: Labelling
    digest: str
    payload: Payload | None

    @classmethod
    def of(cls, row_id: int, labelling: Labelling, payload: Payload) -> NewRow:
        """With its digest."""
        return cls(row_id, labelling, payload.digest(), payload)


@dataclass(frozen=True)
class Relabelling:
    """A row's labelling before and after."""

    id: int
    old: Labelling
    new: Labelling


@dataclass(frozen=True)
class Change:
    """What an edit does to the rows: labels first, then rows added, removed, restored and relabelled.

    Attributes:
        labels: names of labels that are new.
        add: rows.
        remove: ids.
        restore: ids of removed rows.
        relabel: of rows.
        odds: what the odds of new labels are multiplied by from now on (`blend.blend_edited`); None leaves it as it is.
    """

    labels: tuple[str, ...] = ()
    add: tuple[NewRow, ...] = ()
    remove: tuple[int, ...] = ()
    restore: tuple[int, ...] = ()
    relabel: tuple[Relabelling, ...] = ()
    odds: float | None = None

    def inverse(self) -> Change:
        """What takes it back; labels stay known, and odds as they are."""
        return Change(
            remove=tuple(row.id for row in self.add) + self.restore,
            restore=self.remove,
            relabel=tuple(Relabelling(row.id, row.new, row.old) for row in self.relabel),
        )

    def erased(self, gone: Callable[[int], bool]) -> Change:
        """Without the payloads of added rows that are gone."""
        add = tuple(replace(row, payload=None) if gone(row.id) else row for row in self.add)
        return replace(self, add=add)

    def __bool__(self) -> bool:
        return bool(self.labels or self.add or self.remove or self.restore or self.relabel)

    @property
    def rows(self) -> int:
        """How many rows it touches."""
        return len(self.add) + len(self.remove) + len(self.restore) + len(self.relabel)


def checked_label(name: object) -> str:
    """A name for a label.

    Raises:
        UsageError: it is no text, empty, too long, not valid Unicode, or has control characters.
    """
    if isinstance(name, str) and 0 < len(name) <= _LONGEST_LABEL and not _UNUSABLE.search(name):
        return name
    expected = f"text of 1 to {_LONGEST_LABEL:,} characters, none of them a control or half a character"
    raise UsageError("a label's name is unusable", found=ascii(name), expected=expected)


def checked_labelling(labelling: Labelling) -> Labelling:
    """The same, with shares that sum to 1.

    Raises:
        UsageError: neither a label nor shares, or shares that are no distribution.
    """
    if labelling.soft is None and labelling.label is None:
        raise UsageError("a row has neither a label nor soft labels")
    for name in labelling.names:
        checked_label(name)
    if labelling.soft is None:
        return labelling
    total = math.fsum(labelling.soft.values()) if labelling.soft else 0.0
    if not all(math.isfinite(share) and share >= 0 for share in labelling.soft.values()) or not abs(total - 1) < 0.01:
        raise UsageError(
            "a soft label is no distribution",
            found=f"shares that sum to {total:g}",
            expected="shares from 0 that sum to 1",
        )
    soft = {name: float(share) / total for name, share in labelling.soft.items() if share > 0}
    return Labelling(labelling.label, soft, labelling.pin)


def canonical(obj: object) -> bytes:
    """JSON in the one form that is hashed: keys in order, no spaces, ASCII."""
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def change_json(change: Change, payloads: bool = True) -> dict[str, Any]:
    """A change as JSON values, with the payloads of added rows or without."""
    return {
        **({} if change.odds is None else {"odds": change.odds}),
        "labels": list(change.labels),
        "add": [_row_json(row, payloads) for row in change.add],
        "remove": list(change.remove),
        "restore": list(change.restore),
        "relabel": [
            {"id": row.id, "old": _labelling_json(row.old), "new": _labelling_json(row.new)} for row in change.relabel
        ],
    }


def read_change(obj: dict[str, Any], dtype: str, ndim: int) -> Change:
    """A change from the JSON values of one.

    Args:
        obj: the values.
        dtype: of the index, which says how keys are stored.
        ndim: dimensions of a key.

    Raises:
        ValueError: a value is out of its range.
        TypeError: a value is of another type.
        KeyError: a value is missing.
        AttributeError: a value is no object.
    """
    return Change(
        labels=list_of(obj["labels"], _new_label),
        add=list_of(obj["add"], lambda row: _row(row, dtype, ndim)),
        remove=list_of(obj["remove"], number_of),
        restore=list_of(obj["restore"], number_of),
        relabel=list_of(obj["relabel"], _relabelling),
        odds=_odds(obj["odds"]) if "odds" in obj else None,
    )


def _row_json(row: NewRow, payloads: bool) -> dict[str, Any]:
    obj: dict[str, Any] = {"id": row.id, "digest": row.digest, "labelling": _labelling_json(row.labelling)}
    if payloads:
        obj["payload"] = None if row.payload is None else row.payload.as_json()
    return obj


def _labelling_json(labelling: Labelling) -> dict[str, Any]:
    soft = None if labelling.soft is None else dict(labelling.soft)
    return {"label": labelling.label, "soft": soft, "pin": labelling.pin}


def _row(obj: Any, dtype: str, ndim: int) -> NewRow:
    digest = hash_of(obj["digest"])
    payload = None if obj["payload"] is None else _payload(obj["payload"], dtype, ndim)
    if payload is not None and payload.digest() != digest:
        raise ValueError("a row's payload has another hash")
    return NewRow(number_of(obj["id"]), _labelling(obj["labelling"]), digest, payload)


def _payload(obj: Any, dtype: str, ndim: int) -> Payload:
    key = np.frombuffer(base64.b64decode(string_of(obj["key"]), validate=True), _KEY_TYPES[dtype])
    if key.shape != (ndim,) or not np.isfinite(key).all() or not key.any():
        raise ValueError(f"a key of {key.shape}")
    text = obj["text"]
    if isinstance(text, list) and len(text) == 2:
        text = (string_of(text[0]), string_of(text[1]))
    elif text is not None:
        text = string_of(text)
    digest = hash_of(obj["text_digest"]) if "text_digest" in obj else None
    return Payload(key, text, string_of(obj["salt"]), digest)


def _labelling(obj: Any) -> Labelling:
    label, soft, pin = obj["label"], obj["soft"], obj["pin"]
    if soft is not None:
        soft = {string_of(name): _share(share) for name, share in soft.items()}
        if not abs(math.fsum(soft.values()) - 1) < 0.01:
            raise ValueError("shares that do not sum to 1")
    elif label is None:
        raise ValueError("neither a label nor shares")
    if not isinstance(pin, bool):
        raise TypeError("pin is neither true nor false")
    return Labelling(None if label is None else string_of(label), soft, pin)


def _relabelling(obj: Any) -> Relabelling:
    return Relabelling(number_of(obj["id"]), _labelling(obj["old"]), _labelling(obj["new"]))


def list_of(values: Any, read: Callable[[Any], _Read]) -> tuple[_Read, ...]:
    """A list, each value read."""
    if not isinstance(values, list):
        raise TypeError("no list")
    return tuple(read(value) for value in values)


def string_of(value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a string belongs")
    return value


def number_of(value: Any) -> int:
    """A whole number from 0."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_ID:
        raise ValueError("no whole number from 0")
    return value


def _share(value: Any) -> float:
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError("no share from 0 to 1")
    return value


def _new_label(value: Any) -> str:
    try:
        return checked_label(value)
    except UsageError as error:
        raise ValueError(str(error)) from error


def _odds(value: Any) -> float:
    if not isinstance(value, float) or not 0 < value < math.inf:
        raise ValueError("odds that are no positive number")
    return value


def hash_of(value: Any) -> str:
    """A SHA-256, 64 hexadecimal digits."""
    if not (isinstance(value, str) and len(value) == _HASH and set(value) <= set("0123456789abcdef")):
        raise ValueError("no SHA-256")
    return value
