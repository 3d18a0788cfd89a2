"""State, description and metrics of the server."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy
import onnxruntime

from ... import __version__
from ..http.errors import unhealthy
from ..http.messages import Request, Response, json_response
from ..service import Service

_OPENAPI = Path(__file__).parent.parent / "openapi.json"


async def health(service: Service, _request: Request) -> Response:
    """Readiness: whether the server answers texts, and is not about to end.

    Raises:
        HttpError: it does not.
    """
    if service.state != "ready":
        raise unhealthy(service.state)
    return Response(media=None)


async def livez(_service: Service, _request: Request) -> Response:
    """Liveness: the event loop runs."""
    return Response(media=None)


async def metrics(service: Service, _request: Request) -> Response:
    """The counts of all workers in Prometheus's text format."""
    return Response(service.metrics().encode(), media=b"text/plain; version=0.0.4; charset=utf-8")


async def openapi(_service: Service, _request: Request) -> Response:
    """The description of all routes."""
    return Response(_description())


@cache
def _description() -> bytes:
    return _OPENAPI.read_bytes()


async def info(service: Service, request: Request) -> Response:
    """The keys of text-embeddings-inference, and those of this package below ``reaugkd``."""
    settings = service.settings
    with service.bundle(request.query("model")).use() as opened:
        runtime = opened.main
        labels, manifest = runtime.labels, runtime.manifest
        value: dict[str, Any] = {
            "model_id": opened.name,
            "model_sha": opened.seal,
            "model_dtype": "int8" if manifest.quantization.get("kind", "none") != "none" else "float32",
            "served_model_name": opened.name,
            "model_type": {
                "classifier": {
                    "id2label": {str(number): label for number, label in enumerate(labels)},
                    "label2id": {label: number for number, label in enumerate(labels)},
                }
            },
            "max_concurrent_requests": settings.queue,
            "max_input_length": manifest.max_length,
            "max_batch_tokens": manifest.max_length,
            "max_batch_requests": 1,
            "max_client_batch_size": settings.max_batch,
            "auto_truncate": True,
            "tokenization_workers": settings.threads,
            "version": __version__,
            "sha": None,
            "docker_label": None,
            "reaugkd": {
                "models": {name: bundle.current.model for name, bundle in service.bundles.items()},
                "seal": opened.seal,
                "text_pair": manifest.text_pair,
                "rows": len(runtime.knowledge_base),
                "edits": runtime.kb.seq,
                "allow_edits": settings.allow_edits,
                "retrieval": runtime.retrieval,
                "search": runtime.search,
                "gate": runtime.gate is not None,
                "abstention": manifest.abstention is not None,
                "max_body": settings.max_body,
                "versions": {
                    "reaugkd": __version__,
                    "onnxruntime": onnxruntime.__version__,
                    "numpy": numpy.__version__,
                },
                "exported_with": dict(manifest.versions),
            },
        }
    return json_response(value)
