"""The current knowledge base of a bundle: its snapshot and the edits of its journal.

Readers never wait and never see half an edit: `KnowledgeStore.current` reads HEAD, which takes 4 us, and applies the
edits that were added to the journal since. Writers take turns (`kb.edits.head.write_lock`). A commit has two steps: the
edit's line is written to the journal and synced, then HEAD is overwritten and synced. After an interruption at any
point the state is the old one or the new one, and the next edit deletes the remains.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BundleError, UsageError
from ...kb.edits.head import HeadFile, JournalHead
from ...kb.knowledge_base import KnowledgeBase
from ...kb.searchable import Searchable
from ...kb.storage.ed25519 import PublicKey
from ..bundle.bundle import KB_FOLDER, Bundle
from ..bundle.files import OPEN_FILES, check_file, find_file
from ..bundle.heldout_rows import HELDOUT_FILE, HeldOutRows
from .snapshot import HISTORY_FILE, SNAPSHOT_FILE, Snapshot, check_rows, read_fitted, refuse_unlisted

if TYPE_CHECKING:
    from ...kb.edits.change import Change
    from ...kb.edits.classifier_file import FittedClassifier
    from ...kb.edits.journal import Entry
    from ...kb.edits.overlay import OverlayKnowledgeBase

# The modules of edits are imported on first use: most bundles have no edits, and the import takes 15 ms.

_TRIES = (False, False, False, False, True)  # tries to open a snapshot while others compact; True marks the last
_RECENT = 10  # edits that stay possible to undo, see `undo.compaction_due`


@dataclass(frozen=True)
class View:
    """The knowledge base at one moment.

    Attributes:
        kb: the rows.
        labels: all labels' names, the student's first.
        head: the state of the edits.
        snapshot: the files that the edits build on.
        line: the line of HEAD; empty before the first edit.
        fitted: the last classifier of new labels that was fitted; None if there is none.
        recent: the changes of the last ten edits since the snapshot, without keys and texts.
    """

    kb: Searchable
    labels: tuple[str, ...]
    head: JournalHead
    snapshot: Snapshot
    line: bytes = b""
    fitted: FittedClassifier | None = None
    recent: tuple[Change, ...] = ()

    @cached_property
    def edited(self) -> bool:
        """Whether the rows differ from those of the export; False after all edits were undone.

        After a compaction it is True for ever: the graph was built again, and the export's files are deleted.
        """
        if self.snapshot.number or isinstance(self.kb, KnowledgeBase):
            return self.snapshot.number > 0
        from ...kb.edits.overlay import OverlayKnowledgeBase

        assert isinstance(self.kb, OverlayKnowledgeBase)
        return not self.kb.same_as_base()

    @property
    def answered_labels(self) -> tuple[str, ...]:
        """The labels of answers: after all edits were undone those of the export, else `labels`."""
        return self.labels if self.edited else self.snapshot.labels


class KnowledgeStore:
    """The current knowledge base of an open bundle; `writer.KnowledgeWriter` edits it.

    Args:
        bundle: checked.
        verify: check the SHA-256 sums of a snapshot's files too.
        signer: the key that must have signed every edit; None for no signature.

    Attributes:
        bundle: the bundle, with the resolved path: a link to it may change later; or that of an open folder.
        verify: same as the argument.
        signer: same as the argument.
        view: the last result of `current`.

    Raises:
        BundleIntegrityError: a file of the edits is missing, truncated or altered.
        BundleError: the parts do not fit each other.
    """

    def __init__(self, bundle: Bundle, verify: bool = True, signer: PublicKey | None = None) -> None:
        self.bundle = bundle if bundle.path.parent == OPEN_FILES else replace(bundle, path=bundle.path.resolve())
        self.verify, self.signer = verify, signer
        self._head = HeadFile(self.bundle.path)
        self._refreshing = threading.Lock()
        self.view = self._open()

    def current(self) -> View:
        """The current knowledge base.

        Raises:
            BundleIntegrityError: an edit since the last call is damaged, or lacks a required signature.
        """
        # While one thread applies edits, the others use the former view.
        if self._head.read_line() != self.view.line and self._refreshing.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._refreshing.release()
        return self.view

    @contextmanager
    def latest(self) -> Iterator[None]:
        """Bring the view up to date; within the block only `advance` and `reopen` change it.

        Raises:
            BundleIntegrityError: an edit since the last call is damaged.
        """
        with self._refreshing:
            self._refresh()
            yield

    def advance(self, change: Change | None = None, fitted: FittedClassifier | None = None) -> None:
        """Set the view to the result of the edit that HEAD now names; within `latest`.

        Args:
            change: the edit's change. Default: none.
            fitted: the classifier. Default: it is unchanged.
        """
        line, head = self._head.read()
        assert head is not None
        changes = [] if change is None else [change]
        self.view = self._changed(replace(self.view, head=head, line=line, fitted=fitted or self.view.fitted), changes)

    def forget(self) -> None:
        """Make the next `current` open the files again."""
        self.view = replace(self.view, line=b"?")

    def reopen(self) -> None:
        """Open the snapshot that HEAD names; within `latest`."""
        self.view = self._open()

    def edited(self, view: View | None = None) -> OverlayKnowledgeBase:
        """The knowledge base of a view (default: the last one), in the form that takes edits."""
        from ...kb.edits.overlay import OverlayKnowledgeBase

        view = view or self.view
        kb = view.kb
        if isinstance(kb, OverlayKnowledgeBase):
            return kb
        assert isinstance(kb, KnowledgeBase)
        return OverlayKnowledgeBase(kb, view.labels, keeps_texts=view.snapshot.texts == "plain")

    def refuse_edits(self, what: str) -> None:
        """Check that the rows are those of the export.

        Args:
            what: the operation that needs an unedited bundle, for the message.

        Raises:
            UsageError: the knowledge base was edited, and not all edits were undone; or it was compacted.
        """
        if self.view.edited:
            undo = "" if self.view.snapshot.number else ", or undo every edit: `reaugkd kb undo`"
            raise UsageError(
                f"{what} needs a bundle without edits",
                path=self.bundle.path,
                found=f"{self.view.head.seq} edits of its knowledge base",
                remedy=f"Use a copy from before the first edit{undo}.",
            )

    def log(self) -> list[Entry]:
        """Every edit since the export, first to last, each checked against the one before it.

        Raises:
            BundleIntegrityError: the history or the journal is damaged, or an edit lacks a required signature.
            BundleError: the parts do not fit each other.
        """  # noqa: DOC501
        for last in _TRIES:
            view = self.current()
            try:
                since = self._entries(view.snapshot, view.head, view.snapshot.begin)
                return [*self._history(view.snapshot), *since]
            except BundleError:
                if last or self._head.read_line() == view.line:  # otherwise a compaction came in between
                    raise
        raise AssertionError

    def heldout(self) -> HeldOutRows:
        """The held-out rows of the bundle.

        Raises:
            BundleError: there are none, or they do not match the manifest.
        """
        manifest = self.bundle.manifest
        return HeldOutRows.open(self.bundle.path, len(manifest.labels), manifest.kb.ndim, manifest.kb_rows)

    def related(self, view: View | None = None) -> tuple[int, int] | None:
        """First row and end of the held-out rows in a view (default: the last one); None if there are none."""
        snapshot = (view or self.view).snapshot
        if snapshot.number or HELDOUT_FILE not in self.bundle.manifest.files:
            return snapshot.related
        return self.heldout().unrelated, snapshot.kb_rows

    def check_base(self) -> None:
        """Check that the files of the snapshot are as they were sealed.

        Raises:
            BundleIntegrityError: one is missing, truncated or altered.
        """
        snapshot = self.view.snapshot
        if snapshot.number:
            folder, files = snapshot.folder, snapshot.files
        else:
            folder = self.bundle.path
            files = {name: one for name, one in self.bundle.manifest.files.items() if name.startswith(f"{KB_FOLDER}/")}
        for name, record in files.items():
            check_file(folder, name, record, self.verify)

    def _refresh(self) -> None:
        if self.bundle.replaced():  # what is on the disk now belongs to another bundle
            return
        line, head = self._head.read()
        if line == self.view.line:
            return
        try:
            view = self._latest_view(line, head)
        except BundleError:
            if self.bundle.replaced():
                return
            raise
        if not self.bundle.replaced():  # while it was read
            self.view = view

    def _latest_view(self, line: bytes, head: JournalHead | None) -> View:
        try:
            return self._extended(line, head)
        except (BundleError, UsageError):
            return self._open()

    def _extended(self, line: bytes, head: JournalHead | None) -> View:
        """The view with the edits since.

        Raises:
            BundleError: HEAD names another snapshot, or its edits do not follow from the view.
            UsageError: same as `OverlayKnowledgeBase.apply`.
        """
        view = self.view
        if head is None or head.snapshot != view.snapshot.number or head.seq < view.head.seq:
            raise BundleError("another snapshot is current")
        entries = self._entries(view.snapshot, head, view.head)
        changes = [entry.change for entry in entries if entry.edits_rows]
        named, labels = _fit_of(entries), _count(view.labels, changes)
        fitted = read_fitted(self.bundle.path, view.snapshot, named, labels) if named else view.fitted
        return self._changed(replace(view, head=head, line=line, fitted=fitted), changes)

    def _changed(self, view: View, changes: list[Change]) -> View:
        """A view whose rows have some more changes.

        Raises:
            UsageError: same as `OverlayKnowledgeBase.apply`.
        """
        if not changes:
            return view
        kb = self.edited(view).applied(changes)
        recent = [change.erased(lambda _: True) for change in changes[-_RECENT:]]
        return replace(view, kb=kb, labels=kb.labels, recent=(*view.recent, *recent)[-_RECENT:])

    def _open(self) -> View:
        for last in _TRIES:
            line, head = self._head.read()
            try:
                return self._opened(line, head)
            except BundleError:
                # A compaction in between may have deleted the files.
                if last or self._head.read_line() == line:
                    raise
        raise AssertionError

    def _opened(self, line: bytes, head: JournalHead | None) -> View:
        bundle = self.bundle
        if head is None or head.snapshot == 0:
            snapshot = Snapshot.export(bundle.kb_folder, bundle.manifest, bundle.seal)
        else:
            snapshot = Snapshot.open(bundle.path, head, bundle.manifest, bundle.seal)
            for name, record in snapshot.files.items():
                check_file(snapshot.folder, name, record, self.verify)
            refuse_unlisted(snapshot)
            if self.signer is not None:  # the compaction that wrote the files must be signed, and all edits before it
                self._history(snapshot)
        labels, config = snapshot.labels, snapshot.kb
        kb = KnowledgeBase.open(snapshot.folder, config, len(labels), snapshot.pins, snapshot.new_label_odds)
        check_rows(kb, snapshot)
        if head is None:
            return View(kb, labels, snapshot.begin, snapshot)
        entries = self._entries(snapshot, head, snapshot.begin)
        changes = [entry.change for entry in entries if entry.edits_rows]
        named = _fit_of(entries) or snapshot.fit
        fitted = read_fitted(bundle.path, snapshot, named, _count(labels, changes)) if named else None
        try:
            return self._changed(View(kb, labels, head, snapshot, line, fitted), changes)
        except UsageError as error:
            from ...kb.edits.journal import damaged

            raise damaged(snapshot.journal, str(error)) from error

    def _history(self, snapshot: Snapshot) -> list[Entry]:
        """Read the edits before a snapshot; the last one is the compaction that wrote it.

        Raises:
            BundleIntegrityError: the history is damaged.
        """  # noqa: DOC501
        if not snapshot.number:
            return []
        from ...kb.edits.journal import damaged, read_journal

        path, config = snapshot.folder / HISTORY_FILE, snapshot.kb
        record = snapshot.files.get(HISTORY_FILE)
        if record is None:
            raise damaged(path, "a history that the table of contents does not list")
        check_file(snapshot.folder, HISTORY_FILE, record, self.verify)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise damaged(path, str(error.strerror)) from error
        entries = list(read_journal(data, path, config.dtype, config.ndim, 0, self.bundle.seal))
        self._check_signatures(entries, path)
        if not entries or (entries[-1].seq, entries[-1].after) != (snapshot.seq, snapshot.after):
            raise damaged(path, f"{len(entries)} edits instead of {snapshot.seq}")
        hashes = {name: record.sha256 for name, record in snapshot.files.items() if name != HISTORY_FILE}
        if entries[-1].files != {**hashes, SNAPSHOT_FILE: snapshot.digest()}:
            raise damaged(path, "a compaction with other files, or another table of contents")
        return entries

    def _entries(self, snapshot: Snapshot, head: JournalHead, known: JournalHead) -> list[Entry]:
        """Read the journal's entries between two states.

        Raises:
            BundleIntegrityError: the journal is damaged.
        """  # noqa: DOC501
        path, config = snapshot.journal, snapshot.kb
        if (head.length, head.seq, head.after) == (known.length, known.seq, known.after):
            return []
        from ...kb.edits.journal import damaged, read_journal

        data = _read(self.bundle.path, path, known.length, head.length)
        entries = list(read_journal(data, path, config.dtype, config.ndim, known.seq, known.after))
        self._check_signatures(entries, path)
        if not entries or (entries[-1].seq, entries[-1].after) != (head.seq, head.after):
            raise damaged(path, f"{len(entries)} edits after edit {known.seq}, where HEAD names edit {head.seq}")
        for entry in entries:
            if any(not snapshot.keeps(row) for row in entry.change.add):
                raise damaged(path, f"edit {entry.seq}: a row without its key, text or digest")
        return entries

    def _check_signatures(self, entries: list[Entry], path: Path) -> None:
        if self.signer is not None:
            for entry in entries:
                entry.check_signature(self.signer, path)


def _fit_of(entries: list[Entry]) -> Mapping[str, str]:
    """The name and the SHA-256 of the last classifier of some edits; empty if they have none."""
    return next((entry.files or {} for entry in reversed(entries) if entry.op == "fit"), {})


def _count(labels: tuple[str, ...], changes: list[Change]) -> int:
    return len(labels) + sum(len(change.labels) for change in changes)


def _read(bundle: Path, path: Path, start: int, end: int) -> bytes:
    """Read the bytes ``start`` to ``end`` of a journal.

    Raises:
        BundleIntegrityError: the journal cannot be read, or is shorter.
    """  # noqa: DOC501
    from ...kb.edits.journal import MOST_BYTES, damaged

    found = find_file(bundle, path.relative_to(bundle).as_posix(), f"{end} bytes").size
    if end > MOST_BYTES or found < end or start > end:
        raise damaged(path, f"{found} bytes, where HEAD names {end}")
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
    except OSError as error:
        raise damaged(path, str(error.strerror)) from error
