"""Resolve the texts and ids of an edit to rows: new rows, stored rows, and rows that replace others."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import LabelError, ReaugkdError, UsageError
from ...kb.edits.change import Change, Labelling, NewRow, Payload, Relabelling
from ...kb.edits.overlay import OverlayKnowledgeBase
from ..inference.text.inputs import Text
from ..labels import LabelNames
from .edit import Row

Floats = NDArray[np.float32]

_SAME_TEXT = 0.99  # least cosine between a text and its own row
# The same where no texts are kept, so that keys alone identify a row.
_SAME_KEY = {"i8": 0.9985}
_SAME_KEY_EXACT = 0.9999
_CANDIDATES = 8  # nearest rows among which a row with the same text is looked for


@dataclass
class ChangeBuilder:
    """A change under construction.

    Attributes:
        labels: names of new labels.
        add: new rows.
        remove: ids of rows that new ones replace.
        relabel: rows that change their label.
        ids: ids of the rows of all given texts, in their order.
        unchanged: number of rows that have the label already.
    """

    labels: list[str] = field(default_factory=list)
    add: list[NewRow] = field(default_factory=list)
    remove: list[int] = field(default_factory=list)
    relabel: list[Relabelling] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    unchanged: int = 0
    _given: dict[int, Labelling] = field(default_factory=dict)

    def change(self) -> Change:
        """The finished change; a row that a new one replaces is not relabelled as well."""
        removed = set(self.remove)
        relabel = tuple(row for row in self.relabel if row.id not in removed)
        return Change(tuple(self.labels), tuple(self.add), tuple(self.remove), relabel=relabel)

    def label(self, kb: OverlayKnowledgeBase, row: int, labelling: Labelling) -> None:
        """Change the labelling of a stored row, unless it has that labelling already.

        Raises:
            UsageError: the change gives the row another labelling too.
        """
        row_id, old = kb.id(row), kb.labelling(row)
        if not self._first(row_id, labelling):
            return
        self.ids.append(row_id)
        if old.like(labelling):
            self.unchanged += 1
        else:
            self.relabel.append(Relabelling(row_id, old, labelling))

    def text(self, kb: OverlayKnowledgeBase, text: Text, labelling: Labelling, key: Floats, next_id: int) -> None:
        """Change the knowledge base so that a text is predicted with a labelling.

        A stored row with this text is relabelled if a search with the text finds it. Otherwise (the teacher made its
        key, for example) a new row replaces it.

        Args:
            kb: the knowledge base before the edit.
            text: the text.
            labelling: the labelling of the text's row.
            key: the student's key of the text, float32 [d].
            next_id: the first free id before this change.

        Raises:
            UsageError: the change gives the text's row another labelling too.
        """
        same = rows_with(kb, text)
        near, cosines = kb.search(key, _CANDIDATES)
        found = {int(row) for row, cosine in zip(near, cosines, strict=True) if cosine >= _SAME_TEXT}
        there = next((row for row in reversed(same) if row in found), None)
        if not (kb.keeps_texts or kb.digests is not None):
            least = _SAME_KEY.get(kb.config.dtype, _SAME_KEY_EXACT)
            alike = [int(row) for row, cosine in zip(near, cosines, strict=True) if cosine >= least and kb.pins[row]]
            there = max(alike, default=None)
        if there is not None:
            self.label(kb, there, labelling)
            return
        ids = [kb.id(row) for row in same]
        for row_id in ids:
            self._first(row_id, labelling)
        self.remove += ids
        digest = None if kb.digests is None else kb.digests.of_text(text)
        payload = Payload.of(key, text if kb.keeps_texts else None, kb.config.dtype, digest)
        self.add.append(NewRow.of(next_id + len(self.add), labelling, payload))
        self.ids.append(self.add[-1].id)

    def _first(self, row_id: int, labelling: Labelling) -> bool:
        """Note the labelling of a row; False if it was given before.

        Raises:
            UsageError: it was given with another labelling.
        """
        former = self._given.setdefault(row_id, labelling)
        if not former.like(labelling):
            raise UsageError(
                "a row is given two labels",
                found=f"row {row_id}: {former.names} and {labelling.names}",
                expected="one label for each row",
            )
        return former is labelling


def rows_with(kb: OverlayKnowledgeBase, text: Text) -> list[int]:
    """The numbers of the rows with this text; empty where texts are not kept."""
    return kb.rows_of(text) if kb.keeps_texts or kb.digests is not None else []


def found_with(kb: OverlayKnowledgeBase, text: Text) -> list[int]:
    """`rows_with`, at least one.

    Raises:
        UsageError: no row has this text.
    """
    rows = rows_with(kb, text)
    if not rows:
        raise UsageError(
            "no row has this text",
            found=str(text),
            expected="the text of a row of a knowledge base that keeps texts",
            remedy="`reaugkd predict --explain --format jsonl` lists the rows near a text with their ids.",
        )
    return rows


def ids_with_label(kb: OverlayKnowledgeBase, label: str) -> list[int]:
    """The ids of the rows with a gold label.

    Raises:
        LabelError: the label is unknown.
    """  # noqa: DOC501
    name = LabelNames(kb.labels).read(label)
    if name not in kb.labels:
        raise unknown_label(label, kb.labels)
    number = kb.labels.index(name)
    return [kb.id(int(row)) for row in np.flatnonzero(kb.alive & (kb.gold() == number))]


def checked_rows(
    texts: Row | Text | Iterable[Row | Text], label: str | None, soft: Mapping[str, float] | None
) -> list[Row]:
    """The rows to add.

    Args:
        texts: one or several texts, pairs or rows.
        label: the label of the texts.
        soft: label names and shares of the texts.

    Raises:
        UsageError: a value of the wrong type, or a `Row` beside ``label`` or ``soft``.
    """
    if label is not None and not isinstance(label, str):
        raise UsageError("label is unusable", found=repr(label), expected="the name of a label")
    rows = []
    for number, item in enumerate(_items("texts", texts, "a text, a pair, a Row, or a list of them"), 1):
        if isinstance(item, Row):
            if label is not None or soft is not None:
                raise UsageError(
                    "label and soft are for texts",
                    row=number,
                    found="a Row",
                    expected="a text, or a Row without label and soft beside it",
                )
            rows.append(item)
        elif isinstance(item, str) or (isinstance(item, tuple) and all(isinstance(part, str) for part in item)):
            rows.append(Row(item, label, soft))
        else:
            raise UsageError("a row is unusable", row=number, found=repr(item), expected="a text, a pair or a Row")
    return rows


def checked_ids(ids: Iterable[int]) -> list[int]:
    """Ids of rows as whole numbers.

    Raises:
        UsageError: a value of another type, or one value instead of several.
    """
    return [_checked_id(row_id) for row_id in _several("ids", ids, "a list of ids")]


def checked_texts(texts: Iterable[Text]) -> list[Text]:
    """Texts and pairs.

    Raises:
        UsageError: a value of another type, or one text instead of several.
    """
    found = _several("texts", texts, "a list of texts")
    for text in found:
        pair = isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text)
        if not isinstance(text, str) and not pair:
            raise UsageError("a text is unusable", found=repr(text), expected="a text, or a pair of texts")
    return found


def checked_labels(labels: Iterable[str]) -> list[str]:
    """Names of labels.

    Raises:
        UsageError: a value of another type, or one name instead of several.
    """
    found = _several("labels", labels, "a list of labels")
    for label in found:
        if not isinstance(label, str):
            raise UsageError("a label is unusable", found=repr(label), expected="the name of a label")
    return found


def _checked_id(value: object) -> int:
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise UsageError("an id is unusable", found=repr(value), expected="a whole number")


def _several(name: str, values: Any, expected: str) -> list[Any]:
    """Return the values of an iterable.

    Raises:
        UsageError: ``values`` is a single value.
    """
    if isinstance(values, str | bytes | Mapping | Row) or not isinstance(values, Iterable):
        raise UsageError(f"{name} is unusable", found=repr(values), expected=expected, remedy="Put it into a list.")
    return list(values)


def _items(name: str, values: Any, expected: str) -> list[Any]:
    """One value, or the values of an iterable; a tuple of strings is a pair, which is one value."""
    one = isinstance(values, tuple) and bool(values) and all(isinstance(part, str) for part in values)
    return [values] if isinstance(values, Row | str) or one else _several(name, values, expected)


def distinct(rows: Sequence[Row], known: LabelNames, new_labels: bool) -> list[tuple[Row, Labelling]]:
    """The rows with their labellings, without repeated ones.

    Args:
        rows: the rows to add.
        known: the known labels.
        new_labels: whether unknown labels are allowed.

    Raises:
        LabelError: a label is unknown, or one text has two labels.
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
                expected="one label for each text",
            )
        if place == number:
            kept.append((row, labelling))
    return kept


def labelling_of(row: Row, known: LabelNames, new_labels: bool, number: int | None = None) -> Labelling:
    """The labelling of a row; its label names are read as those of a data set are (`LabelNames`).

    Args:
        row: the row.
        known: the known labels.
        new_labels: whether unknown labels are allowed.
        number: the number of the row, for messages.

    Raises:
        LabelError: a label is unknown.
        UsageError: no label, or shares that are no distribution.
    """  # noqa: DOC501
    try:
        labelling = _with_read_names(row, known).labelling
    except ReaugkdError as error:
        raise error.at(row=number) from error
    for name in labelling.names:
        if name not in known.names and not new_labels:
            raise unknown_label(name, sorted(known.names), number)
    return labelling


def _with_read_names(row: Row, known: LabelNames) -> Row:
    """Return the row with its label names read; values of the wrong type are left to the later checks.

    Raises:
        UsageError: a soft label names a label twice.
    """
    label, soft = row.label, row.soft
    if isinstance(label, str):
        label = known.read(label)
    if isinstance(soft, Mapping) and all(isinstance(name, str) for name in soft):
        names = {name: known.read(name) for name in soft}
        if len(set(names.values())) < len(names):
            raise UsageError("a soft label names a label twice", found=repr(dict(soft)), expected="each label once")
        soft = {names[name]: share for name, share in soft.items()}
    return replace(row, label=label, soft=soft)


def new_names(labellings: Iterable[Labelling], known: Sequence[str]) -> list[str]:
    """The names of the unknown labels, in their order."""
    return list(dict.fromkeys(name for labelling in labellings for name in labelling.names if name not in known))


def unknown_label(name: str, known: Sequence[str], row: int | None = None) -> LabelError:
    """The error for an unknown label."""
    close = difflib.get_close_matches(name, known, 1)
    return LabelError(
        "the label is unknown",
        row=row,
        found=name,
        expected=f"{close[0]!r}, perhaps" if close else "one of the labels",
        remedy="To add a new label, give new_labels=True, or --new-labels.",
    )


def rows_of_mapping(rows: Mapping[Any, object]) -> list[tuple[int | Text, Row]]:
    """Ids or texts, and the new labels of their rows.

    Raises:
        UsageError: no mapping, a key that is neither an id nor a text, or a value that is neither a label nor shares.
    """
    if not isinstance(rows, Mapping):
        raise UsageError("rows is unusable", found=repr(rows), expected="a mapping of ids or texts to labels")
    found: list[tuple[int | Text, Row]] = []
    for key, label in rows.items():
        if not isinstance(label, str | Mapping):
            expected = "the name of a label, or a mapping of labels to shares"
            raise UsageError("a row's new label is unusable", found=repr(label), expected=expected)
        row = Row("", None, label) if isinstance(label, Mapping) else Row("", label)
        found.append((checked_texts([key])[0] if isinstance(key, str | tuple) else _checked_id(key), row))
    return found
