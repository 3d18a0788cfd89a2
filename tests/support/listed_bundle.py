"""A tiny bundle with inverted lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reaugkd.kb.index.lists import LISTS_FILE, Lists
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.runtime.bundle.bundle import Bundle
from support.tiny_bundle import build_tiny_bundle, reseal

ROOM = 8


def build_listed_bundle(path: Path, rows: int = 120, probes: int | None = None, **options: Any) -> Path:
    """`build_tiny_bundle` with keys of int8 in lists of `ROOM`.

    Args:
        path: where to.
        rows: rows of the knowledge base.
        probes: lists to search; all unless given.
        options: same as `build_tiny_bundle`.
    """
    build_tiny_bundle(path, rows=rows, dtype="i8", reduce_range=True, **options)
    return add_lists(path, probes)


def add_lists(path: Path, probes: int | None = None) -> Path:
    """Add lists to a bundle without edits."""
    manifest = Bundle.open(path).manifest
    kb = KnowledgeBase.open(path / "kb", manifest.kb, len(manifest.labels))
    table = Lists.build(kb.keys(), ROOM).table
    Lists(table, probes or len(table)).save(path / "kb" / LISTS_FILE)
    reseal(path)
    return path
