"""The file of a fitted classifier of new labels, `classifier-N.npy`: float32 [c, d + 2].

Each row has the weights of a label, its bias (-inf for a label without rows) and its shift (0 for a label that the
student knows). N is the number of the edit whose rows it was fitted to. The journal's entry has the file's SHA-256.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleIntegrityError
from ..linear_classifier import LinearClassifier
from ..storage.atomic import sha256_file
from ..storage.npy import array_of, save_npy

_NAME = re.compile(r"classifier-([1-9][0-9]{0,18})\.npy")


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """A classifier and the edit that it belongs to.

    Attributes:
        seq: number of the last edit before the fit.
        classifier: the classifier of all labels, without the shift.
        shift: float32 [c], added to the logits: the same number for each new label, 0 for the others.
    """

    seq: int
    classifier: LinearClassifier
    shift: NDArray[np.float32]

    @cached_property
    def shifted(self) -> LinearClassifier:
        """The classifier with the shift, which answers texts."""
        return LinearClassifier(self.classifier.weights, self.classifier.bias + self.shift)

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"classifier-{self.seq}.npy"

    def save(self, folder: Path) -> str:
        """Write the file; returns its SHA-256.

        Raises:
            StorageError: the file cannot be written.
        """
        made = self.classifier
        save_npy(folder / self.name, np.concatenate([made.weights, np.stack([made.bias, self.shift], 1)], 1))
        return sha256_file(folder / self.name)


def seq_of(name: str) -> int | None:
    """The number in the name of a classifier's file; None for another file."""
    found = _NAME.fullmatch(name)
    return None if found is None else int(found[1])


def read_classifier(path: Path, digest: str, labels: int, ndim: int) -> FittedClassifier:
    """Read a file.

    Args:
        path: the file, of a name that `seq_of` accepts.
        digest: its SHA-256.
        labels: number of labels of the knowledge base; the classifier may have fewer.
        ndim: d.

    Raises:
        BundleIntegrityError: it is missing or altered, or is no classifier for such keys.
    """  # noqa: DOC501
    seq = seq_of(path.name)
    if seq is None:
        raise _refused(path, "another name")
    most = 4 * labels * (ndim + 2) + 1024
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise _refused(path, str(error.strerror)) from error
    if len(data) > most or hashlib.sha256(data).hexdigest() != digest:
        raise _refused(path, "another SHA-256")
    try:
        table: NDArray[np.float32] = array_of(np.frombuffer(data, np.uint8), [np.dtype("<f4")])
    except ValueError as error:
        raise _refused(path, str(error)) from error
    if table.ndim != 2 or table.shape[1] != ndim + 2 or not 0 < len(table) <= labels:
        raise _refused(path, f"an array of {table.shape}")
    weights, bias, shift = np.ascontiguousarray(table[:, :-2]), table[:, -2].copy(), table[:, -1].copy()
    if (
        not (np.isfinite(weights).all() and np.isfinite(shift).all())
        or np.isnan(bias).any()
        or bias.max() == np.inf
        or bias.max() == -np.inf
    ):
        raise _refused(path, "values that are not finite")
    return FittedClassifier(seq, LinearClassifier(weights, bias), shift)


def _refused(path: Path, found: str) -> BundleIntegrityError:
    return BundleIntegrityError(
        "the classifier of new labels is damaged",
        path=path,
        found=found,
        expected="the file that was written",
        remedy="Restore it from a copy of the bundle.",
    )
