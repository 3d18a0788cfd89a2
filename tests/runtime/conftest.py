"""What tests of runtimes share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.tiny_bundle import build_tiny_bundle

from reaugkd import Runtime


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def runtime(path: Path) -> Iterator[Runtime]:
    with Runtime.open(path) as opened:
        yield opened
