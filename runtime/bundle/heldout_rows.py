"""Held-out rows in a bundle: the student's outputs for rows that neither teacher nor student was trained on.

`heldout.npz` is a numpy archive without pickles:

    logits      float16 [n, c], the student's logits, without temperature
    queries     float16 [n, d], the student's embeddings
    gold        int32 [n], label indices
    groups      int32 [n], the same number for related rows, which are not independent
    unrelated   int64, the number of rows of the knowledge base, its first ones, that are unrelated to the held-out rows

By default the held-out rows are the last rows of the knowledge base. A row that retrieves itself or a paraphrase
measures nothing: measure on the first ``unrelated`` rows.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, BundleIntegrityError
from ...kb.storage.atomic import atomic_write
from ...kb.storage.npy import array_of

HELDOUT_FILE = "heldout.npz"
MOST_ROWS = 1000
"""The largest number of rows stored: 0.4 MB for 77 classes and 128 dimensions."""

_TYPES = {"logits": np.float16, "queries": np.float16, "gold": np.int32, "groups": np.int32, "unrelated": np.int64}
_NUMBERS = [
    np.dtype(kind) for kind in "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8".split()
]  # `_misfit` checks which of them fits
_HEADERS = 8192  # largest size of the five arrays' headers in bytes


@dataclass(frozen=True)
class HeldOutRows:
    """The student's outputs for n labelled held-out rows.

    Attributes:
        logits: float32 [n, c].
        queries: float32 [n, d], of length 1.
        gold: int64 [n], label indices.
        groups: int64 [n], the same number for related rows.
        unrelated: the number of rows of the knowledge base, its first ones, that are unrelated to these.
    """

    logits: NDArray[np.float32]
    queries: NDArray[np.float32]
    gold: NDArray[np.int64]
    groups: NDArray[np.int64]
    unrelated: int

    def __len__(self) -> int:
        return len(self.gold)

    def some(self, most: int = MOST_ROWS) -> HeldOutRows:
        """At most ``most`` of the rows, evenly spaced."""
        rows = np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(np.int64)
        return HeldOutRows(self.logits[rows], self.queries[rows], self.gold[rows], self.groups[rows], self.unrelated)

    def save(self, folder: Path) -> None:
        """Write the rows into a bundle's folder.

        Raises:
            StorageError: the file cannot be written.
        """
        packed = io.BytesIO()
        arrays = {name: np.asarray(getattr(self, name), kind) for name, kind in _TYPES.items()}
        np.savez(packed, allow_pickle=False, **arrays)
        with atomic_write(folder / HELDOUT_FILE, "wb") as file:
            file.write(packed.getvalue())

    @classmethod
    def open(cls, folder: Path, num_labels: int, ndim: int, kb_rows: int) -> HeldOutRows:
        """Read the held-out rows of a bundle.

        Args:
            folder: the bundle's folder.
            num_labels: c.
            ndim: d.
            kb_rows: rows of the knowledge base.

        Raises:
            BundleError: the bundle has no held-out rows, or they do not fit it.
            BundleIntegrityError: they cannot be read.
        """
        path = folder / HELDOUT_FILE
        if not path.is_file():
            raise BundleError(
                "the bundle has no held-out rows",
                path=path,
                remedy="A condensed bundle has none: use the bundle that it was made from. Export an old bundle again.",
            )
        try:
            found = _read(path, num_labels, ndim)
        # For a damaged archive, numpy, zipfile, zlib and the header's parser raise a dozen kinds of errors.
        except Exception as error:
            raise BundleIntegrityError(
                "the held-out rows cannot be read", path=path, found=str(error), remedy="Export the bundle again."
            ) from error
        if (misfit := _misfit(found, num_labels, ndim, kb_rows)) is not None:
            raise BundleError(
                "the held-out rows do not fit the bundle",
                path=path,
                found=misfit,
                expected=f"rows of {num_labels} logits and {ndim} dimensions, with their labels",
                remedy="Export the bundle again.",
            )
        queries = found["queries"].astype(np.float32)
        return cls(
            found["logits"].astype(np.float32),
            queries / np.linalg.norm(queries, axis=1, keepdims=True),
            found["gold"].astype(np.int64),
            found["groups"].astype(np.int64),
            int(found["unrelated"]),
        )


def _read(path: Path, num_labels: int, ndim: int) -> dict[str, NDArray[Any]]:
    import zipfile  # here: it takes 3 ms with its compression modules, and few programs need it

    most = MOST_ROWS * (2 * num_labels + 2 * ndim + 8) + _HEADERS
    # Checked before reading and before unpacking: an archive can claim terabytes.
    if (size := path.stat().st_size) > most:
        raise ValueError(f"{size:,} bytes")
    with zipfile.ZipFile(path) as archive:
        if (size := sum(entry.file_size for entry in archive.infolist())) > most:
            raise ValueError(f"{size:,} bytes")
        content = {name: np.frombuffer(archive.read(f"{name}.npy"), np.uint8) for name in _TYPES}
    return {name: _array(name, data) for name, data in content.items()}


def _array(name: str, data: NDArray[np.uint8]) -> NDArray[Any]:
    try:
        return array_of(data, _NUMBERS)
    except ValueError as error:
        raise ValueError(f"{name} is not an array: {error}") from error


def _misfit(found: dict[str, NDArray[Any]], num_labels: int, ndim: int, kb_rows: int) -> str | None:
    """The first part that does not fit, in words; None if all parts fit."""
    rows = found["gold"].size
    shapes = {"logits": (rows, num_labels), "queries": (rows, ndim), "gold": (rows,), "groups": (rows,)}
    for name, kind in _TYPES.items():
        if found[name].dtype != kind or found[name].shape != shapes.get(name, ()):
            return f"{name} {found[name].dtype} {found[name].shape}"
    if not np.isfinite(found["logits"]).all():
        return "logits that are not finite"
    lengths = np.linalg.norm(found["queries"].astype(np.float64), axis=1)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        return "queries without a direction"
    if rows and not 0 <= found["gold"].min() <= found["gold"].max() < num_labels:
        return "labels out of range"
    if not 0 <= found["unrelated"] <= kb_rows:
        return f"{found['unrelated']} of {kb_rows} rows unrelated to them"
    return None
