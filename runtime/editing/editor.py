"""Editing a bundle's knowledge base: rows come as texts and labels, keys are made by the student on the spot.

A row of one label that is added or changed by an edit is pinned: its text is answered with its label from then on
(`blend.blend_edited`), and texts near it are answered with it as one neighbour more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import EditRefusedError, ReaugkdError, UsageError
from ...kb.edits.change import Change
from ...kb.edits.journal import Entry
from ...kb.edits.overlay import OverlayKnowledgeBase
from ..inference.inputs import Text, checked_input
from ..inference.student import StudentSession
from ..inference.tokenizer import TextTokenizer
from .diff import Difference, differences
from .edit import Edit, How, Row
from .new_label_calibration import odds
from .preview import Preview, preview
from .resolve_rows import (
    ChangeBuilder,
    checked_ids,
    checked_texts,
    distinct,
    found_with,
    ids_with_label,
    labelling_of,
    new_names,
    rows_of_mapping,
)
from .store import KnowledgeStore
from .verify import Verified, verify
from .writer import KnowledgeWriter

_FOLD_SHARE, _FOLD_ROWS = 0.2, 256  # edited rows, of all and at least, from which on edits are folded in
_PLAINLY = How()

_Make = Callable[[OverlayKnowledgeBase, int], ChangeBuilder | Change]


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
        given = [row if isinstance(row, Row) else Row(row, label) for row in some]
        said = distinct(given, self._store.current().labels, how.new_labels)
        keys = [self._key(row.text) for row, _ in said]

        def make(kb: OverlayKnowledgeBase, next_id: int) -> ChangeBuilder:
            plan = ChangeBuilder(new_names((labelling for _, labelling in said), kb.labels))
            for (row, labelling), key in zip(said, keys, strict=True):
                plan.text(kb, row.text, labelling, key, next_id)
            return plan

        return self._edit("add", make, how)

    def remove(
        self,
        ids: Iterable[int] = (),
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
        wanted, asked, named = checked_ids(ids), checked_texts(texts), checked_texts(labels)

        def make(kb: OverlayKnowledgeBase, _next_id: int) -> Change:
            found = [*wanted, *(kb.id(row) for text in asked for row in found_with(kb, text))]
            for label in named:
                found += ids_with_label(kb, str(label))
            return Change(remove=tuple(dict.fromkeys(found)))

        return self._edit("remove", make, how)

    def relabel(
        self,
        rows: Mapping[int, str | Mapping[str, float]] | Mapping[Text, str | Mapping[str, float]],
        how: How = _PLAINLY,
    ) -> Edit:
        """Give rows another label, by their ids or texts.

        By its text a row is labelled as `add` does: the text is answered with the label afterwards. By its id the row
        keeps its key, which may be the teacher's, and its text another answer.

        Args:
            rows: id or text to a label, or to label names and shares.
            how: as of `How`.

        Raises:
            LabelError: a label is not known.
            UsageError: there is no such row, or somebody else is editing.
            EditRefusedError: the guard refuses.
            StorageError: the disk refused; nothing is changed.
        """
        known = self._store.current().labels
        wanted = [(key, labelling_of(row, known, how.new_labels)) for key, row in rows_of_mapping(rows)]
        keys = {key: self._key(key) for key, _ in wanted if not isinstance(key, int)}

        def make(kb: OverlayKnowledgeBase, next_id: int) -> ChangeBuilder:
            plan = ChangeBuilder(new_names((labelling for _, labelling in wanted), kb.labels))
            for key, labelling in wanted:
                if isinstance(key, int):
                    row = kb.find(key)
                    if row is None:
                        raise UsageError("there is no such row", found=key, expected="the id of a row")
                    plan.label(kb, row, labelling)
                else:
                    found_with(kb, key)
                    plan.text(kb, key, labelling, keys[key], next_id)
            return plan

        return self._edit("relabel", make, how)

    def undo(self, seq: int | None = None, how: How = _PLAINLY) -> Edit:
        """Take an edit back, by another edit.

        Args:
            seq: its number; None for the last one in force that is no undo and no fold.
            how: as of `How`.

        Raises:
            UsageError: there is no such edit, a later one was made to the same rows, or its rows are gone.
            EditRefusedError: the guard refuses.
            StorageError: the disk refused; nothing is changed.
        """
        entry = _to_undo(self._store.log(), seq)
        back = entry.change.inverse()

        def make(kb: OverlayKnowledgeBase, _next_id: int) -> Change:
            _check_undo(kb, entry, back)
            return back

        return self._edit("undo", make, how, undoes=entry.seq)

    def compact(self, how: How = _PLAINLY, progress: Callable[[int, int], object] | None = None) -> Entry:
        """Fold all edits into new files, and erase what was removed; undone can be afterwards only what is still there.

        Args:
            how: why and who.
            progress: called with (rows done, rows in all).

        Raises:
            UsageError: there was no edit since the last fold, or somebody else is editing.
            StorageError: the disk refused; nothing is changed.
        """
        return KnowledgeWriter(self._store).compact(how, self._queries(), progress)

    @property
    def recall(self) -> float | None:
        """Share of the true neighbours that a search finds, as measured at the last fold; None before the first."""
        return self._store.current().generation.recall

    def log(self) -> list[Entry]:
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

    def _edit(self, op: str, make: _Make, how: How, undoes: int | None = None) -> Edit:
        plans: list[ChangeBuilder | Change] = []
        told: list[Preview] = []
        changes: list[Change] = []

        def checked(kb: OverlayKnowledgeBase, next_id: int) -> Change:
            plans.append(make(kb, next_id))
            change = plans[0].change() if isinstance(plans[0], ChangeBuilder) else plans[0]
            if change:
                factor = odds(self._store, kb, change)
                change = change if factor is None else replace(change, odds=factor)
                if how.preview or how.guard is not None:
                    told.append(preview(self._store, kb, change))
                    if how.guard is not None and told[0].share > how.guard:
                        raise _refused(told[0], how.guard)
            changes.append(change)
            return Change() if how.preview else change

        entry = KnowledgeWriter(self._store).edit(op, checked, how, undoes)
        plan = plans[0] if isinstance(plans[0], ChangeBuilder) else ChangeBuilder()
        done = Edit(entry, changes[0], tuple(plan.ids), plan.unchanged, told[0] if told else None)
        return self._folded(done, how) if entry is not None and how.compact and self._many() else done

    def _folded(self, done: Edit, how: How) -> Edit:
        """The edit with the fold that follows it by itself; if that fails the edit is made nevertheless."""
        try:
            return replace(done, compacted=self.compact(replace(how, why="folded by itself")))
        except ReaugkdError as error:
            return replace(done, not_compacted=error)

    def _many(self) -> bool:
        kb = self._store.view.kb
        if not isinstance(kb, OverlayKnowledgeBase):
            return False
        return kb.added + kb.removed > max(_FOLD_ROWS, _FOLD_SHARE * len(kb))

    def _queries(self) -> NDArray[np.float32] | None:
        related = self._store.related()
        return None if related is None else self._store.heldout().queries

    def _key(self, text: Text) -> NDArray[np.float32]:
        encoding = self._tokenizer.encode(*checked_input(text, self._store.bundle.manifest.text_pair))
        return self._student.run(encoding)[1]


def _to_undo(entries: Sequence[Entry], seq: int | None) -> Entry:
    """The edit to take back."""
    in_force = {entry.seq: entry.op != "compact" for entry in entries}
    by_seq = {entry.seq: entry for entry in entries}
    for entry in entries:
        turned: Entry | None = entry
        while turned is not None and turned.undoes is not None:  # an undo of an undo brings the first one back
            in_force[turned.undoes] = not in_force[turned.undoes]
            turned = by_seq.get(turned.undoes)
    if seq is None:
        candidates = [entry for entry in entries if in_force[entry.seq] and entry.undoes is None]
        if not candidates:
            raise UsageError("there is no edit to take back")
        return candidates[-1]
    found = by_seq.get(seq)
    if found is None or found.op == "compact":
        raise UsageError(
            "there is no such edit to take back" if found is None else "a fold cannot be taken back",
            found=seq,
            expected="the number of an edit, of `reaugkd kb log`",
        )
    if not in_force[seq]:
        raise UsageError("the edit is taken back already", found=seq, remedy="Take the undo back to have it again.")
    return found


def _check_undo(kb: OverlayKnowledgeBase, entry: Entry, back: Change) -> None:
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
        if number is None or not kb.labelling(number).like(row.new):
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
