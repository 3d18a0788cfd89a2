"""Held-out rows in a bundle: what its student says of rows that the teacher's fit and the distillation have not seen.

A numpy archive without pickles, `heldout.npz`, of

    logits      float16 [n, c], the student's, not tempered
    queries     float16 [n, d], its embeddings
    gold        int32 [n], the labels' indices
    groups      int32 [n], alike for related rows, which a cross-validation must not tear apart
    unrelated   how many rows of the knowledge base, the first ones, know nothing of these

By default the held-out rows end up in the knowledge base too, last. A row that may find itself, or a paraphrase of
itself, proves nothing: measure on the first ``unrelated`` rows.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, BundleIntegrityError
from ..kb.files import atomic_write

HELDOUT_FILE = "heldout.npz"
MOST_ROWS = 1000
"""That are kept: for 77 classes and 128 dimensions 0.4 MB."""


@dataclass(frozen=True)
class HeldOutRows:
    """n labelled rows as a student answers them.

    Attributes:
        logits: float32 [n, c].
        queries: float32 [n, d].
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
        np.savez(
            packed,
            logits=self.logits.astype(np.float16),
            queries=self.queries.astype(np.float16),
            gold=self.gold.astype(np.int32),
            groups=self.groups.astype(np.int32),
            unrelated=np.int64(self.unrelated),
        )
        with atomic_write(folder / HELDOUT_FILE, "wb") as file:
            file.write(packed.getvalue())

    @classmethod
    def open(cls, folder: Path, num_labels: int, ndim: int) -> HeldOutRows:
        """Read those of a bundle.

        Args:
            folder: the bundle's.
            num_labels: c.
            ndim: d.

        Raises:
            BundleError: it holds none, or what it holds does not fit together.
            BundleIntegrityError: they cannot be read.
        """
        path = folder / HELDOUT_FILE
        if not path.is_file():
            raise BundleError(
                "the bundle holds no held-out rows to measure on", path=path, remedy="Export the bundle again."
            )
        try:
            with np.load(path, allow_pickle=False) as archive:
                found = {name: archive[name] for name in ("logits", "queries", "gold", "groups", "unrelated")}
        except (ValueError, KeyError, EOFError, OSError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise BundleIntegrityError(
                "the held-out rows cannot be read", path=path, found=str(error), remedy="Export the bundle again."
            ) from error
        rows = len(np.atleast_1d(found["gold"]))
        shapes = {
            "logits": (rows, num_labels),
            "queries": (rows, ndim),
            "gold": (rows,),
            "groups": (rows,),
            "unrelated": (),
        }
        gold = found["gold"]
        if {name: value.shape for name, value in found.items()} != shapes or not (
            (gold >= 0) & (gold < num_labels)
        ).all():
            raise BundleError(
                "the held-out rows do not fit the bundle",
                path=path,
                found=", ".join(f"{name} {value.shape}" for name, value in found.items()),
                expected=f"rows of {num_labels} logits and {ndim} dimensions, with their labels",
            )
        return cls(
            found["logits"].astype(np.float32),
            found["queries"].astype(np.float32),
            found["gold"].astype(np.int64),
            found["groups"].astype(np.int64),
            int(found["unrelated"]),
        )
