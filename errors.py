"""The exceptions that a user can cause, and the exit codes of the command line.

ReaugkdError
├── UsageError            an invalid option or argument; also a ValueError
├── RecipeError           an invalid recipe (TOML)
├── DataError             rows that cannot be used; also a ValueError
│   ├── EmptyFileError    a file has no rows
│   ├── ColumnError       a column is missing or ambiguous
│   ├── LabelError        a label is missing or unknown, or there is only one class
│   └── TextError         a text is empty, too long, or not UTF-8
├── ModelError            a teacher or student cannot be loaded
├── BundleError           a bundle cannot be used
│   ├── BundleVersionError    its format is newer than this version of reaugkd
│   └── BundleIntegrityError  a file is missing, truncated or altered
├── OutputExistsError     the output exists already
├── DependencyError       an optional dependency is not installed
├── DistributedError      the processes of a training cannot work together; exit code 1
├── HubError              the Hugging Face Hub cannot be reached, or refuses a request
├── StorageError          a file cannot be written (full disk, read-only, no permission); exit code 1
├── EditRefusedError      an edit changes more predictions than its guard allows
└── QualityError          the quantized student fails the quality check of the export; exit code 1

The command line exits with 0 after success; with 2 after an error that the user can correct in the call or in the data;
with 1 after a DistributedError, a StorageError, a QualityError or any other error of the operating system; and with
128 + the number of the signal after SIGINT (130), SIGTERM (143) or SIGHUP (129). `predict` and `batch` exit with 3 if
some rows failed, and with 1 if all did.
"""

from __future__ import annotations

import os
from typing import Any, Self

_DETAILS = ("path", "row", "column", "found", "expected", "remedy")


class ReaugkdError(Exception):
    """The base class. An error names the place, what was found, what was expected, and a remedy.

    Args:
        message: the problem, without a full stop.
        path: the file or folder with the problem.
        row: the 1-based row number in that file, with the header counted where there is one.
        column: the name of the column.
        found: the value found (shortened to 80 characters).
        expected: the values expected, in words.
        remedy: how to solve the problem, as a full sentence.

    Attributes:
        exit_code: the exit code of the command line.
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
        """Return a copy with other details: ``path``, ``row``, ``column``, ``found``, ``expected`` or ``remedy``."""
        return type(self)(self.message, **{**{name: getattr(self, name) for name in _DETAILS}, **changes})

    def as_record(self) -> dict[str, object]:
        """Return the error as a JSON object, for streams in which later rows follow a bad one."""
        record: dict[str, object] = {"type": type(self).__name__, "message": self.message}
        record.update((name, getattr(self, name)) for name in _DETAILS if getattr(self, name) is not None)
        return record

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.__dict__.copy()))


def _rebuild(kind: type[ReaugkdError], state: dict[str, object]) -> ReaugkdError:
    """Unpickle an error with its details, which are keyword-only arguments of the constructor."""
    error = kind.__new__(kind)
    error.__dict__.update(state)
    Exception.__init__(error, error._describe())
    return error


def shorten(value: object, limit: int = 80) -> str:
    """Return a string unchanged, or the ``repr`` of another value, cut to ``limit`` characters."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def one_line(text: str) -> str:
    """Replace white space by single spaces, and control characters (escapes, bells) by question marks."""
    return "".join("?" if mark < " " or "\x7f" <= mark <= "\x9f" else mark for mark in " ".join(text.split()))


class UsageError(ReaugkdError, ValueError):
    """An invalid option or argument. Exit code 2."""


class RecipeError(ReaugkdError):
    """An invalid recipe. Exit code 2."""


class DataError(ReaugkdError, ValueError):
    """Rows that cannot be used. Exit code 2."""


class EmptyFileError(DataError):
    """A file has no rows. Exit code 2."""


class ColumnError(DataError):
    """A column is missing or ambiguous. Exit code 2."""


class LabelError(DataError):
    """A label is missing or unknown, or there is only one class. Exit code 2."""


class TextError(DataError):
    """A text is empty, too long, or not UTF-8. Exit code 2."""


class ModelError(ReaugkdError):
    """A teacher or student cannot be loaded. Exit code 2."""


class BundleError(ReaugkdError):
    """A bundle cannot be used. Exit code 2."""


class BundleVersionError(BundleError):
    """The format of a bundle is newer than this version of reaugkd. Exit code 2."""


class BundleIntegrityError(BundleError):
    """A file of a bundle is missing, truncated or altered. Exit code 2."""


class OutputExistsError(ReaugkdError):
    """The output exists already. Exit code 2."""


class DependencyError(ReaugkdError):
    """An optional dependency is not installed. Exit code 2."""


class DistributedError(ReaugkdError):
    """The processes of a training cannot work together: one ended, or they see different files. Exit code 1."""

    exit_code = 1


class HubError(ReaugkdError):
    """The Hugging Face Hub cannot be reached, or refuses a request. Exit code 2."""


class StorageError(ReaugkdError):
    """A file cannot be written: the disk is full or read-only, or permission is missing. Exit code 1."""

    exit_code = 1


class EditRefusedError(ReaugkdError):
    """An edit of the knowledge base changes more predictions than its guard allows. Exit code 2."""


class QualityError(ReaugkdError):
    """The quantized student fails the quality check of the export. Exit code 1."""

    exit_code = 1
