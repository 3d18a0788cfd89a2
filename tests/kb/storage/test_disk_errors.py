"""Errors of the disk become StorageError; other errors pass through."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from reaugkd.errors import StorageError
from reaugkd.kb.storage.atomic import atomic_directory


def failing(out: Path, *files: Path | None) -> None:
    """Raise the error of a full disk for these files inside the block."""
    with atomic_directory(out) as folder:
        paths = [str(file if file is None or file.is_absolute() else folder / file) for file in files]
        raise OSError(errno.ENOSPC, "No space left on device", *paths[:1], *([None] if paths[1:] else []), *paths[1:])


def test_a_copy_into_the_folder_names_its_source_first(tmp_path: Path) -> None:
    for files in ((), (Path("part"),), (tmp_path / "source", Path("part"))):
        with pytest.raises(StorageError, match="no part of the output was left") as caught:
            failing(tmp_path / "out", *files)
        assert caught.value.path == str(tmp_path / "out") and caught.value.found == "No space left on device"
        assert list(tmp_path.iterdir()) == []


def test_other_errors_pass_through(tmp_path: Path) -> None:
    for files in ((tmp_path / "other",), (tmp_path / "one", tmp_path / "two")):
        with pytest.raises(OSError, match="No space left") as caught:
            failing(tmp_path / "out", *files)
        assert not isinstance(caught.value, StorageError)
    with pytest.raises(FileNotFoundError), atomic_directory(tmp_path / "out") as folder:
        shutil.copyfile(tmp_path / "missing", folder / "copy")
    assert list(tmp_path.iterdir()) == []
