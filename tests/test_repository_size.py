"""Git keeps every version of a file for ever: large results and models belong outside the repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE_BYTES = 500_000
CHECKOUT_BYTES = 4_000_000
LARGER_FILES: frozenset[str] = frozenset()
"""Files that need more than ``FILE_BYTES``."""


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    """The bytes of each file that git tracks or would add."""
    if not (ROOT / ".git").exists():
        pytest.skip("the sources are no git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return {name: (ROOT / name).stat().st_size for name in names}


def test_files_are_small(sizes: dict[str, int]) -> None:
    assert {name for name, size in sizes.items() if size > FILE_BYTES} == LARGER_FILES


def test_the_checkout_is_small(sizes: dict[str, int]) -> None:
    assert sum(sizes.values()) < CHECKOUT_BYTES
