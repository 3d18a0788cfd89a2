"""An edit's change of the rows: rows added, removed, restored and relabelled, and new labels."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError

Text = str | tuple[str, str]

KEY_TYPES: dict[str, np.dtype[Any]] = {
    "i8": np.dtype("i1"),
    "f16": np.dtype("<f2"),
    "f32": np.dtype("<f4"),
}
"""The stored type of the journal's keys, by the index's dtype."""

_UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SHARE_STEP = 0.005
_LONGEST_LABEL = 10_000  # characters, the same as in a manifest


@dataclass(frozen=True)
class Labelling:
    """The label of a row.

    Attributes:
        label: the gold label's name; None if there is none.
        soft: label names and their shares, which sum to 1; None if ``label`` has the whole share.
        pin: whether the row alone answers its own text (`Searchable.pins`).
    """

    label: str | None
    soft: Mapping[str, float] | None = None
    pin: bool = False

    def like(self, other: Labelling) -> bool:
        """Whether they are the same label, within the rounding of stored shares (1 of 255)."""
        if (self.label, self.pin) != (other.label, other.pin):
            return False
        names = {*self.shares, *other.shares}
        return all(abs(self.shares.get(name, 0.0) - other.shares.get(name, 0.0)) < _SHARE_STEP for name in names)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all labels in it."""
        return tuple(dict.fromkeys([*([] if self.label is None else [self.label]), *self.shares]))

    @property
    def shares(self) -> Mapping[str, float]:
        """Label names and their shares."""
        return self.soft if self.soft is not None else {str(self.label): 1.0}


@dataclass(frozen=True)
class Payload:
    """The part of a row that can be erased.

    Attributes:
        key: in the form that the index stores: int8, float16 or float32 [d].
        text: text or pair; None if the knowledge base keeps no texts.
        text_digest: its digest, if digests are kept instead of texts: 64 hexadecimal digits.
        salt: random, so that the digest reveals nothing about an erased text.
    """

    key: NDArray[Any]
    text: Text | None
    salt: str
    text_digest: str | None = None

    @classmethod
    def of(cls, key: NDArray[np.floating], text: Text | None, dtype: str, text_digest: str | None = None) -> Payload:
        """The payload of a new row.

        Args:
            key: float32 [d].
            text: its text; None if texts are not kept.
            dtype: type of the index.
            text_digest: the text's digest; None if digests are not kept.
        """
        kind = KEY_TYPES[dtype]
        scaled = key / np.abs(key).max()
        stored = np.rint(scaled * 127) if dtype == "i8" else scaled / np.linalg.norm(scaled)
        return cls(stored.astype(kind), text, os.urandom(8).hex(), text_digest)

    def digest(self) -> str:
        """SHA-256, 64 hexadecimal digits."""
        return hashlib.sha256(canonical(self.as_json())).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The payload as JSON values."""
        key = base64.b64encode(self.key.tobytes()).decode()
        digest = {} if self.text_digest is None else {"text_digest": self.text_digest}
        return {"key": key, "salt": self.salt, "text": self.text, **digest}


@dataclass(frozen=True)
class NewRow:
    """A row that is added.

    Attributes:
        id: a number that no other row of this knowledge base has had.
        labelling: its label.
        digest: SHA-256 of the payload.
        payload: None after it was erased.
    """

    id: int
    labelling: Labelling
    digest: str
    payload: Payload | None

    @classmethod
    def of(cls, row_id: int, labelling: Labelling, payload: Payload) -> NewRow:
        """A new row with the digest of its payload."""
        return cls(row_id, labelling, payload.digest(), payload)


@dataclass(frozen=True)
class Relabelling:
    """A row's labelling before and after."""

    id: int
    old: Labelling
    new: Labelling


@dataclass(frozen=True)
class Change:
    """The change of an edit: new labels first, then rows added, removed, restored and relabelled.

    Attributes:
        labels: names of new labels.
        add: new rows.
        remove: ids of rows to remove.
        restore: ids of removed rows to restore.
        relabel: rows that change their label.
        new_label_odds: factor on the odds of new labels from this edit on (`blending.blend_edited`); None leaves it
            unchanged.
    """

    labels: tuple[str, ...] = ()
    add: tuple[NewRow, ...] = ()
    remove: tuple[int, ...] = ()
    restore: tuple[int, ...] = ()
    relabel: tuple[Relabelling, ...] = ()
    new_label_odds: float | None = None

    def inverse(self) -> Change:
        """The change that takes this one back; labels stay known, and their odds unchanged."""
        return Change(
            remove=tuple(row.id for row in self.add) + self.restore,
            restore=self.remove,
            relabel=tuple(Relabelling(row.id, row.new, row.old) for row in self.relabel),
        )

    def erased(self, gone: Callable[[int], bool]) -> Change:
        """The change without the payloads of the added rows for which ``gone`` is true."""
        add = tuple(replace(row, payload=None) if gone(row.id) else row for row in self.add)
        return replace(self, add=add)

    def __bool__(self) -> bool:
        return bool(self.labels or self.add or self.remove or self.restore or self.relabel)

    @property
    def rows(self) -> int:
        """The number of rows that it touches."""
        return len(self.add) + len(self.remove) + len(self.restore) + len(self.relabel)


def checked_label(name: object) -> str:
    """The name of a label, checked.

    Raises:
        UsageError: no string, or empty, too long, not valid Unicode, or with control characters.
    """
    if isinstance(name, str) and 0 < len(name) <= _LONGEST_LABEL and not _UNUSABLE.search(name):
        return name
    expected = f"text of 1 to {_LONGEST_LABEL:,} characters, without control characters and lone surrogates"
    raise UsageError("a label's name is unusable", found=ascii(name), expected=expected)


def checked_labelling(labelling: Labelling) -> Labelling:
    """The labelling, its shares scaled to sum to 1.

    Raises:
        UsageError: neither a label nor shares, a value of the wrong type, or shares that are no distribution.
    """
    if labelling.soft is None and labelling.label is None:
        raise UsageError("a row has neither a label nor shares", found=repr(None), expected="a label, or shares")
    if not isinstance(labelling.soft, Mapping | None):
        raise UsageError(
            "a soft label is unusable", found=repr(labelling.soft), expected="a mapping of label names to shares"
        )
    for name in labelling.names:
        checked_label(name)
    if labelling.soft is None:
        return labelling
    for share in labelling.soft.values():
        if not isinstance(share, SupportsFloat) or isinstance(share, str | bool):
            raise UsageError("a share is unusable", found=repr(share), expected="a number from 0 to 1")
    try:
        total = math.fsum(labelling.soft.values())
    except (OverflowError, ValueError):  # shares beyond float64, or infinite ones of both signs
        total = math.inf
    if not abs(total - 1) < 0.01 or not all(share >= 0 for share in labelling.soft.values()):
        raise UsageError(
            "a soft label is no distribution",
            found=f"shares that sum to {total:g}",
            expected="shares from 0 that sum to 1",
        )
    soft = {name: float(share) / total for name, share in labelling.soft.items() if share > 0}
    return Labelling(labelling.label, soft, labelling.pin)


def canonical(obj: object) -> bytes:
    """JSON in the form that is hashed: sorted keys, no spaces, ASCII."""
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
