"""`GET /` for browsers, and the files of the page.

The page uses the same routes as every other client. Its policy lets the browser load scripts and styles of this server
only, and refuses every text as markup (Trusted Types), so that a text or label with tags in it stays a text.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ...runtime import report
from ..http.messages import Request, Response
from ..protocols.health import health
from ..service import Service

_FOLDER = Path(__file__).parent
_STYLE = Path(report.__file__).parent / "style.css"  # the page and the report look the same
_POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "connect")),
        "img-src data:",
        *(f"{name} 'none'" for name in ("base-uri", "form-action", "frame-ancestors")),
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
)
_TYPES = {".html": b"text/html", ".css": b"text/css", ".js": b"text/javascript"}

FILES = {
    "/page/report.css": _STYLE,
    **{f"/page/{path.name}": path for path in sorted(_FOLDER.iterdir()) if path.suffix in (".css", ".js")},
}
"""The page's styles and scripts by path."""


async def root(service: Service, request: Request) -> Response:
    """The page for clients that ask for HTML, readiness for others."""
    if b"text/html" in request.headers.get(b"accept", b""):
        response = _response(_FOLDER / "index.html")
    else:
        response = await health(service, request)
    response.headers.append((b"vary", b"accept"))
    return response


async def file(_service: Service, request: Request) -> Response:
    """A style or script of the page."""
    return _response(FILES[request.path])


def _response(path: Path) -> Response:
    return Response(_read(path), media=_TYPES[path.suffix] + b"; charset=utf-8", headers=list(_HEADERS))


@cache
def _read(path: Path) -> bytes:
    return path.read_bytes()
