"""A bundle to be edited, as an export with held-out rows leaves it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.heldout_bundle import build_heldout_bundle


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 rows of the labels a, b and c, 90 of them unrelated to the held-out ones; to be copied."""
    return build_heldout_bundle(tmp_path_factory.mktemp("export") / "bundle", rows=120, unrelated=90)


@pytest.fixture
def bundle(export: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    shutil.copytree(export, tmp_path / "bundle")
    return tmp_path / "bundle"
