"""Hide exporters' warnings about tracing and deprecations, which do not help a user."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Show only errors of torch's exporter, optimum and ONNX Runtime's tools."""
    loggers = [logging.getLogger(name) for name in ("optimum", "onnxruntime", "root", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
