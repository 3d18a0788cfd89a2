"""Strict JSON reader: refuses NaN, repeated names, numbers that overflow, and deep nesting.

Python's reader accepts all of these. With a repeated name two readers could see different values under one hash, and
NaN passes every comparison.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def parse_json(raw: bytes) -> object:
    """The value of JSON in UTF-8.

    Raises:
        ValueError: the bytes are no JSON, or JSON that is refused.
    """
    try:
        return json.loads(raw.decode(), object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("values nested too deep") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    obj = dict(pairs)
    if len(obj) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice!r:.80} twice in one object")
    return obj


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text:.40} is too large")
    return value
