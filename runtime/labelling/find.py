"""Stored rows by a part of their text and by their label."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import LabelError
from ..runtime import Runtime
from .stored_rows import stored_rows

MOST = 50
"""Rows that are found at one time."""


@dataclass(frozen=True)
class StoredRow:
    """A row of the knowledge base.

    Attributes:
        id: its permanent id.
        text: its text or pair; None if texts are not kept.
        label: its gold label; the most probable one of its soft label if it has none.
        edited: whether an edit gave it its label.
    """

    id: int
    text: str | tuple[str, str] | None
    label: str
    edited: bool


@dataclass(frozen=True)
class FoundRows:
    """The result of a search for stored rows.

    Attributes:
        rows: the rows, in the order in which they were added.
        next: where the search goes on; None if there are no more rows.
        of: number of all stored rows.
    """

    rows: tuple[StoredRow, ...]
    next: int | None
    of: int


def find_rows(
    runtime: Runtime, part: str = "", label: str | None = None, offset: int = 0, most: int = MOST
) -> FoundRows:
    """Find stored rows; the texts are read one after another until enough are found.

    Args:
        runtime: the open bundle; its knowledge base is read in its current state.
        part: a part of the text, in upper or lower case; "" for all.
        label: the label; None for all.
        offset: where to begin: 0, or `FoundRows.next` of the search before.
        most: number of rows to find.

    Raises:
        LabelError: the label is unknown.
    """
    now = runtime._current()  # one state: an edit between two calls could end a label that rows have
    kb, labels = now.kb, now.labels
    if label is not None and label not in labels:
        raise LabelError("the label is unknown", found=repr(label), expected="a label of the bundle")
    wanted = None if label is None else labels.index(label)
    rows, gold, pins = stored_rows(kb), kb.gold(), kb.pins
    part, found = part.casefold(), list[StoredRow]()
    for place in range(offset, len(rows)):
        row = int(rows[place])
        own = int(gold[row]) if gold[row] >= 0 else int(kb.soft_labels[row].argmax())
        if wanted is not None and own != wanted:
            continue
        text = kb.text(row)
        if part and not any(part in one.casefold() for one in ((text,) if isinstance(text, str) else text or ())):
            continue
        if len(found) == most:
            return FoundRows(tuple(found), place, len(rows))
        found.append(StoredRow(kb.id(row), text, labels[own], pins is not None and bool(pins[row])))
    return FoundRows(tuple(found), None, len(rows))
