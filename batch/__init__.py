"""Batch prediction: `Predictor` for a data engine, and the job of `reaugkd batch` (extra ``batch``; Ray: ``ray``)."""

from __future__ import annotations

from ..errors import DependencyError

try:
    import pyarrow  # noqa: F401
except ModuleNotFoundError as error:
    raise DependencyError(
        "batch prediction needs pyarrow",
        found=f"no module {error.name!r}",
        remedy="Install it: pip install 'reaugkd[batch]'.",
    ) from error

from .predictor import Predictor

__all__ = ["Predictor"]
