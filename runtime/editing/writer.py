"""Changes a bundle's knowledge base on the disk: edits are appended to the journal, and folded into new files."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleIntegrityError, StorageError, UsageError
from ...kb.edits.change import Change
from ...kb.edits.head import GENERATIONS, HEAD_FILE, JournalHead, sync, write_head, writing
from ...kb.edits.journal import MOST_BYTES, Entry, read_journal
from ...kb.edits.merge import fold, searched
from ...kb.edits.overlay import OverlayKnowledgeBase
from ...kb.knowledge_base import KnowledgeBase
from ...kb.storage.atomic import atomic_directory, refusals
from ..bundle.manifest import MANIFEST_FILE, file_record, seal_of
from ..bundle.signature import read_signature
from .edit import How
from .snapshot import GENERATION_FILE, HISTORY_FILE, JOURNAL_FILE, Generation
from .store import KnowledgeStore


class KnowledgeWriter:
    """Makes edits, one at a time among all threads and processes.

    Args:
        store: of the bundle; it sees an edit at once.
    """

    def __init__(self, store: KnowledgeStore) -> None:
        self._store, self._bundle = store, store.bundle

    def edit(
        self, op: str, make: Callable[[OverlayKnowledgeBase, int], Change], how: How, undoes: int | None = None
    ) -> Entry | None:
        """Make an edit; when this returns it is on the disk and in force.

        Args:
            op: what is asked for, of `journal.OPERATIONS`.
            make: gives the change for a knowledge base and the next id that is free; an empty one makes no edit.
            how: who makes it, why, and how long to wait for another edit to end.
            undoes: for an undo, the number of the edit taken back.

        Returns:
            The journal's entry; None where there was nothing to change.

        Raises:
            UsageError: the change is of rows that are not there, or somebody else is editing for too long.
            StorageError: the disk refused; nothing is changed.
        """
        with self._alone(how):
            kb = self._store.edited()
            change = make(kb, self._next_id())
            if not change:
                return None
            kb.check(change)
            entry = self._entry(op, change, how, undoes=undoes)
            self._append(entry)
            try:
                self._store.advance(kb.apply(change))
            except BaseException:  # it is made, and on the disk: whoever looks next opens it anew
                self._store.forget()
                raise
            return entry

    def compact(
        self,
        how: How,
        queries: NDArray[np.float32] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Entry:
        """Fold the edits into a new generation, and erase what was removed.

        Args:
            how: who does it, why, and how long to wait for another edit to end.
            queries: float32 [m, d], to measure the search's recall with; None makes some that are like the keys.
            progress: called with (rows done, rows in all).

        Returns:
            The journal's entry.

        Raises:
            UsageError: somebody else is editing for too long.
            StorageError: the disk refused; nothing is changed, or files with removed rows could not be removed.
        """
        with self._alone(how):
            kb = self._store.edited()
            if kb is not self._store.view.kb:
                found = f"generation {self._store.view.generation.number}, and no edit since"
                raise UsageError("there is nothing to fold in", path=self._bundle.path, found=found)
            self._prepare()
            self._store.check_base()  # what was altered since it was opened is not sealed again
            folded = fold(kb, progress)
            recall = searched(folded, queries, self._bundle.manifest.blend.k).recall
            entry = self._save(kb, folded, recall, how)
            assert entry.generation is not None
            write_head(self._bundle.path, JournalHead(entry.generation, entry.seq, 0, entry.after))
            self._store.reopen()
            del folded, kb
            if self._clear():
                raise StorageError(
                    "the edits are folded in, but files with removed rows could not be removed",
                    path=self._bundle.path,
                    remedy="Permit that, and run `reaugkd kb compact` again.",
                )
            return entry

    @contextmanager
    def _alone(self, how: How) -> Iterator[None]:
        """As the only one who edits, from the state that is in force.

        Raises:
            UsageError: the edit would have to be signed, or another bundle is there now.
        """
        self._check_key(how)
        with writing(self._bundle.path, how.wait):
            self._check_bundle()
            with self._store.latest():
                self._check_signed_before(how)
                yield

    def _check_bundle(self) -> None:
        """Whether the bundle is still the one that was opened."""
        path = self._bundle.path / MANIFEST_FILE
        try:
            same = seal_of(path.read_bytes()) == self._bundle.seal
        except OSError:
            same = False
        lost = self._store.view.edited and not (self._bundle.path / GENERATIONS).is_dir()
        if not same or lost:
            raise UsageError(
                "the bundle was replaced since it was opened",
                path=path,
                found="another manifest" if not same else "no edits any more",
                remedy="Open it again.",
            )

    def _check_signed_before(self, how: How) -> None:
        """Nobody leaves an unsigned edit among signed ones by mistake: it could never be taken out again."""
        signature = read_signature(self._bundle.path)
        if signature is None or how.unsigned:
            return
        if how.key is not None and how.key.public.key_id != signature.key_id:
            raise UsageError(
                "the bundle is signed by another key",
                path=self._bundle.path,
                found=f"key {how.key.public.key_id}",
                expected=f"key {signature.key_id}",
                remedy="Sign edits with the key that signed the bundle.",
            )
        if how.key is None:
            raise UsageError(
                "the bundle is signed, and devices that ask for its owner's signature refuse unsigned edits for ever",
                path=self._bundle.path,
                found="no key",
                remedy="Sign the edit: How(key=...), --sign-key; or say How(unsigned=True), --unsigned.",
            )

    def _check_key(self, how: How) -> None:
        signer = self._store.signer
        if signer is not None and (how.key is None or how.key.public != signer):
            raise UsageError(
                "edits of this bundle have to be signed",
                path=self._bundle.path,
                found="no key" if how.key is None else f"key {how.key.public.key_id}",
                expected=f"key {signer.key_id}, as the bundle was opened with require_signature",
                remedy="Give the private key: How(key=...), or --sign-key.",
            )

    def _entry(self, op: str, change: Change, how: How, **more: object) -> Entry:
        head = self._store.view.head
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Entry(head.seq + 1, now, how.name, how.why, op, change, head.after, **more).sealed(how.key)  # type: ignore[arg-type]

    def _append(self, entry: Entry) -> None:
        generation, head = self._store.view.generation, self._store.view.head
        path, line = generation.journal, entry.line()
        try:  # what cannot be read back would lock everybody out
            deque(read_journal(line, path, generation.kb.dtype, generation.kb.ndim, head.seq, head.after), 0)
        except BundleIntegrityError as error:
            raise UsageError("the edit cannot be written down", found=error.found) from error
        self._prepare()
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
                os.ftruncate(file, head.length)  # what an edit left that was cut off
                _write(file, line, head.length)
                sync(file)
            except BaseException:
                os.ftruncate(file, head.length)
                raise
            finally:
                os.close(file)
        write_head(self._bundle.path, JournalHead(head.generation, entry.seq, head.length + len(line), entry.after))

    def _save(self, kb: OverlayKnowledgeBase, folded: KnowledgeBase, recall: float, how: How) -> Entry:
        """Write the next generation's folder; it is not in force yet."""
        number = self._store.view.generation.number + 1
        folder = self._bundle.path / GENERATIONS / str(number)
        with atomic_directory(folder) as temporary:
            folded.save(temporary)
            files = {file.name: file_record(file) for file in sorted(temporary.iterdir())}
            hashes = {name: record.sha256 for name, record in files.items()}
            made = Generation(
                number,
                folder,
                kb.labels,
                folded.config,
                len(folded),
                self._store.view.head.seq + 1,
                "",
                pins=True,
                next_id=self._next_id(),
                related=_moved(self._store.related(), kb),
                recall=recall,
                odds=kb.odds,
                texts=self._store.view.generation.texts,
            )
            hashes[GENERATION_FILE] = made.digest()
            entry = self._entry("compact", Change(), how, generation=number, files=hashes)
            with (temporary / HISTORY_FILE).open("wb") as history:
                for line in (*self._store.log(), entry):
                    history.write(line.erased(lambda row: kb.find(row) is None).line())
            (temporary / JOURNAL_FILE).touch()
            records = {**files, HISTORY_FILE: file_record(temporary / HISTORY_FILE)}
            replace(made, after=entry.after, files=records).save(temporary, self._bundle.manifest, self._bundle.seal)
        return entry

    def _prepare(self) -> None:
        """Make the folder of generations with the first edit; clear away what a fold left that was cut off."""
        folder = self._bundle.path / GENERATIONS
        if not folder.exists():
            with atomic_directory(folder) as temporary:
                (temporary / "0").mkdir()
                (temporary / "0" / JOURNAL_FILE).touch()
                (temporary / HEAD_FILE).write_bytes(JournalHead(0, 0, 0, self._bundle.seal).line())
        self._clear()

    def _clear(self) -> bool:
        """Remove the files of generations that are not in force; whether some could not be."""
        number = self._store.view.generation.number
        old = [
            folder
            for folder in (self._bundle.path / GENERATIONS).iterdir()
            if folder.is_dir() and folder.name != str(number) and not folder.name.startswith(".")
        ]
        if number:
            old.append(self._bundle.kb_folder)
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return any(folder.exists() for folder in old)

    def _next_id(self) -> int:
        generation, kb = self._store.view.generation, self._store.view.kb
        first = generation.next_id
        if first is None:
            first = (kb.base if isinstance(kb, OverlayKnowledgeBase) else kb).next_id()
        return kb.next_id(first) if isinstance(kb, OverlayKnowledgeBase) else first


def _moved(rows: tuple[int, int] | None, kb: OverlayKnowledgeBase) -> tuple[int, int] | None:
    """Where the rows from one number up to another will be when the removed ones are gone."""
    return None if rows is None else (int(kb.alive[: rows[0]].sum()), int(kb.alive[: rows[1]].sum()))


def _write(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
