"""What tests of signatures share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.command_line import ok


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with mine.pem, mine.pub.pem, other.pem and other.pub.pem."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        ok("sign", "--new-key", folder / f"{name}.pem")
    return folder


@pytest.fixture
def signed(edge_bundle: Path, keys: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(edge_bundle, tmp_path / "bundle"))
    ok("sign", path, "--key", keys / "mine.pem")
    return path
