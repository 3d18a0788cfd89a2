"""SIGKILL at every system call of every edit: the old or the new state, and no acknowledged edit is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import system_calls as systemcalls
from support.paths import SUPPORT
from support.tiny_bundle import build_tiny_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("kills") / "bundle", rows=12)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory if possible, because a killed process loses no written data."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("operation", "step"),
    [
        ("first", 1),
        ("add", 1),
        ("remove", 1),
        ("relabel", 1),
        ("fit", 1),
        ("compact", 7),
        ("again", 13),
    ],  # `make kills` has all
)
def test_a_killed_edit_was_made_or_not(bundle: Path, folder: Path, operation: str, step: int) -> None:
    if not (sys.platform == "linux" and systemcalls.available()):
        pytest.skip("this machine does not let a process trace its child")
    command = [sys.executable, str(SUPPORT / "kills.py"), str(bundle), str(folder), operation, str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == []
    # Both ends are seen, so that the kills do fall before and after the moment in which the edit is made.
    assert found["ends"]["old"] > 5 and found["ends"]["new"] > 1
    assert found["kills"] > 40
