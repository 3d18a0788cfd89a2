"""Data sets: texts, labels, and the source and row number of each row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...errors import LabelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SPLIT_NAMES = ("train", "dev", "test")
UNSEEN = -1
"""The class index of a label that is not one of the classes."""


@dataclass(frozen=True)
class Columns:
    """The columns to read, by their exact names in the source; None = detected. And how its text is encoded.

    Attributes:
        text: the column of the text, or of the first text of a pair.
        pair: the column of the second text of a pair. If ``text`` is given and this is None, rows are single texts.
        label: the column of the label.
        encoding: the encoding of a text file without a byte order mark, such as ``cp1252``; None = UTF-8.
    """

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class Split:
    """Rows of one split, in the order of the source.

    Attributes:
        texts: the texts, exactly as in the source (never empty, at most 1,000,000 characters each).
        pairs: the second texts, or None for single texts.
        labels: the labels, with one spelling of each (`LabelNames`), or None for an unlabelled split.
        source: the name of the file, for messages.
        rows: the 1-based row numbers in the source, with the header counted where there is one.
        label_column: the name of the label column, for messages.
        notes: what the user must know of how the rows were read, each in one sentence.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[str] | None
    source: str
    rows: list[int]
    label_column: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("pairs", "labels", "rows"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.texts):
                raise ValueError(f"{len(self.texts)} texts, but {len(column)} {name}")

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> Split:
        """Return the rows at ``indices`` (0-based, in that order) as a new split of the same source."""
        chosen = [int(index) for index in indices]
        return replace(
            self,
            texts=[self.texts[index] for index in chosen],
            pairs=None if self.pairs is None else [self.pairs[index] for index in chosen],
            labels=None if self.labels is None else [self.labels[index] for index in chosen],
            rows=[self.rows[index] for index in chosen],
        )

    def inputs(self) -> list[str | tuple[str, str]]:
        """Return the texts as inputs of the runtime: a string, or a tuple of two for a pair."""
        if self.pairs is None:
            return list(self.texts)
        return list(zip(self.texts, self.pairs, strict=True))


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        name: the name of the task, folder or file.
        splits: ``"train"``, ``"dev"`` and ``"test"``, those that exist; all single texts or all pairs.
        label_names: the classes in a fixed order: as the source names them, else in numeric order if every label is a
            whole number, else in lexicographic order. Rows of dev and test can have other labels, which count as wrong.
        notes: what the user must know of how the data was read, each in one sentence.
    """

    name: str
    splits: dict[str, Split]
    label_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def text_pair(self) -> bool:
        """Whether the rows are pairs of texts."""
        return any(split.pairs is not None for split in self.splits.values())


def label_indices(split: Split, label_names: Sequence[str], *, unseen: bool = False) -> npt.NDArray[np.int64]:
    """Return the labels of a split as class indices.

    Args:
        split: rows with labels.
        label_names: the classes, in order.
        unseen: allow labels that are not among the classes; their index is ``UNSEEN``.

    Returns:
        int64 [n], the position of each row's label in ``label_names``.

    Raises:
        LabelError: the split has no labels, or a row's label is not one of ``label_names``; it names the row.
    """
    import numpy as np  # here, because the command line imports this package for the help of its options

    if split.labels is None:
        raise LabelError(
            "the rows have no labels",
            path=split.source,
            expected="a label for every row",
            remedy="Use a labelled split, or name its column with --label-column.",
        )
    positions = {name: position for position, name in enumerate(label_names)}
    found = [positions.get(label, UNSEEN) for label in split.labels]
    if UNSEEN in found and not unseen:
        row = found.index(UNSEEN)
        raise LabelError(
            "unknown label",
            path=split.source,
            row=split.rows[row],
            column=split.label_column,
            found=repr(split.labels[row]),
            expected=one_of(label_names),
            remedy="Correct or drop the row, or train on data with this class.",
        )
    return np.asarray(found, dtype=np.int64)


def sort_labels(labels: Collection[str]) -> tuple[str, ...]:
    """Sort labels: in numeric order if every label is a whole number, else in lexicographic order."""
    if all(_is_whole(label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _is_whole(label: str) -> bool:
    digits = label.removeprefix("-")
    return digits.isascii() and digits.isdigit()


def one_of(names: Sequence[str], limit: int = 8) -> str:
    """Return the first names in words, for messages."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return f"one of {shown}" + (f" and {len(names) - limit} more" if len(names) > limit else "")
