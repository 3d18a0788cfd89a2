"""HTTP: bundles answer the requests of existing clients. `create_app` makes an ASGI application."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .application import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> object:
    # On first use: the process that starts workers must not load onnxruntime, whose threads a fork would lose.
    if name != "create_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .application import create_app

    return create_app
