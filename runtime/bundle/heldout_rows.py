"""Held-out rows in a bundle: what its student says of rows that the teacher's fit and the distillation have not seen.

A numpy archive without pickles, `heldout.npz`, of

    logits      float16 [n, c], the student's, not tempered
    queries     float16 [n, d], its embeddings
    gold        int32 [n], the labels' indices
    groups      int32 [n], alike for related rows, which are no independent witnesses
    unrelated   int64, how many rows of the knowledge base, the first ones, know nothing of these

By default the held-out rows end up in the knowledge base too, last. A row that may find itself, or a paraphrase of
itself, proves nothing: measure on the first ``unrelated`` rows.
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
"""That are kept: for 77 classes and 128 dimensions 0.4 MB."""

_TYPES = {"logits": np.float16, "queries": np.float16, "gold": np.int32, "groups": np.int32, "unrelated": np.int64}
_NUMBERS = [
    np.dtype(kind) for kind in "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8".split()
]  # what of them is right is asked later
_HEADERS = 8192  # bytes at most, of the five arrays


@dataclass(frozen=True)
class HeldOutRows:
    """n labelled rows as a student answers them.

    Attributes:
        logits: float32 [n, c].
        queries: float32 [n, d], of length 1.
        gold: int64 [n].
        groups: int64 [n].
        unrelated: the first so many rows of the knowledge base know nothing of these.
    """

    logits: NDArray[np.float32]
    queries: NDArray[np.float32]
    gold: NDArray[np.int64]
    groups: NDArray[np.int64]
    unrelated: int

    def __len__(self) -> int:
        return len(self.gold)

    def some(self, most: int = MOST_ROWS) -> HeldOutRows:
        """At most so many of them, evenly spaced."""
        rows = np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(np.int64)
        return HeldOutRows(self.logits[rows], self.queries[rows], self.gold[rows], self.groups[rows], self.unrelated)

    def save(self, folder: Path) -> None:
        """Write them into a bundle's folder.

        Raises:
            StorageError: the disk refused.
        """
        packed = io.BytesIO()
        arrays = {name: np.asarray(getattr(self, name), kind) for name, kind in _TYPES.items()}
        np.savez(packed, allow_pickle=False, **arrays)
        with atomic_write(folder / HELDOUT_FILE, "wb") as file:
            file.write(packed.getvalue())

    @classmethod
    def open(cls, folder: Path, num_labels: int, ndim: int, kb_rows: int) -> HeldOutRows:
        """Read those of a bundle.

        Args:
            folder: the bundle's.
            num_labels: c.
            ndim: d.
            kb_rows: rows of the knowledge base.

        Raises:
            BundleError: it holds none, or what it holds does not fit the bundle.
            BundleIntegrityError: they cannot be read.
        """
        path = folder / HELDOUT_FILE
        if not path.is_file():
            raise BundleError(
                "the bundle holds no held-out rows to measure on",
                path=path,
                remedy="A compacted bundle has none: take the one it was made from. Export an older one again.",
            )
        try:
            found = _read(path, num_labels, ndim)
        # Of a damaged archive numpy, zipfile, zlib and the header's parser raise a dozen kinds of errors.
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
    import zipfile  # not at the top: with the compressions that it knows it takes 3 ms, and few readers come here

    most = MOST_ROWS * (2 * num_labels + 2 * ndim + 8) + _HEADERS
    # Before anything is read, and then before it is unpacked: an archive can claim terabytes.
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
        raise ValueError(f"{name} is no array: {error}") from error


def _misfit(found: dict[str, NDArray[Any]], num_labels: int, ndim: int, kb_rows: int) -> str | None:
    """What does not fit, in words."""
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
