"""NumPy's array files, with a check of type and size before the array is used.

Not `numpy.load`: it also opens archives and pickles, allocates what the shape claims, and ignores bytes behind the
array.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, BundleIntegrityError
from .atomic import atomic_write

_LONGEST_HEADER = 1024  # a table of three columns takes 118 bytes
_HEAD_BYTES = _LONGEST_HEADER + 10  # with what comes before the header
_MOST_DIMENSIONS = 2
_MOST_ROWS = 2**40


def map_npy(path: Path, kinds: Collection[np.dtype[Any]]) -> NDArray[Any]:
    """Map an array file into memory, read only.

    Args:
        path: the file.
        kinds: the allowed types.

    Raises:
        BundleIntegrityError: the file is missing, has another type, or another size than its header says.
    """
    try:
        data: NDArray[np.uint8] = np.memmap(path, np.uint8, "r").view(np.ndarray)
        return array_of(data, kinds)
    except FileNotFoundError as error:
        raise BundleIntegrityError("the file is missing", path=path, expected="a NumPy array") from error
    except (OSError, ValueError) as error:  # ValueError: also an empty file
        raise BundleIntegrityError(
            "the array cannot be read", path=path, found=str(error), remedy="Export the bundle again."
        ) from error


def array_of(data: NDArray[np.uint8], kinds: Collection[np.dtype[Any]]) -> NDArray[Any]:
    """The array in the bytes of a file, as a view of them.

    Raises:
        ValueError: another kind of array, or more or fewer bytes than the header says.
    """
    head = io.BytesIO(data[:_HEAD_BYTES].tobytes())
    try:
        if np.lib.format.read_magic(head) != (1, 0):
            raise ValueError("a header of another version")
        shape, by_columns, kind = np.lib.format.read_array_header_1_0(head, max_header_size=_LONGEST_HEADER)
    except Exception as error:  # invalid bytes raise several kinds of errors, and warnings
        raise ValueError("not a NumPy array of version 1.0") from error
    if kind not in kinds or by_columns:
        raise ValueError(f"an array of {kind.str!r:.80}")
    if len(shape) > _MOST_DIMENSIONS or not all(type(size) is int and 0 <= size <= _MOST_ROWS for size in shape):
        raise ValueError(f"the shape {shape!r:.80}")
    body = data[head.tell() :]
    if math.prod(shape) * kind.itemsize != len(body):
        raise ValueError(f"{len(body)} bytes for {kind} {shape}")
    return body.view(kind).reshape(shape)


def save_npy(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array, atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    header = np.lib.format.header_data_from_array_1_0(array)
    with atomic_write(path, "wb") as file:
        # Not np.save: its OSError does not name a full disk.
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.tobytes())


def misfit(path: Path, found: str, expected: str) -> BundleError:
    """The error for a file that does not match the others."""
    return BundleError(
        "the knowledge base's files do not match each other",
        path=path,
        found=found,
        expected=expected,
        remedy="Export the bundle again.",
    )
