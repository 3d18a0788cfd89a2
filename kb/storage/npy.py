"""NumPy's array files, their header read with bounds before a byte of the array is looked at.

`numpy.load` believes a header: it allocates or maps what the shape claims, and can be asked for pickles. Here the
header is short, names one of the expected kinds of numbers, and its shape must fill the file to the last byte.
"""

from __future__ import annotations

import ast
import math
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, BundleIntegrityError
from .atomic import atomic_write

_MAGIC = b"\x93NUMPY\x01\x00"
_LONGEST_HEADER = 1024  # a table of three columns takes 118 bytes
_KEYS = {"descr", "fortran_order", "shape"}
_MOST_DIMENSIONS = 2
_MOST_ROWS = 2**40


def map_npy(path: Path, kinds: Collection[np.dtype[Any]]) -> NDArray[Any]:
    """Map an array file into memory, read only.

    Args:
        path: the file.
        kinds: what the array may be of.

    Raises:
        BundleIntegrityError: the file is missing, no array of such a kind, or of another size than its header says.
    """
    try:
        data: NDArray[np.uint8] = np.memmap(path, np.uint8, "r").view(np.ndarray)
        return array_of(data, kinds)
    except FileNotFoundError as error:
        raise BundleIntegrityError("the file is missing", path=path, expected="a NumPy array") from error
    except (OSError, ValueError) as error:  # ValueError: also for an empty file
        raise BundleIntegrityError(
            "the array cannot be read", path=path, found=str(error), remedy="Export the bundle again."
        ) from error


def array_of(data: NDArray[np.uint8], kinds: Collection[np.dtype[Any]]) -> NDArray[Any]:
    """The array in the bytes of a file: a view of them.

    Raises:
        ValueError: they are none of such a kind, or more or fewer than the header says.
    """
    head = data[: len(_MAGIC) + 2].tobytes()
    if len(head) < len(_MAGIC) + 2 or not head.startswith(_MAGIC):
        raise ValueError("no NumPy array of version 1.0")
    (size,) = struct.unpack_from("<H", head, len(_MAGIC))
    begin = len(head) + size
    if size > _LONGEST_HEADER or begin > len(data):
        raise ValueError(f"a header of {size} bytes")
    kind, shape = _read_header(data[len(head) : begin].tobytes().decode("latin-1"), kinds)
    if math.prod(shape) * kind.itemsize != len(data) - begin:
        raise ValueError(f"{len(data) - begin} bytes for {kind} {shape}")
    return data[begin:].view(kind).reshape(shape)


def _read_header(text: str, kinds: Collection[np.dtype[Any]]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    try:
        header = ast.literal_eval(text.strip())
    # Of nonsense it raises half a dozen kinds of errors, warnings that were made errors among them.
    except Exception as error:
        raise ValueError("a header that is none") from error
    if not isinstance(header, dict) or set(header) != _KEYS or header["fortran_order"] is not False:
        raise ValueError("a header that is none")
    described = [kind for kind in kinds if np.lib.format.dtype_to_descr(kind) == header["descr"]]
    if not described:
        raise ValueError(f"an array of {header['descr']!r:.80}")
    shape = header["shape"]
    whole = isinstance(shape, tuple) and all(type(size) is int and 0 <= size <= _MOST_ROWS for size in shape)
    if not whole or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"the shape {shape!r:.80}")
    return described[0], shape


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


def misfit(path: Path, found: str, expected: str) -> BundleError:
    """The complaint about a file that does not fit the others."""
    return BundleError(
        "the knowledge base's files do not fit each other",
        path=path,
        found=found,
        expected=expected,
        remedy="Export the bundle again.",
    )
