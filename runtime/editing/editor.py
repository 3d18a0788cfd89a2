"""Edits of a bundle's knowledge base: the caller gives texts and labels, and the student computes the keys.

A row with one label that an edit adds or changes is pinned: its text is predicted with that label from then on
(`blending.blend_edited`), and for similar texts it counts as one more neighbour.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from ...errors import EditRefusedError, ReaugkdError, UsageError
from ...kb.edits.change import Change
from ...kb.edits.journal import Entry
from ...kb.edits.overlay import OverlayKnowledgeBase
from ...kb.linear_classifier import LinearClassifier
from ..inference.session.model_session import ModelSession
from ..inference.text.inputs import Text, checked_input
from ..inference.text.tokenizer import TextTokenizer
from ..labels import LabelNames
from .diff import Difference, differences
from .edit import (
    Edit,
    EditKeywords,
    EditOptions,
    Row,
    WriteKeywords,
    WriteOptions,
    checked_flag,
    edit_options,
    write_options,
)
from .new_labels.background_fit import BackgroundFit, Fit
from .new_labels.calibration import new_label_odds
from .new_labels.in_use import classifier_in_use, labels_with_rows
from .preview import Preview, preview_change
from .resolve_rows import (
    ChangeBuilder,
    checked_ids,
    checked_labels,
    checked_rows,
    checked_texts,
    distinct,
    found_with,
    ids_with_label,
    labelling_of,
    new_names,
    rows_of_mapping,
)
from .store import KnowledgeStore
from .undo import check_undo, compaction_due, entry_to_undo
from .verify import Verified, verify_history
from .writer import KnowledgeWriter

_Labels = str | Mapping[str, float]
_Make = Callable[[OverlayKnowledgeBase, int], ChangeBuilder | Change]


class KnowledgeEditor:
    """Edits the knowledge base of an open runtime; an edit takes effect at once in every runtime with the bundle open.

    Args:
        store: the store of the bundle.
        tokenizer: the tokenizer of the bundle.
        student: the student of the bundle; it computes keys.
        fits: the fits of the classifier of new labels.
    """

    def __init__(
        self, store: KnowledgeStore, tokenizer: TextTokenizer, student: ModelSession, fits: BackgroundFit
    ) -> None:
        self._store, self._tokenizer, self._student, self._fits = store, tokenizer, student, fits

    def add(
        self,
        texts: Row | Text | Iterable[Row | Text],
        label: str | None = None,
        *,
        soft: Mapping[str, float] | None = None,
        new_labels: bool = False,
        **options: Unpack[EditKeywords],
    ) -> Edit:
        """Add rows; a text that is stored already gets the new label.

        Args:
            texts: one or several texts, pairs (tuples of two), or `Row` for rows with different labels.
            label: the label of the texts.
            soft: label names and shares that sum to 1, for the texts.
            new_labels: add labels that the bundle does not know. Default: they are an error.
            options: `EditKeywords`.

        Example:
            >>> runtime.kb.add("where is my parcel", label="delivery", why="a customer's complaint")

        Raises:
            LabelError: a label is unknown, or two rows give one text two labels.
            TextError: the model cannot read a text.
            EditRefusedError: the guard refuses the edit.
            UsageError: an argument of the wrong type, a row without a label, shares that are no distribution, or
                another edit is running.
            StorageError: the file cannot be written; nothing is changed.
        """
        checked, given = edit_options(options), checked_rows(texts, label, soft)
        checked_flag("new_labels", new_labels)
        labelled = distinct(given, LabelNames(self._store.current().answered_labels), new_labels)
        keys = [self._key(row.text) for row, _ in labelled]

        def make(kb: OverlayKnowledgeBase, next_id: int) -> ChangeBuilder:
            builder = ChangeBuilder(new_names((labelling for _, labelling in labelled), kb.labels))
            for (row, labelling), key in zip(labelled, keys, strict=True):
                builder.text(kb, row.text, labelling, key, next_id)
            return builder

        return self._edit("add", make, checked)

    def remove(
        self,
        ids: Iterable[int] = (),
        *,
        texts: Iterable[Text] = (),
        labels: Iterable[str] = (),
        **options: Unpack[EditKeywords],
    ) -> Edit:
        """Remove rows: searches skip them at once, and `compact` erases them from the files.

        Args:
            ids: ids of rows.
            texts: texts of rows, where the knowledge base keeps texts or digests.
            labels: gold labels, whose rows are all removed.
            options: `EditKeywords`.

        Raises:
            UsageError: an argument of the wrong type, there is no such row, or another edit is running.
            EditRefusedError: the guard refuses the edit.
            StorageError: the file cannot be written; nothing is changed.
        """
        checked = edit_options(options)
        by_id, by_text, by_label = checked_ids(ids), checked_texts(texts), checked_labels(labels)

        def make(kb: OverlayKnowledgeBase, _next_id: int) -> Change:
            found = [*by_id, *(kb.id(row) for text in by_text for row in found_with(kb, text))]
            for label in by_label:
                found += ids_with_label(kb, label)
            return Change(remove=tuple(dict.fromkeys(found)))

        return self._edit("remove", make, checked)

    def relabel(
        self,
        rows: Mapping[int, _Labels]
        | Mapping[str, _Labels]
        | Mapping[tuple[str, str], _Labels]
        | Mapping[Text, _Labels],
        *,
        new_labels: bool = False,
        **options: Unpack[EditKeywords],
    ) -> Edit:
        """Change the label of rows, given by id or by text.

        By text it works like `add`: the text is predicted with the label afterwards. By id the row keeps its key, which
        may be the teacher's, so its text may be predicted with another label.

        Args:
            rows: id or text to a label, or to label names and shares.
            new_labels: add labels that the bundle does not know. Default: they are an error.
            options: `EditKeywords`.

        Raises:
            LabelError: a label is unknown.
            UsageError: an argument of the wrong type, there is no such row, or another edit is running.
            EditRefusedError: the guard refuses the edit.
            StorageError: the file cannot be written; nothing is changed.
        """
        checked, known = edit_options(options), LabelNames(self._store.current().answered_labels)
        checked_flag("new_labels", new_labels)
        labellings = [(key, labelling_of(row, known, new_labels)) for key, row in rows_of_mapping(rows)]
        keys = {key: self._key(key) for key, _ in labellings if not isinstance(key, int)}

        def make(kb: OverlayKnowledgeBase, next_id: int) -> ChangeBuilder:
            builder = ChangeBuilder(new_names((labelling for _, labelling in labellings), kb.labels))
            for key, labelling in labellings:
                if isinstance(key, int):
                    row = kb.find(key)
                    if row is None:
                        raise UsageError("there is no such row", found=key, expected="the id of a row")
                    builder.label(kb, row, labelling)
                else:
                    found_with(kb, key)
                    builder.text(kb, key, labelling, keys[key], next_id)
            return builder

        return self._edit("relabel", make, checked)

    def undo(self, seq: int | None = None, **options: Unpack[EditKeywords]) -> Edit:
        """Take an edit back, by another edit.

        Args:
            seq: the edit's number. Default: the last edit in force that changed rows and is no undo.
            options: `EditKeywords`.

        Raises:
            UsageError: there is no such edit, a later edit changed the same rows, or a compaction erased them.
            EditRefusedError: the guard refuses the edit.
            StorageError: the file cannot be written; nothing is changed.
        """
        checked, entries = edit_options(options), self._store.log()
        entry = entry_to_undo(entries, seq)
        inverse = entry.change.inverse()

        def make(kb: OverlayKnowledgeBase, _next_id: int) -> Change:
            check_undo(kb, entry, inverse, entries)
            return inverse

        return self._edit("undo", make, checked, undoes=entry.seq)

    def compact(
        self, *, progress: Callable[[int, int], object] | None = None, **options: Unpack[WriteKeywords]
    ) -> Entry:
        """Write all edits into new files and erase removed rows; an erased row cannot be restored afterwards.

        Args:
            progress: called with (rows done, rows in total).
            options: `WriteKeywords`.

        Raises:
            UsageError: there was no edit since the last compaction, or another edit is running.
            StorageError: the file cannot be written; nothing is changed.
        """
        checked = write_options(options)
        done = self._compact(checked, progress)
        if self._store.view.fitted is None:  # it was fitted to rows that are erased now
            self._fit(checked)
        return done

    def wait(self, **options: Unpack[WriteKeywords]) -> Fit | None:
        """Wait until the classifier of new labels is fitted to the last edit.

        After each edit it is fitted in the background, which takes about a second; until then the classifier before,
        or the neighbours, answer new labels. If the process of the last edit was killed before, it is fitted now.

        Args:
            options: `WriteKeywords` of the fit, if it is needed now.

        Returns:
            The fit; None if there was none since the last call.

        Raises:
            ReaugkdError: the fit failed; the edits are saved.
        """
        checked = write_options(options)
        self._fits.join()
        edits = [entry.seq for entry in self._store.log() if entry.edits_rows]
        fitted = self._store.view.fitted
        if edits and (fitted is None or fitted.seq < edits[-1]):
            self._fit(checked)
        return self._fits.wait()

    @property
    def seal(self) -> str:
        """The hash of the exported manifest, 64 hexadecimal digits, with which the chain of edits begins."""
        return self._store.bundle.seal

    @property
    def seq(self) -> int:
        """The number of the last edit; 0 before the first."""
        return self._store.current().head.seq

    @property
    def recall(self) -> float | None:
        """Share of the true neighbours that a search finds, measured at the last compaction; None before the first."""
        return self._store.current().snapshot.recall

    @property
    def new_label_classifier(self) -> LinearClassifier | None:
        """The classifier that answers labels added by edits; None where there are none, and before its first fit."""
        return classifier_in_use(self._store.current(), len(self._store.bundle.manifest.labels))

    def log(self) -> list[Entry]:
        """Every edit since the export, first to last, each checked against the one before it.

        Raises:
            BundleIntegrityError: the journal is damaged.
        """
        return self._store.log()

    def diff(self, first: int = 0, last: int | None = None) -> tuple[Difference, ...]:
        """The rows that differ between two edits (`diff.differences`)."""
        return differences(self._store, first, last)

    def verify(self, export: str | os.PathLike[str] | None = None) -> Verified:
        """Check the chain of edits; with a copy of the export, repeat them and compare the files.

        Args:
            export: the path of a copy of the bundle from before the first edit. Default: no comparison.

        Raises:
            BundleIntegrityError: the journal or a file is damaged, or the edits give other files.
            UsageError: ``export`` is not a path, is another bundle, or has edits.
        """
        if export is not None and not isinstance(export, str | os.PathLike):
            raise UsageError("export is unusable", found=repr(export), expected="the path of a bundle")
        return verify_history(self._store, None if export is None else Path(export))

    def _edit(self, op: str, make: _Make, options: EditOptions, undoes: int | None = None) -> Edit:
        made: list[ChangeBuilder | Change] = []
        previews: list[Preview] = []
        changes: list[Change] = []

        def checked(kb: OverlayKnowledgeBase, next_id: int) -> Change:
            made.append(make(kb, next_id))
            change = made[0].change() if isinstance(made[0], ChangeBuilder) else made[0]
            if change:
                odds = new_label_odds(self._store, kb, change)
                change = change if odds is None else replace(change, new_label_odds=odds)
                if options.preview or options.guard is not None:
                    previews.append(preview_change(self._store, kb, change))
                    if options.guard is not None and previews[0].share > options.guard:
                        raise _refused(previews[0], options.guard)
            changes.append(change)
            return Change() if options.preview else change

        entry = KnowledgeWriter(self._store).edit(op, checked, options, undoes)
        builder = made[0] if isinstance(made[0], ChangeBuilder) else ChangeBuilder()
        done = Edit(entry, changes[0], tuple(builder.ids), builder.unchanged, previews[0] if previews else None)
        if entry is not None and options.auto_compact and compaction_due(self._store.view):
            done = self._compacted(done, options)
        if entry is not None:
            self._fit(options)
        return done

    def _fit(self, options: WriteOptions) -> None:
        """Fit the classifier of new labels in the background, if new labels have rows."""
        view = self._store.view
        if len(labels_with_rows(view.kb, len(self._store.bundle.manifest.labels))):
            self._fits.request(options)

    def _compact(self, options: WriteOptions, progress: Callable[[int, int], object] | None = None) -> Entry:
        return KnowledgeWriter(self._store).write_snapshot(options, progress)

    def _compacted(self, done: Edit, options: EditOptions) -> Edit:
        """Compact automatically after an edit; if that fails, the edit is saved nevertheless."""
        try:
            return replace(done, compacted=self._compact(replace(options, why="automatic compaction")))
        except ReaugkdError as error:
            return replace(done, not_compacted=error)

    def _key(self, text: Text) -> NDArray[np.float32]:
        encoding = self._tokenizer.encode(*checked_input(text, self._store.bundle.manifest.text_pair))
        return self._student.run(encoding)[1]


def _refused(found: Preview, guard: float) -> EditRefusedError:
    return EditRefusedError(
        "the edit changes more answers than its guard allows",
        found=f"{len(found.flips)} of {found.rows} held-out rows, {found.share:.2%}: {found.better} become right, "
        f"{found.worse} wrong",
        expected=f"at most {guard:.2%}",
        remedy="Inspect them with a preview, and raise the guard if the change is intended.",
    )
