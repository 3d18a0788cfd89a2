"""Files get the mode that the umask leaves, whatever the library that wrote them chose."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import ok

from reaugkd.kb.storage.atomic import atomic_directory, atomic_write


def modes(folder: Path) -> dict[str, int]:
    """The permissions of every file below a folder, by its path there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in files}


@pytest.fixture(params=[0o022, 0o027, 0o002, 0o077])
def allowed(request: pytest.FixtureRequest) -> Iterator[int]:
    """Sets a umask for the test; the mode of a file under it."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def private(path: Path) -> None:
    """A file as `tempfile` or safetensors make it: readable by its owner alone."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def test_of_a_folder(tmp_path: Path, allowed: int) -> None:
    private(tmp_path / "another")
    with atomic_directory(tmp_path / "new") as temporary:
        (temporary / "deep").mkdir()
        private(temporary / "deep" / "weights")
        (temporary / "plain").touch()
        os.link(tmp_path / "another", temporary / "linked")
        (temporary / "link").symlink_to(tmp_path / "another")
    found = modes(tmp_path)
    assert found["new/deep/weights"] == found["new/plain"] == allowed
    assert found["another"] == found["new/linked"] == 0o600  # another folder's file keeps its mode


def test_of_a_file(tmp_path: Path, allowed: int) -> None:
    with atomic_write(tmp_path / "new") as file:
        file.write("text")
    assert modes(tmp_path) == {"new": allowed}


def test_of_edits_and_predictions(bundle: Path, tmp_path: Path, allowed: int) -> None:
    before = modes(bundle)
    ok("kb", "add", bundle, "jazz at noon", "--label", "a")
    ok("kb", "compact", bundle)
    ok("predict", bundle, "noon", "--output", tmp_path / "out" / "o.txt", "--stats", tmp_path / "out" / "s.json")
    found = {name: mode for name, mode in modes(bundle).items() if name not in before} | modes(tmp_path / "out")
    assert len(found) > 6 and set(found.values()) == {allowed}
