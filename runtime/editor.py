"""Editing a bundle's knowledge base: rows come as texts and labels, keys are made by the student on the spot.

A row of one label that is added or changed by an edit is pinned: its text is answered with its label from then on
(`blend.blend_edited`), and texts near it are answered with it as one neighbour more.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import EditRefusedError, LabelError, UsageError
from ..kb.change import Change, NewRow, Payload, Relabelling
from ..kb.edited import EditedKnowledgeBase
from ..kb.journal import Entry
from .differences import Difference, differences
from .edit import Edit, How, Row
from .novelty import odds
from .preview import Preview, preview
from .replay import Verified, verify
from .store import KnowledgeStore
from .student import StudentSession
from .text import Text, checked_input
from .tokenizer import TextTokenizer
from .writer import KnowledgeWriter

_SAME_TEXT = 0.99  # the least cosine between keys of one text
_LOOK_AT = 8  # rows, for one with the same text
_FOLD_SHARE, _FOLD_ROWS = 0.2, 256  # edited rows, of all and at least, from which on edits are folded in


_PLAINLY = How()


@dataclass
class _Plan:
    """A change that is being put together."""

    labels: list[str] = field(default_factory=list)
    add: list[NewRow] = field(default_factory=list)
    remove: list[int] = field(default_factory=list)
    relabel: list[Relabelling] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    unchanged: int = 0

    def change(self) -> Change:
        return Change(tuple(self.labels), tuple(self.add), tuple(self.remove), relabel=tuple(self.relabel))


class KnowledgeEditor:
    """Edits the knowledge base of an open runtime; every runtime that has the bundle open answers with it from then on.

    Args:
        store: of the bundle.
        tokenizer: its.
        student: its, which makes keys.
    """

    def __init__(self, store: KnowledgeStore, tokenizer: TextTokenizer, student: StudentSession) -> None:
        self._store, self._tokenizer, self._student = store, tokenizer, student

    def add(self, rows: Row | Text | Iterable[Row | Text], label: str | None = None, how: How = _PLAINLY) -> Edit:
        """Add rows; one whose text is there already gets the new label in place of its old one.

        Args:
            rows: one or several, `Row` or texts.
            label: of the texts.
            how: as of `How`.

        Example:
            >>> runtime.kb.add("where is my parcel", "delivery", How(why="a customer's complaint"))

        Raises:
            LabelError: a label is not known, or two rows give one text two labels.
            TextError: a text cannot be answered.
            EditRefusedError: the guard refuses.
            UsageError: a row without a label, shares that are no distribution, or somebody else is editing.
            StorageError: the disk refused; nothing is changed.
        """
        some = [rows] if isinstance(rows, Row | str | tuple) else rows
        given = self._distinct([row if isinstance(row, Row) else Row(row, label) for row in some], how.new_labels)
        keys = [self._key(row.text) for row in given]
        plan = _Plan()

        def make(kb: EditedKnowledgeBase, next_id: int) -> Change:
            made = _Plan(labels=self._unknown(given))
            for row, key in zip(given, keys, strict=True):
                self._add_one(made, kb, row, key, next_id + len(made.add))
            vars(plan).update(vars(made))
            return made.change()

        done = self._edit("add", make, how)
        return Edit(done.entry, done.change, tuple(plan.ids), plan.unchanged, done.preview, done.compacted)

    def remove(
        self,
        ids: Sequence[int] = (),
        texts: Sequence[Text] = (),
        labels: Sequence[str] = (),
        how: How = _PLAINLY,
    ) -> Edit:
        """Remove rows; they are skipped from now on, and gone from the files after `compact`.

        Args:
            ids: of rows.
            texts: whose rows are removed, where texts are kept.
            labels: all rows with one of these gold labels are removed.
            how: as of `How`.

        Raises:
            UsageError: there is no such row, or somebody else is editing.
            EditRefusedError: the guard refuses.
            StorageError: the disk refused; nothing is changed.
        """

        def make(kb: EditedKnowledgeBase, _next_id: int) -> Change:
            found = [*ids, *(kb.id(row) for text in texts for row in self._rows_of(kb, text))]
            for label in labels:
                found += _ids_of_label(kb, label)
            return Change(remove=tuple(dict.fromkeys(found)))

        return self._edit("remove", make, how)

    def relabel(
        self,
        rows: Mapping[int, str | Mapping[str, float]] | Mapping[Text, str | Mapping[str, float]],
        how: How = _PLAINLY,
    ) -> Edit:
        """Give rows another label, by their ids or texts.

        Args:
            rows: id or text to a label, or to label names and shares.
            how: as of `How`.

        Raises:
            LabelError: a label is not known.
            UsageError: there is no such row, or somebody else is editing.
            EditRefusedError: the guard refuses.
            StorageError: the disk refused; nothing is changed.
        """
        wanted = {
            key: Row("", label) if isinstance(label, str) else Row("", None, label) for key, label in rows.items()
        }
        self._check_labels(list(wanted.values()), how.new_labels)

        def make(kb: EditedKnowledgeBase, _next_id: int) -> Change:
            relabel = []
            for key, row in wanted.items():
                row_id = key if isinstance(key, int) else kb.id(self._rows_of(kb, key)[-1])
                number = kb.find(row_id)
                if number is None:
                    raise UsageError("there is no such row", found=row_id, expected="the id of a row")
                old, new = kb.labelling(number), row.labelling
                if old != new:
                    relabel.append(Relabelling(row_id, old, new))
            return Change(labels=tuple(self._unknown(list(wanted.values()))), relabel=tuple(relabel))

        return self._edit("relabel", make, how)

    def undo(self, seq: int | None = None, how: How = _PLAINLY) -> Edit:
        """Take an edit back, by another edit.

        Args:
            seq: its number; None for the last one that is neither an undo, nor undone, nor a fold.
            how: as of `How`.

        Raises:
            UsageError: there is no such edit, a later one was made to the same rows, or its rows are gone.
            EditRefusedError: the guard refuses.
            StorageError: the disk refused; nothing is changed.
        """
        entries = {entry.seq: entry for entry in self.log()}
        undone = {entry.undoes for entry in entries.values()}
        if seq is None:
            candidates = [n for n, entry in entries.items() if entry.op not in ("undo", "compact") and n not in undone]
            if not candidates:
                raise UsageError("there is no edit to take back", path=self._store.bundle.path)
            seq = candidates[-1]
        entry = entries.get(seq)
        if entry is None or entry.op == "compact":
            raise UsageError(
                "there is no such edit to take back" if entry is None else "a fold cannot be taken back",
                found=seq,
                expected="the number of an edit, of `reaugkd kb log`",
            )
        back = entry.change.inverse()

        def make(kb: EditedKnowledgeBase, _next_id: int) -> Change:
            _check_undo(kb, entry, back)
            return back

        return self._edit("undo", make, how, undoes=seq)

    def compact(
        self,
        how: How = _PLAINLY,
        progress: Callable[[int, int], object] | None = None,
    ) -> Entry:
        """Fold all edits into new files, and erase what was removed; undone can be afterwards only what is still there.

        Args:
            how: why and who.
            progress: called with (rows done, rows in all).

        Raises:
            UsageError: somebody else is editing.
            StorageError: the disk refused; nothing is changed.
        """
        return KnowledgeWriter(self._store).compact(how, self._queries(), progress)

    @property
    def recall(self) -> float | None:
        """Share of the true neighbours that a search finds, as measured at the last fold; None before the first."""
        return self._store.current().generation.recall

    def log(self) -> Iterator[Entry]:
        """Every edit since the export, first to last, each checked against the one before it.

        Raises:
            BundleIntegrityError: the journal is damaged.
        """
        return self._store.log()

    def diff(self, first: int = 0, last: int | None = None) -> tuple[Difference, ...]:
        """The rows that differ between two edits (`differences.differences`)."""
        return differences(self._store, first, last)

    def verify(self, export: Path | None = None) -> Verified:
        """Check the chain of edits, and with a copy of the export make them again (`replay.verify`)."""
        return verify(self._store, export)

    def _edit(
        self, op: str, make: Callable[[EditedKnowledgeBase, int], Change], how: How, undoes: int | None = None
    ) -> Edit:
        seen: list[Change] = []
        told: list[Preview] = []

        def checked(kb: EditedKnowledgeBase, next_id: int) -> Change:
            change = make(kb, next_id)
            factor = odds(self._store, kb, change) if change else None
            change = change if factor is None else replace(change, odds=factor)
            seen.append(change)
            if change and (how.preview or how.guard is not None):
                told.append(preview(self._store, kb, change))
                if how.guard is not None and told[0].share > how.guard:
                    raise _refused(told[0], how.guard)
            return Change() if how.preview else change

        entry = KnowledgeWriter(self._store).edit(op, checked, how, undoes)
        folded = (
            self.compact(How("folded by itself", how.who, key=how.key))
            if entry and how.compact and self._many()
            else None
        )
        return Edit(entry, seen[0], preview=told[0] if told else None, compacted=folded)

    def _many(self) -> bool:
        kb = self._store.current().kb
        if not isinstance(kb, EditedKnowledgeBase):
            return False
        return kb.added + kb.removed > max(_FOLD_ROWS, _FOLD_SHARE * len(kb))

    def _queries(self) -> NDArray[np.float32] | None:
        related = self._store.related()
        return None if related is None else self._store.heldout().queries

    def _add_one(self, plan: _Plan, kb: EditedKnowledgeBase, row: Row, key: NDArray[np.float32], next_id: int) -> None:
        same, labelling = self._same(kb, row.text), row.labelling
        # A row that the text does not find, since the teacher made its key, makes place for one that it finds.
        near = {int(found) for found, near in zip(*kb.search(key, _LOOK_AT), strict=True) if near >= _SAME_TEXT}
        there = next((row for row in reversed(same) if row in near), None)
        if there is None:
            plan.remove += [kb.id(row) for row in same]
            digest = None if kb.digests is None else kb.digests.of_text(row.text)
            payload = Payload.of(key, row.text if kb.keeps_texts else None, kb.config.dtype, digest)
            plan.add.append(NewRow.of(next_id, labelling, payload))
            plan.ids.append(next_id)
            return
        plan.ids.append(kb.id(there))
        old = kb.labelling(there)
        if old == labelling:
            plan.unchanged += 1
        else:
            plan.relabel.append(Relabelling(kb.id(there), old, labelling))

    def _key(self, text: Text) -> NDArray[np.float32]:
        manifest = self._store.bundle.manifest
        encoding = self._tokenizer.encode(*checked_input(text, manifest.text_pair))
        return self._student.run(encoding)[1]

    def _same(self, kb: EditedKnowledgeBase, text: Text) -> list[int]:
        """The rows with this text; none where texts are not kept."""
        return kb.rows_of(text) if kb.keeps_texts or kb.digests is not None else []

    def _rows_of(self, kb: EditedKnowledgeBase, text: Text) -> list[int]:
        """The rows with this text, at least one."""
        rows = self._same(kb, text)
        if not rows:
            raise UsageError(
                "no row has this text",
                found=str(text),
                expected="the text of a row, where the knowledge base keeps texts",
                remedy="`reaugkd predict --explain` shows the rows that are near a text, and their ids.",
            )
        return rows

    def _distinct(self, rows: list[Row], new_labels: bool) -> list[Row]:
        """Rows without those that say the same twice."""
        self._check_labels(rows, new_labels)
        first: dict[Text, tuple[int, Row]] = {}
        for number, row in enumerate(rows, 1):
            place, former = first.setdefault(row.text, (number, row))
            if row.labelling != former.labelling:
                raise LabelError(
                    f"a text has two labels, the other one in row {place}",
                    row=number,
                    found=f"{row.label!r} and {former.label!r}",
                    expected="one label a text",
                )
        return [row for _, row in first.values()]

    def _check_labels(self, rows: Sequence[Row], new_labels: bool) -> None:
        known = self._store.current().labels
        for number, row in enumerate(rows, 1):
            for name in row.labelling.names:
                if name not in known and not new_labels:
                    close = difflib.get_close_matches(name, known, 1)
                    raise LabelError(
                        "a label is not known",
                        row=number if len(rows) > 1 else None,
                        found=name,
                        expected=f"{close[0]!r}, perhaps" if close else "one of the labels",
                        remedy="If it is meant as a new label, say so: new_labels=True, or --new-labels.",
                    )

    def _unknown(self, rows: Sequence[Row]) -> list[str]:
        known = self._store.current().labels
        return list(dict.fromkeys(name for row in rows for name in row.labelling.names if name not in known))


def _ids_of_label(kb: EditedKnowledgeBase, label: str) -> list[int]:
    if label not in kb.labels:
        raise LabelError("a label is not known", found=label, expected="one of the labels")
    number = kb.labels.index(label)
    return [kb.id(int(row)) for row in np.flatnonzero(kb.alive & (kb.gold() == number))]


def _check_undo(kb: EditedKnowledgeBase, entry: Entry, back: Change) -> None:
    """Whether what the edit made is still so."""
    for row_id in back.restore:
        if kb.find(row_id, alive=False) is None:
            raise UsageError(
                "the rows cannot be brought back",
                found=f"row {row_id}",
                expected="a row that is removed, but not folded away",
                remedy="After `kb compact` removed rows are gone: add them again.",
            )
    for row_id in back.remove:
        if kb.find(row_id) is None:
            raise UsageError("a later edit removed a row of this one", found=row_id, remedy="Take that back first.")
    for row in entry.change.relabel:
        number = kb.find(row.id)
        if number is None or kb.labelling(number) != row.new:
            raise UsageError(
                "a later edit changed a row of this one", found=f"row {row.id}", remedy="Take that back first."
            )


def _refused(found: Preview, guard: float) -> EditRefusedError:
    return EditRefusedError(
        "the edit changes more answers than its guard allows",
        found=f"{len(found.flips)} of {found.rows} held-out rows, {found.share:.2%}: {found.better} become right, "
        f"{found.worse} wrong",
        expected=f"at most {guard:.2%}",
        remedy="Look at them with a preview; raise the guard if that is what you want.",
    )
