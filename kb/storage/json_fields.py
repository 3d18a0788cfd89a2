"""Typed reader of JSON objects; errors name the field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ...errors import BundleError, UsageError

_LARGEST = 2**63 - 1

_Made = TypeVar("_Made")


class JsonReader:
    """Reads the fields of a JSON object by name and type."""

    def __init__(self, obj: object, path: Path, prefix: str = "") -> None:
        """Check that ``obj`` is a JSON object; ``prefix`` is its path in the file, with a dot.

        Raises:
            BundleError: it is not a JSON object.
        """
        self.path = path
        self.prefix = prefix
        if not isinstance(obj, dict):
            raise self.error(prefix.removesuffix("."), obj, "an object")
        self.obj: Mapping[str, Any] = obj

    def error(self, name: str, found: object, expected: str) -> BundleError:
        """The error for the field ``name`` ("" for the object itself)."""
        return BundleError(
            f"the manifest's {self.prefix}{name} is unusable" if name else "this is no manifest",
            path=self.path,
            found=found,
            expected=expected,
            remedy="Export the bundle again.",
        )

    def get(self, name: str, kind: type[_Made]) -> _Made:
        """The field's value; whole numbers start at 0, and a float may be written as a whole number."""
        value = self.obj.get(name)
        if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
            raise self.error(name, value, f"a number up to {_LARGEST}")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(name, value, _KINDS[kind])
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(name, value, "a finite number")
        if kind is int and value < 0:  # type: ignore[operator]
            raise self.error(name, value, "a number from 0")
        return value

    def items(self, name: str, kind: type[_Made], at_least: int = 0, at_most: int = 65_536) -> list[_Made]:
        """The entries of a list, all of one type."""
        values = self.get(name, list)
        if len(values) < at_least:
            raise self.error(name, values, f"at least {at_least} entry")
        if len(values) > at_most:
            raise self.error(name, f"{len(values):,} entries", f"at most {at_most:,}")
        return [JsonReader({"item": value}, self.path, f"{self.prefix}{name}.").get("item", kind) for value in values]

    def section(self, name: str) -> JsonReader:
        """The object in the field ``name``."""
        return JsonReader(self.get(name, dict), self.path, f"{self.prefix}{name}.")

    def sections(self, name: str, at_most: int) -> list[JsonReader]:
        """The objects in the list in the field ``name``."""
        values = self.get(name, list)
        if len(values) > at_most:
            raise self.error(name, f"{len(values):,} entries", f"at most {at_most:,}")
        return [JsonReader(value, self.path, f"{self.prefix}{name}.") for value in values]

    def make(self, kind: type[_Made], made: Mapping[str, object] | None = None, **required: type) -> _Made:
        """Build a configuration dataclass, whose own checks give the error message.

        Args:
            kind: the dataclass; fields with a default may be missing.
            made: values that were read before.
            required: required fields and their types.
        """
        values: dict[str, Any] = {**(made or {}), **{name: self.get(name, of) for name, of in required.items()}}
        for known in dataclasses.fields(kind):  # type: ignore[arg-type]
            if known.init and known.name in self.obj and known.name not in values:
                values[known.name] = self.get(known.name, _TYPES[str(known.type)])
        try:
            return kind(**values)
        except UsageError as error:
            section = self.prefix.removesuffix(".")
            found, expected = f"{error.message}: {error.found}", error.expected or "another value"
            raise JsonReader({}, self.path).error(section, found, expected) from error


_KINDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
_TYPES: dict[str, type] = {"int": int, "float": float, "str": str}
