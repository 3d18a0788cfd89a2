"""Servers in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.http_client import Client, serving


@pytest.fixture(scope="session")
def known_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with thresholds for abstention; read-only."""
    from support.heldout_bundle import add_abstention, build_heldout_bundle

    return add_abstention(build_heldout_bundle(tmp_path_factory.mktemp("served") / "known", rows=120, unrelated=90))


@pytest.fixture(scope="module")
def client(known_bundle: Path, pair_bundle: Path) -> Iterator[Client]:
    """A client of a server of two bundles; the first one reads single texts."""
    with serving({"known": known_bundle, "pairs": pair_bundle}) as one:
        yield one
