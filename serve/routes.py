"""All routes: path, method, who may use it, and the function that answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal, NamedTuple

from .http.messages import Request, Response
from .page import files
from .protocols import edits, health, huggingface, native, open_inference, tei, vllm
from .service import Service
from .settings import ServerSettings

Access = Literal["public", "key", "texts", "edits"]
"""Who may use a route: everybody, clients with a key where the server has keys, those where the queue is not full, or
those who may edit too."""

Handler = Callable[[Service, Request], Awaitable[Response]]


class Route(NamedTuple):
    """A route.

    Attributes:
        name: its path for the metrics and the description, with ``{name}`` for the name of a model.
        access: who may use it.
        handler: it answers.
        query: the names that its query may have; None for any.
    """

    name: str
    access: Access
    handler: Handler
    query: tuple[str, ...] | None = None


_ROUTES: tuple[tuple[str, str, Access, Handler], ...] = (
    ("GET", "/", "public", files.root),
    ("POST", "/", "texts", huggingface.classify),
    ("GET", "/health", "public", health.health),
    ("GET", "/ping", "public", health.health),
    ("GET", "/livez", "public", health.livez),
    ("GET", "/metrics", "public", health.metrics),
    ("GET", "/openapi.json", "public", health.openapi),
    ("GET", "/info", "key", health.info),
    ("POST", "/predict", "texts", tei.predict),
    ("POST", "/classify", "texts", vllm.classify),
    ("POST", "/v1/classify", "texts", vllm.classify),
    ("POST", "/v1/predict", "texts", native.predict),
    ("GET", "/v2", "public", open_inference.server),
    ("GET", "/v2/health/live", "public", open_inference.live),
    ("GET", "/v2/health/ready", "public", open_inference.ready),
    ("POST", "/kb/add", "edits", edits.add),
    ("POST", "/kb/remove", "edits", edits.remove),
    ("POST", "/kb/relabel", "edits", edits.relabel),
    ("POST", "/kb/undo", "edits", edits.undo),
    ("GET", "/kb/log", "edits", edits.log),
    ("GET", "/kb/review", "edits", edits.review_labels),
    ("GET", "/kb/rows", "edits", edits.rows),
    ("POST", "/kb/suggest", "edits", edits.suggest_texts),
    *(("GET", path, "public", files.file) for path in files.FILES),
)

_QUERIES: dict[str, tuple[str, ...]] = {
    "/v1/predict": (),
    **dict.fromkeys(("/kb/add", "/kb/remove", "/kb/relabel", "/kb/undo", "/kb/suggest"), ()),
    "/kb/log": ("model", "last"),
    "/kb/review": ("model", "below"),
    "/kb/rows": ("model", "q", "label", "offset"),
}
"""The queries of this package's own routes. Clients of the other protocols may add names of their own."""

_MODEL_ROUTES: tuple[tuple[str, str, Access, Callable[..., Awaitable[Response]]], ...] = (
    ("POST", "/models/{name}", "texts", huggingface.classify),
    ("GET", "/v2/models/{name}", "key", open_inference.model),
    ("GET", "/v2/models/{name}/ready", "public", open_inference.model_ready),
    ("POST", "/v2/models/{name}/infer", "texts", open_inference.infer),
)


def routes_of(settings: ServerSettings) -> dict[str, dict[str, Route]]:
    """The routes of a server: by path, then by method."""
    found: dict[str, dict[str, Route]] = {}
    for method, path, access, handler in _ROUTES:
        found.setdefault(path, {})[method] = Route(path, access, handler, _QUERIES.get(path))
    for method, path, access, of_model in _MODEL_ROUTES:
        for name in settings.bundles:
            handler = partial(of_model, name=name)
            found.setdefault(path.format(name=name), {})[method] = Route(path, access, handler)
    return found
