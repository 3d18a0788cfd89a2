"""An environment in which usearch cannot be imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from reaugkd.kb.index import usearch_import


@contextmanager
def without_usearch() -> Iterator[None]:
    """Make every import of usearch fail in this block; an index that is open already keeps it."""
    missing = mock.Mock(side_effect=ModuleNotFoundError("No module named 'usearch'"))
    with mock.patch.object(usearch_import, "_compiled", missing):
        usearch_import.available.cache_clear()
        try:
            yield
        finally:
            usearch_import.available.cache_clear()
