"""Changes as JSON values, as the journal keeps them; every value is checked when it is read."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ...errors import UsageError
from .change import KEY_TYPES, Change, Labelling, NewRow, Payload, Relabelling, checked_label

_HASH = 64  # hexadecimal digits
_LARGEST_ID = 2**63 - 1

_Read = TypeVar("_Read")


def change_json(change: Change, payloads: bool = True) -> dict[str, Any]:
    """A change as JSON values, with or without the payloads of added rows."""
    return {
        # The name on the disk is that of format 1.
        **({} if change.new_label_odds is None else {"odds": change.new_label_odds}),
        "labels": list(change.labels),
        "add": [_row_json(row, payloads) for row in change.add],
        "remove": list(change.remove),
        "restore": list(change.restore),
        "relabel": [
            {"id": row.id, "old": _labelling_json(row.old), "new": _labelling_json(row.new)} for row in change.relabel
        ],
    }


def read_change(obj: dict[str, Any], dtype: str, ndim: int) -> Change:
    """Read a change from JSON values.

    Args:
        obj: the values.
        dtype: type of the index, which defines how keys are stored.
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
        new_label_odds=_odds(obj["odds"]) if "odds" in obj else None,
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
    key = np.frombuffer(base64.b64decode(string_of(obj["key"]), validate=True), KEY_TYPES[dtype])
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
    """Read a list, each value with ``read``.

    Raises:
        TypeError: the value is not a list.
    """
    if not isinstance(values, list):
        raise TypeError("not a list")
    return tuple(read(value) for value in values)


def string_of(value: Any) -> str:
    """Check a string.

    Raises:
        TypeError: the value is not a string.
    """
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of a string")
    return value


def number_of(value: Any) -> int:
    """Check a whole number from 0.

    Raises:
        ValueError: the value is not a whole number from 0.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_ID:
        raise ValueError("not a whole number from 0")
    return value


def _share(value: Any) -> float:
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError("not a share from 0 to 1")
    return value


def _new_label(value: Any) -> str:
    try:
        return checked_label(value)
    except UsageError as error:
        raise ValueError(str(error)) from error


def _odds(value: Any) -> float:
    if not isinstance(value, float) or not 0 < value < math.inf:
        raise ValueError("odds that are not a positive number")
    return value


def hash_of(value: Any) -> str:
    """Check a SHA-256 of 64 hexadecimal digits.

    Raises:
        ValueError: the value is not a SHA-256.
    """
    if not (isinstance(value, str) and len(value) == _HASH and set(value) <= set("0123456789abcdef")):
        raise ValueError("not a SHA-256")
    return value
