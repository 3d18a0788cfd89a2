"""The ASGI application: from a request to its route, and from an answer or error to the response."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ReaugkdError
from ..runtime.inference.retrieval_policy import RetrievalMode, checked_mode
from ..runtime.inference.session.threads import checked_threads
from .http.access import check_edits, check_key, cors_headers
from .http.errors import HttpError
from .http.messages import CLOSE, Receive, Request, Response, Scope, Send, json_response
from .routes import Route, routes_of
from .service import Service
from .settings import DEADLINE, MOST_BYTES, MOST_TEXTS, QUEUE, ServerSettings, named_bundles

_OTHER = "other"  # the route of unknown paths in the metrics
_log = logging.getLogger("reaugkd.serve")


def create_app(
    bundles: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    *,
    threads: int | None = None,
    retrieval: RetrievalMode = "always",
    queue: int = QUEUE,
    max_batch: int = MOST_TEXTS,
    max_body: int = MOST_BYTES,
    deadline: float = DEADLINE,
    allow_edits: bool = False,
    api_keys: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    require_signature: bytes | str | os.PathLike[str] | None = None,
    follow_links: bool = False,
) -> Application:
    """An ASGI application, for any ASGI server with the lifespan protocol; `reaugkd serve` runs the same one.

    Args:
        bundles: the folder of a bundle, or folders by name; the first one answers requests that name none.
        threads: texts that are answered side by side; None uses every core available to this process.
        retrieval: ``"always"``, ``"gated"`` or ``"never"``, unless a request says it.
        queue: most texts that wait or are answered at one time; further requests get code 429.
        max_batch: most texts of one request.
        max_body: most bytes of one request.
        deadline: most seconds of one request.
        allow_edits: turn the routes below ``/kb`` on; this needs ``api_keys``.
        api_keys: keys, one of which a request must have. Default: every request is answered.
        cors_origins: origins whose pages may read answers in a browser; ``"*"`` for all.
        require_signature: same as `Runtime.open`.
        follow_links: same as `Runtime.open`.

    Raises:
        UsageError: an argument cannot be used. The bundles are opened later, when the ASGI server starts.
    """
    if isinstance(bundles, Mapping):
        named = {name: Path(path) for name, path in bundles.items()}
    else:
        named = named_bundles((os.fspath(bundles),))
    settings = ServerSettings(
        named,
        threads=checked_threads(threads),
        retrieval=checked_mode(retrieval),
        queue=queue,
        max_batch=max_batch,
        max_body=max_body,
        deadline=deadline,
        allow_edits=allow_edits,
        keys=tuple(key.encode() for key in api_keys),
        cors_origins=tuple(cors_origins),
        require_signature=require_signature,
        follow_links=follow_links,
    )
    return Application(Service(settings))


class Application:
    """The ASGI application of a service.

    Args:
        service: it is started and closed by the lifespan protocol; a caller that starts it itself leaves that out.

    Attributes:
        service: same as the argument.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._routes = routes_of(service.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or the messages of the lifespan protocol."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(Request(scope, receive, self.service.settings.max_body), send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self.service.start()
        except ReaugkdError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.service.drain()
        self.service.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, request: Request, send: Send) -> None:
        began = time.perf_counter()
        by_method = self._routes.get(request.path)
        try:
            response = await self._routed(by_method, request)
        except HttpError as error:
            response = json_response(error.record(), error.status, error.headers)
        except Exception:
            _log.exception("%s %r failed", request.method, request.path)
            response = json_response({"error": "internal error: see the log", "error_type": "Backend"}, 500)
        headers = response.headers
        given = _request_id(request)
        if given is not None:
            headers.append((b"x-request-id", given))
        headers += cors_headers(self.service.settings, request)
        if self.service.state == "draining":  # the client comes back with a new connection, and finds another server
            headers.append(CLOSE)
        if response.media is not None:
            headers.append((b"content-type", response.media))
        headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        body = b"" if request.method == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body})
        route = _OTHER if by_method is None else next(iter(by_method.values())).name
        self.service.requests.count(route, response.status, time.perf_counter() - began)

    async def _routed(self, by_method: Mapping[str, Route] | None, request: Request) -> Response:
        if by_method is None:
            raise HttpError(404, f"there is no path {request.path!r}: see /openapi.json", "Validation")
        if request.method == "OPTIONS" and b"origin" in request.headers:  # a browser asks what a page may send
            return Response(status=204, media=None)
        route = by_method.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join(by_method)
            message = f"the path {request.path!r} has no method {request.method}, expected {allowed}"
            raise HttpError(405, message, "Validation", [(b"allow", allowed.encode())])
        if route.access != "public":
            check_key(self.service.settings, request)
        if route.access == "edits":
            check_edits(self.service.settings)
        elif route.access == "texts":
            self.service.check_room()
        if route.query is not None:
            request.check_query(route.query)
        return await route.handler(self.service, request)


def _request_id(request: Request) -> bytes | None:
    """The client's id of the request, if it can be a header of the response."""
    given = request.headers.get(b"x-request-id")
    return given if given and len(given) <= 200 and given.isascii() and given.decode().isprintable() else None
