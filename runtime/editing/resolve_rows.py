"""What edits of texts come to: which rows are new, which are there already, which take another's place."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...errors import LabelError, ReaugkdError, UsageError
from ...kb.edits.change import Change, Labelling, NewRow, Payload, Relabelling
from ...kb.edits.overlay import OverlayKnowledgeBase
from ..inference.inputs import Text
from .edit import Row

Floats = NDArray[np.float32]

_SAME_TEXT = 0.99  # the least cosine between a text and its own row
_SAME_KEY = {"i8": 0.9985}  # the same, where texts are not kept and keys have to tell; of other types
_SAME_KEY_EXACT = 0.9999
_LOOK_AT = 8  # rows, for one with the same text


@dataclass
class ChangeBuilder:
    """A change that is being put together.

    Attributes:
        labels: names that are new.
        add: rows.
        remove: ids of rows whose place others take.
        relabel: of rows.
        ids: of the rows that texts lead to, in their order.
        unchanged: rows that say already what they should.
    """

    labels: list[str] = field(default_factory=list)
    add: list[NewRow] = field(default_factory=list)
    remove: list[int] = field(default_factory=list)
    relabel: list[Relabelling] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    unchanged: int = 0

    def change(self) -> Change:
        """As an edit makes it."""
        return Change(tuple(self.labels), tuple(self.add), tuple(self.remove), relabel=tuple(self.relabel))

    def label(self, kb: OverlayKnowledgeBase, row: int, labelling: Labelling) -> None:
        """Give a row that is there another labelling, if it is another."""
        row_id, old = kb.id(row), kb.labelling(row)
        self.ids.append(row_id)
        if old.like(labelling):
            self.unchanged += 1
        else:
            self.relabel.append(Relabelling(row_id, old, labelling))

    def text(self, kb: OverlayKnowledgeBase, text: Text, labelling: Labelling, key: Floats, next_id: int) -> None:
        """Let a text be answered with a labelling.

        A row with this text that the text finds gets it. One that the text does not find, as the teacher made its key,
        makes place for a new one.

        Args:
            kb: as it is.
            text: the text.
            labelling: what its row says.
            key: the student's, float32 [d].
            next_id: the first id that is free, of rows added before this plan.
        """
        same = rows_with(kb, text)
        near, cosines = kb.search(key, _LOOK_AT)
        found = {int(row) for row, cosine in zip(near, cosines, strict=True) if cosine >= _SAME_TEXT}
        there = next((row for row in reversed(same) if row in found), None)
        if not (kb.keeps_texts or kb.digests is not None):
            least = _SAME_KEY.get(kb.config.dtype, _SAME_KEY_EXACT)
            alike = [int(row) for row, cosine in zip(near, cosines, strict=True) if cosine >= least and kb.pins[row]]
            there = max(alike, default=None)
        if there is not None:
            self.label(kb, there, labelling)
            return
        self.remove += [kb.id(row) for row in same]
        digest = None if kb.digests is None else kb.digests.of_text(text)
        payload = Payload.of(key, text if kb.keeps_texts else None, kb.config.dtype, digest)
        self.add.append(NewRow.of(next_id + len(self.add), labelling, payload))
        self.ids.append(self.add[-1].id)


def rows_with(kb: OverlayKnowledgeBase, text: Text) -> list[int]:
    """The rows with this text; none where texts are not kept."""
    return kb.rows_of(text) if kb.keeps_texts or kb.digests is not None else []


def found_with(kb: OverlayKnowledgeBase, text: Text) -> list[int]:
    """`rows_with`, of which there has to be one.

    Raises:
        UsageError: there is none.
    """
    rows = rows_with(kb, text)
    if not rows:
        raise UsageError(
            "no row has this text",
            found=str(text),
            expected="the text of a row, where the knowledge base keeps texts",
            remedy="`reaugkd predict --explain --format jsonl` shows the rows that are near a text, and their ids.",
        )
    return rows


def ids_with_label(kb: OverlayKnowledgeBase, label: str) -> list[int]:
    """The ids of the rows with a gold label.

    Raises:
        LabelError: there is no such label.
    """
    if label not in kb.labels:
        raise unknown_label(label, kb.labels)
    number = kb.labels.index(label)
    return [kb.id(int(row)) for row in np.flatnonzero(kb.alive & (kb.gold() == number))]


def checked_ids(ids: Iterable[int]) -> list[int]:
    """Ids as whole numbers.

    Raises:
        UsageError: one is none.
    """
    try:
        return [operator.index(row_id) for row_id in ids]
    except TypeError as error:
        raise UsageError("an id is no whole number", found=str(error)) from error


def checked_texts(texts: Sequence[Text]) -> Sequence[Text]:
    """Several texts.

    Raises:
        UsageError: it is one.
    """
    if isinstance(texts, str):
        raise UsageError("one text is no list of texts", found=texts, remedy="Put it into a list.")
    return texts


def distinct(rows: Sequence[Row], known: Sequence[str], new_labels: bool) -> list[tuple[Row, Labelling]]:
    """Rows and what they say, without those that say the same twice.

    Args:
        rows: what to add.
        known: labels.
        new_labels: whether other labels may be meant.

    Raises:
        LabelError: a label is not known, or one text has two.
        UsageError: a row has no label, or shares that are no distribution.
    """
    first: dict[Text, tuple[int, Labelling]] = {}
    kept = []
    for number, row in enumerate(rows, 1):
        labelling = labelling_of(row, known, new_labels, number if len(rows) > 1 else None)
        place, former = first.setdefault(row.text, (number, labelling))
        if not labelling.like(former):
            raise LabelError(
                f"a text has two labels, the other one in row {place}",
                row=number,
                found=f"{labelling.names} and {former.names}",
                expected="one label a text",
            )
        if place == number:
            kept.append((row, labelling))
    return kept


def labelling_of(row: Row, known: Sequence[str], new_labels: bool, number: int | None = None) -> Labelling:
    """What a row will say.

    Args:
        row: it.
        known: labels.
        new_labels: whether other labels may be meant.
        number: of the row, for messages.

    Raises:
        LabelError: a label is not known.
        UsageError: no label, or shares that are no distribution.
    """
    try:
        labelling = row.labelling
    except ReaugkdError as error:
        raise error.at(row=number) from error
    for name in labelling.names:
        if name not in known and not new_labels:
            raise unknown_label(name, known, number)
    return labelling


def new_names(labellings: Iterable[Labelling], known: Sequence[str]) -> list[str]:
    """The labels that are new, in their order."""
    return list(dict.fromkeys(name for labelling in labellings for name in labelling.names if name not in known))


def unknown_label(name: str, known: Sequence[str], row: int | None = None) -> LabelError:
    """The complaint about a label that is not known."""
    close = difflib.get_close_matches(name, known, 1)
    return LabelError(
        "a label is not known",
        row=row,
        found=name,
        expected=f"{close[0]!r}, perhaps" if close else "one of the labels",
        remedy="If it is meant as a new label, say so: new_labels=True, or --new-labels.",
    )


def rows_of_mapping(rows: Mapping[int, object] | Mapping[Text, object]) -> list[tuple[int | Text, Row]]:
    """Ids or texts, and what their rows shall say.

    Raises:
        UsageError: a key is neither.
    """
    found: list[tuple[int | Text, Row]] = []
    for key, label in rows.items():
        row = Row("", None, label) if isinstance(label, Mapping) else Row("", label)  # type: ignore[arg-type]
        found.append((key if isinstance(key, str | tuple) else checked_ids([key])[0], row))
    return found
