"""Writes edits to the disk: appends them to the journal, and compacts them into a new snapshot."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleIntegrityError, StorageError, UsageError
from ...kb.edits.change import Change
from ...kb.edits.classifier_file import FittedClassifier
from ...kb.edits.head import HEAD_FILE, SNAPSHOTS, JournalHead, sync, write_head, write_lock
from ...kb.edits.journal import MOST_BYTES, Entry, read_journal
from ...kb.edits.merge import add_lists, merge_edits, tune_ef_search
from ...kb.edits.overlay import OverlayKnowledgeBase
from ...kb.knowledge_base import KnowledgeBase
from ...kb.storage.atomic import atomic_directory, refusals
from ..bundle.manifest import MANIFEST_FILE, file_record
from ..bundle.signature import read_signature
from .edit import WriteOptions
from .new_labels.in_use import usable
from .snapshot import CLASSIFIER, HISTORY_FILE, JOURNAL_FILE, SNAPSHOT_FILE, Snapshot
from .store import KnowledgeStore


class KnowledgeWriter:
    """Commits edits, one at a time among all threads and processes.

    Args:
        store: the store of the bundle; it sees each edit at once.
    """

    def __init__(self, store: KnowledgeStore) -> None:
        self._store, self._bundle = store, store.bundle

    def edit(
        self,
        op: str,
        make: Callable[[OverlayKnowledgeBase, int], Change],
        options: WriteOptions,
        undoes: int | None = None,
    ) -> Entry | None:
        """Commit an edit; it is on the disk when this returns.

        Args:
            op: one of `journal.OPERATIONS`.
            make: returns the change for a knowledge base and its next free id; an empty change makes no edit.
            options: author, reason, signature and waiting time.
            undoes: for an undo, the number of the edit that it takes back.

        Returns:
            The journal's entry; None if there was nothing to change.

        Raises:
            UsageError: the change refers to unknown rows, or another edit is running.
            StorageError: the file cannot be written; nothing is changed.
        """
        with self._locked(options):
            kb = self._store.edited()
            change = make(kb, self._next_id(kb))
            if not change:
                return None
            kb.check(change)
            entry = self._entry(op, change, options, undoes=undoes)
            self._append(entry)
            try:
                self._store.advance(change)
            except BaseException:  # the edit is committed: the next reader opens the files again
                self._store.forget()
                raise
            return entry

    def write_snapshot(
        self,
        options: WriteOptions,
        progress: Callable[[int, int], object] | None = None,
    ) -> Entry:
        """Compact the edits: write a new snapshot without the removed rows.

        Args:
            options: author, reason, signature and waiting time.
            progress: called with (rows done, rows in total).

        Returns:
            The journal's entry.

        Raises:
            UsageError: another edit is running, or the index is in shards.
            StorageError: the files cannot be written (nothing is changed), or files with removed rows remain.
        """
        if self._bundle.manifest.kb.probes:
            raise UsageError(
                "a knowledge base in shards cannot be compacted",
                path=self._bundle.path,
                remedy="Its edits stay in the journal. To erase rows from its files, build it again with "
                "`reaugkd kb build` from data without them.",
            )
        with self._locked(options):
            kb = self._store.edited()
            if kb is not self._store.view.kb:
                found = f"snapshot {self._store.view.snapshot.number}, and no edit since"
                raise UsageError("there is nothing to compact", path=self._bundle.path, found=found)
            self._prepare()
            self._store.check_base()  # do not seal files that were altered after they were opened
            merged, queries = merge_edits(kb, progress), heldout_queries(self._store)
            k = self._bundle.manifest.blend.k
            recall = tune_ef_search(merged, queries, k).recall
            merged = add_lists(merged, queries, k)
            entry = self._save(kb, merged, recall, options)
            assert entry.snapshot is not None
            write_head(self._bundle.path, JournalHead(entry.snapshot, entry.seq, 0, entry.after))
            self._store.reopen()
            del merged, kb
            if self._clear():
                raise StorageError(
                    "the edits are compacted, but files with removed rows could not be deleted",
                    path=self._bundle.path,
                    remedy="Allow the deletion, and run `reaugkd kb compact` again.",
                )
            return entry

    def write_fit(self, fitted: FittedClassifier, snapshot: int, options: WriteOptions) -> Entry | None:
        """Commit a classifier of new labels.

        Args:
            fitted: the classifier.
            snapshot: number of the snapshot whose rows it was fitted to, with edits.
            options: author, reason, signature and waiting time.

        Returns:
            The journal's entry; None if the classifier is of no use any more: other labels have rows, a compaction
            erased rows that it was fitted to, or another process fitted a newer one.

        Raises:
            UsageError: another edit is running.
            StorageError: a file cannot be written; nothing is changed.
        """
        with self._locked(options):
            view = self._store.view
            newer = view.fitted is not None and view.fitted.seq >= fitted.seq
            if (
                newer
                or view.snapshot.number != snapshot
                or not usable(fitted, view.kb, len(self._bundle.manifest.labels))
            ):
                return None
            folder = view.snapshot.journal.parent
            entry = self._entry("fit", Change(), options, files={fitted.name: fitted.save(folder)})
            self._append(entry, {fitted.name})
            try:
                self._store.advance(fitted=fitted)
            except BaseException:
                self._store.forget()
                raise
            self._clear()
            return entry

    @contextmanager
    def _locked(self, options: WriteOptions) -> Iterator[None]:
        """Hold the writer's lock, with the store at the current state.

        Raises:
            UsageError: the edit needs a signature, or the bundle was replaced or has links.
        """
        self._check_key(options)
        self._bundle.refuse_links("an edit")
        with write_lock(self._bundle.path, options.wait):
            self._check_bundle()
            with self._store.latest():
                self._check_signed_before(options)
                yield

    def _check_bundle(self) -> None:
        """Check that the bundle is still the one that was opened.

        Raises:
            UsageError: it was replaced.
        """
        path, same = self._bundle.path / MANIFEST_FILE, not self._bundle.replaced()
        lost = self._store.view.head.seq and not (self._bundle.path / SNAPSHOTS).is_dir()
        if not same or lost:
            raise UsageError(
                "the bundle was replaced since it was opened",
                path=path,
                found="another manifest" if not same else "no edits",
                remedy="Open it again.",
            )

    def _check_signed_before(self, options: WriteOptions) -> None:
        """Refuse an unsigned edit of a signed bundle unless it is requested: it can never be removed.

        Raises:
            UsageError: the edit has no signature, or one by another key than the bundle's.
        """
        signature = read_signature(self._bundle.path)
        if signature is None or options.unsigned:
            return
        if options.key is not None and options.key.public.key_id != signature.key_id:
            raise UsageError(
                "the bundle is signed by another key",
                path=self._bundle.path,
                found=f"key {options.key.public.key_id}",
                expected=f"key {signature.key_id}",
                remedy="Sign edits with the key that signed the bundle.",
            )
        if options.key is None:
            raise UsageError(
                "the bundle is signed: after an unsigned edit, devices that require the signature refuse it for ever",
                path=self._bundle.path,
                found="no key",
                remedy="Sign the edit (key=..., --sign-key), or give unsigned=True, --unsigned.",
            )

    def _check_key(self, options: WriteOptions) -> None:
        signer = self._store.signer
        if signer is not None and (options.key is None or options.key.public != signer):
            raise UsageError(
                "edits of this bundle must be signed",
                path=self._bundle.path,
                found="no key" if options.key is None else f"key {options.key.public.key_id}",
                expected=f"key {signer.key_id}, as the bundle was opened with require_signature",
                remedy="Give the private key: key=..., or --sign-key.",
            )

    def _entry(self, op: str, change: Change, options: WriteOptions, **more: object) -> Entry:
        head = self._store.view.head
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Entry(head.seq + 1, now, options.author, options.why, op, change, head.after, **more).sealed(options.key)  # type: ignore[arg-type]

    def _append(self, entry: Entry, made: Collection[str] = ()) -> None:
        """Append an entry to the journal.

        Args:
            entry: the entry.
            made: names of the files that were written for it.

        Raises:
            UsageError: it cannot be read back, or the journal is full.
        """
        snapshot, head = self._store.view.snapshot, self._store.view.head
        path, line = snapshot.journal, entry.line()
        try:  # an entry that cannot be read back would make the bundle unusable
            deque(read_journal(line, path, snapshot.kb.dtype, snapshot.kb.ndim, head.seq, head.after), 0)
        except BundleIntegrityError as error:
            raise UsageError("the edit cannot be written to the journal", found=error.found) from error
        self._prepare(made)
        if head.length + len(line) > MOST_BYTES:
            raise UsageError(
                "the journal is full",
                path=path,
                found=f"{head.length + len(line):,} bytes",
                expected=f"at most {MOST_BYTES:,}",
                remedy="Run `reaugkd kb compact` first, or add fewer rows at a time.",
            )
        with refusals(path):
            file = os.open(path, os.O_RDWR)
            try:
                os.ftruncate(file, head.length)  # the remains of an interrupted edit
                _write(file, line, head.length)
                sync(file)
            except BaseException:
                os.ftruncate(file, head.length)
                raise
            finally:
                os.close(file)
        write_head(self._bundle.path, JournalHead(head.snapshot, entry.seq, head.length + len(line), entry.after))

    def _save(self, kb: OverlayKnowledgeBase, merged: KnowledgeBase, recall: float, options: WriteOptions) -> Entry:
        """Write the next snapshot's folder; HEAD does not name it yet."""
        number = self._store.view.snapshot.number + 1
        folder = self._bundle.path / SNAPSHOTS / str(number)
        with atomic_directory(folder) as temporary:
            merged.save(temporary)
            fitted, entries = self._store.view.fitted, self._store.log()
            if fitted is not None and not any(one.change.remove for one in entries[fitted.seq :]):
                fitted.save(temporary)
            files = {file.name: file_record(file) for file in sorted(temporary.iterdir())}
            hashes = {name: record.sha256 for name, record in files.items()}
            made = Snapshot(
                number,
                folder,
                kb.labels,
                merged.config,
                len(merged),
                self._store.view.head.seq + 1,
                "",
                pins=True,
                next_id=self._next_id(kb),
                related=_moved(self._store.related(), kb),
                recall=recall,
                new_label_odds=kb.new_label_odds,
                texts=self._store.view.snapshot.texts,
            )
            hashes[SNAPSHOT_FILE] = made.digest()
            entry = self._entry("compact", Change(), options, snapshot=number, files=hashes)
            with (temporary / HISTORY_FILE).open("wb") as history:
                for line in (*entries, entry):
                    history.write(line.erased(lambda row: kb.find(row) is None).line())
            (temporary / JOURNAL_FILE).touch()
            records = {**files, HISTORY_FILE: file_record(temporary / HISTORY_FILE)}
            replace(made, after=entry.after, files=records).save(temporary, self._bundle.manifest, self._bundle.seal)
        return entry

    def _prepare(self, made: Collection[str] = ()) -> None:
        """Create the folder of snapshots with the first edit; delete the remains of interrupted writes.

        Args:
            made: files of the current snapshot that an entry will name.
        """
        folder = self._bundle.path / SNAPSHOTS
        if not folder.exists():
            with atomic_directory(folder) as temporary:
                (temporary / "0").mkdir()
                (temporary / "0" / JOURNAL_FILE).touch()
                (temporary / HEAD_FILE).write_bytes(JournalHead(0, 0, 0, self._bundle.seal).line())
        self._clear(made)

    def _clear(self, made: Collection[str] = ()) -> bool:
        """Delete the files of former snapshots and classifiers; True where a snapshot could not be deleted."""
        view = self._store.view
        number, snapshot, fitted = view.snapshot.number, view.snapshot, view.fitted
        old = [
            folder
            for folder in (self._bundle.path / SNAPSHOTS).iterdir()
            if folder.is_dir() and folder.name != str(number) and not folder.name.startswith(".")
        ]
        if number:
            old.append(self._bundle.kb_folder)
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        kept = {*made, *snapshot.files, "" if fitted is None else fitted.name}
        for file in snapshot.journal.parent.glob(f"{CLASSIFIER}*"):
            if file.name not in kept:
                with suppress(OSError):
                    file.unlink()
        return any(folder.exists() for folder in old)

    def _next_id(self, kb: OverlayKnowledgeBase) -> int:
        snapshot = self._store.view.snapshot
        first = kb.base.next_id() if snapshot.next_id is None else snapshot.next_id
        return kb.next_id(first)


def heldout_queries(store: KnowledgeStore) -> NDArray[np.float32] | None:
    """The queries of the held-out rows, for measuring the search's recall; None if these rows are unknown."""
    return None if store.related() is None else store.heldout().queries


def _moved(rows: tuple[int, int] | None, kb: OverlayKnowledgeBase) -> tuple[int, int] | None:
    """First row and end of a range of rows after the removed rows are erased."""
    return None if rows is None else (int(kb.alive[: rows[0]].sum()), int(kb.alive[: rows[1]].sum()))


def _write(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
