"""Every error a user can cause, as one tree.

ReaugkdError
├── UsageError            an option or argument that cannot be meant
├── RecipeError           a recipe (TOML) that cannot be followed
├── DataError             rows that cannot be used
│   ├── ColumnError       a column is missing or cannot be told
│   ├── LabelError        a label is missing, unknown, or there is only one
│   └── TextError         a text is empty, too long, or not UTF-8
├── ModelError            a teacher or student that cannot be loaded
├── BundleError           a bundle that cannot be used
│   ├── BundleVersionError    written by a newer format
│   └── BundleIntegrityError  a file is missing, truncated or altered
├── OutputExistsError     the place to write to is taken
├── DependencyError       an optional dependency is not installed
├── StorageError          the disk refused (full, read-only, not permitted)
├── EditRefusedError      an edit changes more than its guard allows
└── QualityError          the int8 student fell below the export gate

``exit_code`` is what the command line returns: 2 where the user can put it right in the call or in the data, 1 where
the world has to change first (a full disk, a student that does not survive quantization).
"""

from __future__ import annotations

import os
from typing import Any, Self

_DETAILS = ("path", "row", "column", "found", "expected", "remedy")


class ReaugkdError(Exception):
    """The root of the tree: says where, what was found, what was expected, and the way out.

    Args:
        message: what is wrong, without a full stop.
        path: the file or folder it is about.
        row: the row in that file, 1-based, the header counted where there is one.
        column: the column's name.
        found: the value found (shortened to 80 characters).
        expected: the value expected, in words.
        remedy: what to do about it, a whole sentence.
    """

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        row: int | None = None,
        column: str | None = None,
        found: object = None,
        expected: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.message = message
        self.path = None if path is None else os.fspath(path)
        self.row = row
        self.column = column
        self.found = None if found is None else shorten(found)
        self.expected = expected
        self.remedy = remedy
        super().__init__(self._describe())

    def _describe(self) -> str:
        place = [self.path] if self.path is not None else []
        if self.row is not None:
            place.append(f"row {self.row}")
        if self.column is not None:
            place.append(f"column {self.column!r}")
        text = f"{', '.join(place)}: {self.message}" if place else self.message
        if self.found is not None:
            text += f"; found {self.found}"
        if self.expected is not None:
            text += f"; expected {self.expected}"
        return f"{text}. {self.remedy}" if self.remedy else text

    def at(self, **changes: Any) -> Self:
        """The same error with other details: ``path``, ``row``, ``column``, ``found``, ``expected`` or ``remedy``."""
        return type(self)(self.message, **{**{name: getattr(self, name) for name in _DETAILS}, **changes})

    def as_record(self) -> dict[str, object]:
        """The error as a JSON-ready record, for streams where a bad row must not stop the rest."""
        record: dict[str, object] = {"type": type(self).__name__, "message": self.message}
        record.update((name, getattr(self, name)) for name in _DETAILS if getattr(self, name) is not None)
        return record

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.__dict__.copy()))


def _rebuild(kind: type[ReaugkdError], state: dict[str, object]) -> ReaugkdError:
    """Unpickle without the constructor's keyword-only arguments getting lost."""
    error = kind.__new__(kind)
    error.__dict__.update(state)
    Exception.__init__(error, error._describe())
    return error


def shorten(value: object, limit: int = 80) -> str:
    """``repr`` of a value (a string as it is when it is an already worded finding), cut to ``limit`` characters."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def one_line(text: str) -> str:
    """White space as single spaces, and what a terminal would act on (escapes, bells) as question marks."""
    return "".join("?" if mark < " " or "\x7f" <= mark <= "\x9f" else mark for mark in " ".join(text.split()))


class UsageError(ReaugkdError):
    """An option or argument that cannot be meant."""


class RecipeError(ReaugkdError):
    """A recipe that cannot be followed."""


class DataError(ReaugkdError):
    """Rows that cannot be used."""


class ColumnError(DataError):
    """A column is missing or cannot be told."""


class LabelError(DataError):
    """A label is missing, unknown, or there is only one."""


class TextError(DataError):
    """A text is empty, too long, or not UTF-8."""


class ModelError(ReaugkdError):
    """A teacher or student that cannot be loaded."""


class BundleError(ReaugkdError):
    """A bundle that cannot be used."""


class BundleVersionError(BundleError):
    """A bundle written by a newer format."""


class BundleIntegrityError(BundleError):
    """A bundle's file is missing, truncated or altered."""


class OutputExistsError(ReaugkdError):
    """The place to write to is taken."""


class DependencyError(ReaugkdError):
    """An optional dependency is not installed."""


class StorageError(ReaugkdError):
    """The disk refused: full, read-only, or not permitted."""

    exit_code = 1


class EditRefusedError(ReaugkdError):
    """An edit of the knowledge base changes more answers than its guard allows."""


class QualityError(ReaugkdError):
    """The quantized student fell below the export gate."""

    exit_code = 1
