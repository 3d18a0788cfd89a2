"""Who may do what: keys, edits, and pages of other origins."""

from __future__ import annotations

import hmac

from ..settings import ServerSettings
from .errors import HttpError
from .messages import Headers, Request

_LOCAL = (b"localhost", b"127.0.0.1", b"[::1]")


def check_key(settings: ServerSettings, request: Request) -> None:
    """Check the key of a request, if the server has keys; where edits need none, check that no foreign page sent it.

    Raises:
        HttpError: the key is missing or wrong, or a page of another origin may have sent the request.
    """
    if not settings.keys:
        if settings.allow_edits:
            _check_local(request)
        return
    scheme, _, given = request.headers.get(b"authorization", b"").partition(b" ")
    # Every key is compared, so that the time says nothing about the position of the right one.
    right = [hmac.compare_digest(given.strip(), key) for key in settings.keys]
    if scheme.lower() != b"bearer" or not any(right):
        found = "another key" if given else "no key"
        message = f"expected the header Authorization: Bearer KEY, found {found}"
        raise HttpError(401, message, "Unauthorized", [(b"www-authenticate", b"Bearer")])


def check_edits(settings: ServerSettings) -> None:
    """Check that edits are on.

    Raises:
        HttpError: they are off.
    """
    if not settings.allow_edits:
        raise HttpError(403, "edits are off: start the server with --allow-edits", "Unauthorized")


def _check_local(request: Request) -> None:
    """Check that no page of a stranger made a browser send the request.

    Such a page can use a name of its own for this machine (DNS rebinding), which the Host header has; or the name of
    this machine, and then the browser says where the page is from.

    Raises:
        HttpError: a page may have sent it.
    """
    host = request.headers.get(b"host", b"").lower()
    name = host if host.endswith(b"]") else host.rpartition(b":")[0] or host
    if name not in _LOCAL:
        shown = host.decode("latin-1")
        message = f"without a key, this server needs a Host header with localhost or 127.0.0.1, found {shown!r}"
        raise HttpError(403, message, "Unauthorized")
    origin = request.headers.get(b"origin", b"http://" + host).lower()
    site = request.headers.get(b"sec-fetch-site", b"none").lower()
    if origin != b"http://" + host or site not in (b"none", b"same-origin"):
        message = (
            "without a key, this server answers no pages of other origins: open its own page, or start it with keys"
        )
        raise HttpError(403, message, "Unauthorized")


def cors_headers(settings: ServerSettings, request: Request) -> Headers:
    """The headers that let a page of an allowed origin read the response; none for other origins."""
    origin = request.headers.get(b"origin")
    if origin is None or not settings.cors_origins:
        return ()
    if "*" not in settings.cors_origins and origin.decode("latin-1") not in settings.cors_origins:
        return ()
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"authorization, content-type"),
        (b"access-control-expose-headers", b"retry-after, server-timing, x-request-id, x-truncated"),
        (b"access-control-max-age", b"600"),
        (b"vary", b"origin"),
    )
