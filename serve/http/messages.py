"""Requests and responses over ASGI: bodies are JSON and bounded in size and time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from .errors import HttpError, invalid

try:
    import orjson
except ModuleNotFoundError:  # without the extra serve-fast
    orjson = None  # type: ignore[assignment]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

READ_SECONDS = 30.0
"""Most seconds for the head of a request, and again for its body."""

CLOSE = (b"connection", b"close")

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass
class Response:
    """A response; its length is added when it is sent."""

    body: bytes = b""
    status: int = 200
    media: bytes | None = b"application/json"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


def json_response(value: object, status: int = 200, headers: Headers = ()) -> Response:
    """A value as JSON in UTF-8; half a surrogate pair becomes an escape."""
    return Response(_encoded(value), status, headers=list(headers))


def _encoded(value: object) -> bytes:
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:  # half a surrogate pair, or a whole number above 64 bits
            pass
    return _encoder.encode(value).encode("utf-8", "backslashreplace")


class Request:
    """A request.

    Args:
        scope: of ASGI.
        receive: of ASGI.
        max_body: most bytes of the body.

    Attributes:
        method: in upper case.
        path: decoded, without the query.
        headers: by name in lower case; of repeated ones the last.
    """

    def __init__(self, scope: Scope, receive: Receive, max_body: int) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._query: bytes = scope["query_string"]
        self._receive, self._max_body = receive, max_body

    def query(self, name: str) -> str | None:
        """A value of the query, the last of repeated ones."""
        found = parse_qs(self._query.decode("latin-1"), keep_blank_values=True).get(name)
        return None if found is None else found[-1]

    def check_query(self, expected: Sequence[str]) -> None:
        """Check that the query has no other names: a misspelt one must not be ignored.

        Raises:
            HttpError: it has one.
        """
        for name in parse_qs(self._query.decode("latin-1"), keep_blank_values=True):
            if name not in expected:
                known = f"expected {', '.join(expected)}" if expected else "expected none: values are in the body"
                message = f"Input validation error: the query has the unknown name {name!r:.80}, {known}"
                raise HttpError(422, message, "Validation")

    async def json(self) -> dict[str, Any]:
        """The body, a JSON object.

        Raises:
            HttpError: it is not declared as JSON, too large, too slow, not JSON, or not an object.
        """
        media = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media != b"application/json":
            found = media.decode("latin-1") or "none"
            raise HttpError(415, f"expected the header Content-Type: application/json, found {found}", "Validation")
        body = await self._body()
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise HttpError(400, f"the body is not JSON: {reason}", "Validation") from error
        if not isinstance(value, dict):
            raise invalid(f"the body must be a JSON object, found {type(value).__name__}")
        return value

    async def _body(self) -> bytes:
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared[:20]) > self._max_body:
            raise self._too_large(f"{declared.decode()} bytes")
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(READ_SECONDS):
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise HttpError(400, "the connection ended within the body", "Validation", (CLOSE,))
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._max_body:
                        raise self._too_large(f"more than {self._max_body} bytes")
                    more = message.get("more_body", False)
        except TimeoutError:
            late = f"the body did not arrive within {READ_SECONDS:g} seconds"
            raise HttpError(408, late, "Validation", (CLOSE,)) from None
        return b"".join(parts)

    def _too_large(self, found: str) -> HttpError:
        return HttpError(413, f"the body has {found}, allowed are {self._max_body} bytes", "Validation", (CLOSE,))
