"""The files of a knowledge base beside its index: written atomically, mapped into memory, their shapes checked."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, BundleIntegrityError
from .files import atomic_write
from .npy_file import map_npy
from .text_digests import BYTES, DIGESTS_FILE, TextDigests


def save_npy(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array, atomically.

    Raises:
        StorageError: the disk refused.
    """
    header = np.lib.format.header_data_from_array_1_0(array)
    with atomic_write(path, "wb") as file:
        # Not np.save: on a full disk it raises an OSError that does not say so.
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.tobytes())


def open_texts(path: Path, size: int) -> bytes | mmap.mmap:
    """Map the rows' texts into memory.

    Args:
        path: of the file.
        size: its bytes; for 0 there is no file.

    Raises:
        BundleIntegrityError: it is missing.
        BundleError: it has another size.
    """
    if size == 0:
        return b""
    if not path.is_file():
        raise BundleIntegrityError("the file is missing", path=path, expected=f"{size} bytes of texts")
    found = path.stat().st_size
    if found != size:
        raise misfit(path, f"{found} bytes", f"{size} as in the row table")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def open_digests(folder: Path, rows: int) -> TextDigests | None:
    """The digests of the rows' texts; None where there are none.

    Raises:
        BundleIntegrityError: they cannot be read.
        BundleError: they are of another number of rows.
    """
    path = folder / DIGESTS_FILE
    if not path.exists():
        return None
    table = map_npy(path, (np.dtype(np.uint8),))
    expected = f"uint8 ({rows + 1}, {BYTES})"
    try:
        digests = TextDigests(table)
    except ValueError as error:
        raise misfit(path, str(error), expected) from error
    if len(digests) != rows:
        raise misfit(path, f"uint8 {table.shape}", expected)
    return digests


def misfit(path: Path, found: str, expected: str) -> BundleError:
    """The complaint about a file that does not fit the others."""
    return BundleError(
        "the knowledge base's files do not fit each other",
        path=path,
        found=found,
        expected=expected,
        remedy="Export the bundle again.",
    )
