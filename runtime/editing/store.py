"""A bundle's knowledge base as it stands: the generation in force and the edits of its journal.

Readers never wait and never see half an edit: `KnowledgeStore.current` looks at HEAD, four microseconds a time, and
takes in what was added to the journal since. Writers take turns (`kb.head.writing`). An edit is made in this order:
its line is in the journal and on the disk; HEAD says so, and that is on the disk. Cut off anywhere, the state is the
old one or the new one, and what is left over is cleared away by the next edit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BundleError, BundleIntegrityError, UsageError
from ...kb.edits.head import HeadFile, JournalHead
from ...kb.knowledge_base import TEXTS_FILE, KnowledgeBase
from ...kb.storage.ed25519 import PublicKey
from ...kb.texts import DIGESTS_FILE
from ..bundle.bundle import KB_FOLDER, Bundle, check_file, plain_size
from ..bundle.heldout_rows import HELDOUT_FILE, HeldOutRows
from .snapshot import GENERATION_FILE, HISTORY_FILE, Generation

if TYPE_CHECKING:
    from ...kb.edits.change import NewRow
    from ...kb.edits.journal import Entry
    from ...kb.edits.overlay import OverlayKnowledgeBase

# What reads edits is imported where there are some: most bundles have none, and it takes 15 ms.

_TRIES = (False, False, False, False, True)  # to open a generation while others are folding; True is the last


@dataclass(frozen=True)
class View:
    """The knowledge base at one moment.

    Attributes:
        kb: its rows.
        labels: all labels' names, those that the student was taught first.
        head: which edit was the last one.
        generation: what the edits since began from.
        line: what HEAD said; empty before the first edit.
    """

    kb: KnowledgeBase
    labels: tuple[str, ...]
    head: JournalHead
    generation: Generation
    line: bytes = b""

    @property
    def edited(self) -> bool:
        """Whether there was any edit since the export."""
        return self.head.seq > 0


class KnowledgeStore:
    """The knowledge base of an open bundle as it stands; `writer.KnowledgeWriter` edits it.

    Args:
        bundle: checked.
        verify: check the SHA-256 sums of a generation's files too.
        signer: whose signature every edit must have; None for nobody's.

    Attributes:
        bundle: as given, its folder by its own name: a link to it may lead elsewhere later.
        verify: as given.
        signer: as given.
        view: what `current` gave last.

    Raises:
        BundleIntegrityError: a file of the edits is missing, truncated or altered.
        BundleError: the parts do not fit each other.
    """

    def __init__(self, bundle: Bundle, verify: bool = True, signer: PublicKey | None = None) -> None:
        self.bundle = replace(bundle, path=bundle.path.resolve())
        self.verify, self.signer = verify, signer
        self._head = HeadFile(self.bundle.path)
        self._refreshing = threading.Lock()
        self.view = self._open()

    def current(self) -> View:
        """The knowledge base as it is now.

        Raises:
            BundleIntegrityError: what was added since the last call is damaged, or not signed as it has to be.
        """
        # While one thread takes edits in, the others go on with what they have.
        if self._head.look() != self.view.line and self._refreshing.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._refreshing.release()
        return self.view

    @contextmanager
    def latest(self) -> Iterator[None]:
        """What is in force now, and for as long as the block lasts nobody takes edits in but `advance` and `reopen`.

        Raises:
            BundleIntegrityError: what was added meanwhile is damaged.
        """
        with self._refreshing:
            self._refresh()
            yield

    def advance(self, kb: OverlayKnowledgeBase) -> None:
        """Take in what HEAD says now, as somebody made ``kb`` of it who is at it within `latest`."""
        line, head = self._head.read()
        assert head is not None
        self.view = View(kb, kb.labels, head, self.view.generation, line)

    def forget(self) -> None:
        """Let the next one who asks open everything anew."""
        self.view = replace(self.view, line=b"?")

    def reopen(self) -> None:
        """Open what HEAD names now, within `latest`."""
        self.view = self._open()

    def edited(self) -> OverlayKnowledgeBase:
        """The knowledge base of the last `current`, as one that edits can be made to."""
        from ...kb.edits.overlay import OverlayKnowledgeBase

        kb, view = self.view.kb, self.view
        if isinstance(kb, OverlayKnowledgeBase):
            return kb
        return OverlayKnowledgeBase(kb, view.labels, keeps_texts=view.generation.texts == "plain")

    def log(self) -> list[Entry]:
        """Every edit since the export, first to last, each checked against the one before it.

        Raises:
            BundleIntegrityError: the history or the journal is damaged, or an edit is not signed as it has to be.
        """
        for last in _TRIES:
            view = self.current()
            try:
                since = self._entries(view.generation, view.head, view.generation.begin)
                return [*self._history(view.generation), *since]
            except BundleError:
                if last or self._head.look() == view.line:  # else somebody folded meanwhile
                    raise
        raise AssertionError

    def heldout(self) -> HeldOutRows:
        """The held-out rows of the bundle.

        Raises:
            BundleError: it has none, or they do not fit.
        """
        manifest = self.bundle.manifest
        return HeldOutRows.open(self.bundle.path, len(manifest.labels), manifest.kb.ndim, manifest.kb_rows)

    def related(self) -> tuple[int, int] | None:
        """The rows, from the first number up to the second, that are the held-out rows; None where there are none."""
        generation = self.view.generation
        if generation.number or HELDOUT_FILE not in self.bundle.manifest.files:
            return generation.related
        return self.heldout().unrelated, generation.kb_rows

    def check_base(self) -> None:
        """Whether the files that the edits build on are as they were sealed.

        Raises:
            BundleIntegrityError: one is missing, truncated or altered.
        """
        generation = self.view.generation
        if generation.number:
            folder, files = generation.folder, generation.files
        else:
            folder = self.bundle.path
            files = {name: one for name, one in self.bundle.manifest.files.items() if name.startswith(f"{KB_FOLDER}/")}
        for name, record in files.items():
            check_file(folder, name, record, self.verify)

    def _refresh(self) -> None:
        line, head = self._head.read()
        if line == self.view.line:
            return
        try:
            self.view = self._extended(line, head)
        except (BundleError, UsageError):
            self.view = self._open()

    def _extended(self, line: bytes, head: JournalHead | None) -> View:
        """The view with the edits that came since.

        Raises:
            BundleError: HEAD speaks of another generation, or what it speaks of does not follow.
            UsageError: as of `EditedKnowledgeBase.apply`.
        """
        view = self.view
        if head is None or head.generation != view.generation.number or head.seq < view.head.seq:
            raise BundleError("another generation is in force")
        entries = self._entries(view.generation, head, view.head)
        kb = self.edited().applied([entry.change for entry in entries])
        return View(kb, kb.labels, head, view.generation, line)

    def _open(self) -> View:
        for last in _TRIES:
            line, head = self._head.read()
            try:
                return self._opened(line, head)
            except BundleError:
                # Somebody else may have folded meanwhile, and removed what this one was about to open.
                if last or self._head.look() == line:
                    raise
        raise AssertionError

    def _opened(self, line: bytes, head: JournalHead | None) -> View:
        bundle = self.bundle
        if head is None or head.generation == 0:
            generation = Generation.export(bundle.kb_folder, bundle.manifest, bundle.seal)
        else:
            generation = Generation.open(bundle.path, head, bundle.manifest, bundle.seal)
            for name, record in generation.files.items():
                check_file(generation.folder, name, record, self.verify)
            _refuse_unlisted(generation)
            if self.signer is not None:  # the fold that made the files has to be signed, and all before it
                self._history(generation)
        labels, config = generation.labels, generation.kb
        kb = KnowledgeBase.open(generation.folder, config, len(labels), generation.pins, generation.odds)
        _check_rows(kb, generation)
        if head is None:
            return View(kb, labels, generation.begin, generation)
        entries = self._entries(generation, head, generation.begin)
        if not entries:
            return View(kb, labels, head, generation, line)
        from ...kb.edits.journal import damaged
        from ...kb.edits.overlay import OverlayKnowledgeBase

        edited = OverlayKnowledgeBase(kb, labels, keeps_texts=generation.texts == "plain")
        try:
            edited = edited.applied([entry.change for entry in entries])
        except UsageError as error:
            raise damaged(generation.journal, str(error)) from error
        return View(edited, edited.labels, head, generation, line)

    def _history(self, generation: Generation) -> list[Entry]:
        """The edits before a generation, the last of which made it."""
        if not generation.number:
            return []
        from ...kb.edits.journal import damaged, read_journal

        path, config = generation.folder / HISTORY_FILE, generation.kb
        record = generation.files.get(HISTORY_FILE)
        if record is None:
            raise damaged(path, "a history that is not listed")
        check_file(generation.folder, HISTORY_FILE, record, self.verify)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise damaged(path, str(error.strerror)) from error
        entries = list(read_journal(data, path, config.dtype, config.ndim, 0, self.bundle.seal))
        self._check_signatures(entries, path)
        if not entries or (entries[-1].seq, entries[-1].after) != (generation.seq, generation.after):
            raise damaged(path, f"{len(entries)} edits, where {generation.seq} were")
        hashes = {name: record.sha256 for name, record in generation.files.items() if name != HISTORY_FILE}
        if entries[-1].files != {**hashes, GENERATION_FILE: generation.digest()}:
            raise damaged(path, "a fold that made other files, or another table of contents")
        return entries

    def _entries(self, generation: Generation, head: JournalHead, known: JournalHead) -> list[Entry]:
        """Those of the journal from one state up to where HEAD says that it ends."""
        path, config = generation.journal, generation.kb
        if (head.length, head.seq, head.after) == (known.length, known.seq, known.after):
            return []
        from ...kb.edits.journal import damaged, read_journal

        data = _read(self.bundle.path, path, known.length, head.length)
        entries = list(read_journal(data, path, config.dtype, config.ndim, known.seq, known.after))
        self._check_signatures(entries, path)
        if not entries or (entries[-1].seq, entries[-1].after) != (head.seq, head.after):
            raise damaged(path, f"{len(entries)} edits after edit {known.seq}, where HEAD says {head.seq}")
        for entry in entries:
            if any(not _kept(row, generation.texts) for row in entry.change.add):
                raise damaged(path, f"edit {entry.seq}: a row without its key, or without what is kept of its text")
        return entries

    def _check_signatures(self, entries: list[Entry], path: Path) -> None:
        if self.signer is not None:
            for entry in entries:
                entry.check_signature(self.signer, path)


def _kept(row: NewRow, texts: str) -> bool:
    """Whether a row of the journal has its payload, and of its text what this knowledge base keeps."""
    payload = row.payload
    if payload is None:  # which only a history may lack
        return False
    return (payload.text is not None) == (texts == "plain") and (payload.text_digest is not None) == (texts == "hash")


def _refuse_unlisted(generation: Generation) -> None:
    """A file that nobody listed, and that would be read where it is."""
    for name in (TEXTS_FILE, DIGESTS_FILE):
        path = generation.folder / name
        if name not in generation.files and os.path.lexists(path):
            raise BundleIntegrityError(
                "the generation's table of contents does not list the file",
                path=path,
                found="a file that was put there",
                remedy="Remove it.",
            )


def _check_rows(kb: KnowledgeBase, generation: Generation) -> None:
    for name, found, expected in (
        ("rows", len(kb), generation.kb_rows),
        ("labels", kb.num_labels, len(generation.labels)),
    ):
        if found != expected:
            raise BundleError(
                f"the knowledge base has another number of {name} than the manifest",
                path=generation.folder,
                found=found,
                expected=str(expected),
                remedy="Export the bundle again.",
            )


def _read(bundle: Path, path: Path, start: int, end: int) -> bytes:
    """Some bytes of a journal."""
    from ...kb.edits.journal import MOST_BYTES, damaged

    found = plain_size(bundle, path.relative_to(bundle).as_posix(), f"{end} bytes")
    if end > MOST_BYTES or found < end or start > end:
        raise damaged(path, f"{found} bytes, where HEAD says {end}")
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
    except OSError as error:
        raise damaged(path, str(error.strerror)) from error
