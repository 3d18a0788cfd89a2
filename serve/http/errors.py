"""Errors as responses: one JSON shape, with the codes and types of text-embeddings-inference.

{"error": "`inputs` cannot be empty", "error_type": "Empty"}
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ...errors import (
    BundleError,
    DependencyError,
    EditRefusedError,
    ModelError,
    ReaugkdError,
    StorageError,
    TextError,
    one_line,
)

ErrorType = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty", "Unauthorized"]
"""The types of text-embeddings-inference, and Unauthorized."""


class HttpError(Exception):
    """An error that the client gets.

    Args:
        status: the code.
        message: for a person.
        error_type: for a program.
        headers: further headers of the response.
    """

    def __init__(
        self, status: int, message: str, error_type: ErrorType, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(message)
        self.status, self.error_type, self.headers = status, error_type, list(headers)

    def record(self) -> dict[str, str]:
        """The JSON body."""
        return {"error": str(self), "error_type": self.error_type}


def invalid(message: str) -> HttpError:
    """The error for a value that cannot be used."""
    return HttpError(422, f"Input validation error: {message}", "Validation")


def empty(field: str = "inputs") -> HttpError:
    """The error for a request without a text in this field."""
    return HttpError(400, f"Input validation error: `{field}` cannot be empty", "Empty")


def unhealthy(state: str) -> HttpError:
    """The error of a server that does not answer texts now."""
    return HttpError(503, f"unhealthy: {state}", "Unhealthy", [(b"retry-after", b"1")])


def overloaded() -> HttpError:
    """The error of a full queue."""
    return HttpError(429, "Model is overloaded", "Overloaded", [(b"retry-after", b"1")])


def too_late(seconds: float, consequence: str = "") -> HttpError:
    """The error of a request that took too long."""
    return HttpError(504, f"no answer within the deadline of {seconds:g} seconds{consequence}", "Overloaded")


def of_error(error: ReaugkdError, place: str = "") -> HttpError:
    """An error of this package as a response, without paths of this machine.

    Args:
        error: the error.
        place: which of several texts it is about.
    """
    message = one_line(str(error.at(path=None)))
    if isinstance(error, TextError):
        if error.message == "the text is empty":
            return empty() if not place else HttpError(400, f"Input validation error: {place}: {message}", "Empty")
        return invalid(f"{place}: {message}" if place else message)
    if isinstance(error, EditRefusedError):
        return HttpError(409, message, "Validation")
    if isinstance(error, StorageError):
        return HttpError(507, message, "Backend")
    if isinstance(error, BundleError | ModelError | DependencyError):
        return HttpError(424, f"Backend error: {message}", "Backend")
    return invalid(message)
