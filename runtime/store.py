"""A bundle's knowledge base as it stands: the generation in force and the edits of its journal.

Readers never wait and never see half an edit: `KnowledgeStore.current` looks at HEAD, which costs a microsecond, and
takes in what was added to the journal since. Writers take turns (`kb.head.writing`). An edit is made in this order:
its line is in the journal and on the disk; HEAD says so, and that is on the disk. Cut off anywhere, the state is the
old one or the new one, and what is left over is cleared away by the next edit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import BundleError, BundleIntegrityError, UsageError
from ..kb.edited import EditedKnowledgeBase
from ..kb.head import Head, HeadFile
from ..kb.journal import MOST_BYTES, Entry, damaged, read_journal
from ..kb.knowledge_base import KnowledgeBase
from ..kb.signature import PublicKey
from .bundle import Bundle, check_file
from .generation import GENERATION_FILE, HISTORY_FILE, JOURNAL_FILE, Generation
from .heldout import HELDOUT_FILE, HeldOutRows

_TRIES = 5  # to open a generation while others are folding


@dataclass(frozen=True)
class View:
    """The knowledge base at one moment.

    Attributes:
        kb: its rows.
        labels: all labels' names, those that the student was taught first.
        head: which edit was the last one.
        generation: what the edits since began from.
    """

    kb: KnowledgeBase
    labels: tuple[str, ...]
    head: Head
    generation: Generation

    @property
    def edited(self) -> bool:
        """Whether there was any edit since the export."""
        return self.head.seq > 0


class KnowledgeStore:
    """The knowledge base of an open bundle, read and edited.

    Args:
        bundle: checked.
        verify: check the SHA-256 sums of a generation's files too.
        signer: whose signature every edit must have; None for nobody's.

    Attributes:
        view: what `current` gave last.
        signer: as given.

    Raises:
        BundleIntegrityError: a file of the edits is missing, truncated or altered.
        BundleError: the parts do not fit each other.
    """

    def __init__(self, bundle: Bundle, verify: bool = True, signer: PublicKey | None = None) -> None:
        self._bundle, self._verify, self.signer = bundle, verify, signer
        self._head = HeadFile(bundle.path)
        self._refreshing = threading.Lock()
        self.view = self._open()

    def current(self) -> View:
        """The knowledge base as it is now.

        Raises:
            BundleIntegrityError: what was added since the last call is damaged.
        """
        # While one thread takes edits in, the others go on with what they have.
        if self._head.changed() and self._refreshing.acquire(blocking=False):
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

    def advance(self, kb: EditedKnowledgeBase) -> None:
        """Take in what HEAD says now, as somebody made ``kb`` of it who is at it within `latest`."""
        head = self._head.read()
        assert head is not None
        self.view = View(kb, kb.labels, head, self.view.generation)

    def reopen(self) -> None:
        """Open the generation that HEAD names now, within `latest`."""
        self.view = self._open()

    def log(self) -> Iterator[Entry]:
        """Every edit since the export, first to last, each checked against the one before it.

        Raises:
            BundleIntegrityError: the history or the journal is damaged, or an edit is not signed as it has to be.
        """
        view = self.current()
        yield from self._history(view.generation)
        yield from self._entries(view.generation, view.head, 0, view.generation.seq, view.generation.after)

    def _history(self, generation: Generation) -> Iterator[Entry]:
        """The edits before a generation, the last of which made it."""
        if not generation.number:
            return
        path, config = generation.folder / HISTORY_FILE, generation.kb
        entry = None
        for entry in read_journal(_read(path, None), path, config.dtype, config.ndim, 0, self._bundle.seal):
            self._check_signature(entry, path)
            yield entry
        if entry is None or (entry.seq, entry.after) != (generation.seq, generation.after):
            raise damaged(path, f"edit {entry and entry.seq} last, where {generation.seq} was")
        if entry.files != {name: record.sha256 for name, record in generation.files.items() if name != HISTORY_FILE}:
            raise damaged(path, "a fold that made other files")

    def _check_signature(self, entry: Entry, path: Path) -> None:
        if self.signer is not None:
            entry.check_signature(self.signer, path)

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        return self._bundle

    def heldout(self) -> HeldOutRows:
        """The held-out rows of the bundle.

        Raises:
            BundleError: it has none, or they do not fit.
        """
        manifest = self._bundle.manifest
        return HeldOutRows.open(self._bundle.path, len(manifest.labels), manifest.kb.ndim, manifest.kb_rows)

    def related(self) -> tuple[int, int] | None:
        """The rows, from the first number up to the second, that are the held-out rows; None where there are none."""
        generation = self.view.generation
        if generation.number or HELDOUT_FILE not in self._bundle.manifest.files:
            return generation.related
        return self.heldout().unrelated, generation.kb_rows

    def _open(self) -> View:
        for last in [False] * (_TRIES - 1) + [True]:
            head = self._head.read()
            try:
                return self._opened(head)
            except (FileNotFoundError, BundleIntegrityError) as error:
                # Somebody else may have folded meanwhile, and removed what this one was about to open.
                if not last and self._head.read() != head:
                    continue
                if isinstance(error, FileNotFoundError):
                    raise BundleIntegrityError(
                        "the generation in force is missing",
                        path=Path(str(error.filename)),
                        remedy="Restore it from a copy of the bundle.",
                    ) from error
                raise
        raise AssertionError

    def _opened(self, head: Head | None) -> View:
        bundle = self._bundle
        if head is None or head.generation == 0:
            generation = Generation.export(bundle.kb_folder, bundle.manifest, bundle.seal)
        else:
            generation = Generation.open(bundle.path, head, bundle.manifest, bundle.seal)
            for name, record in generation.files.items():
                check_file(generation.folder, name, record, self._verify)
            _refuse_others(generation)
            if self.signer is not None:  # the fold that made the files has to be signed, and all before it
                deque(self._history(generation), 0)
        kb = KnowledgeBase.open(
            generation.folder, generation.kb, len(generation.labels), generation.pins, generation.odds
        )
        _check_rows(kb, generation)
        if head is None:
            return View(kb, generation.labels, Head(0, 0, 0, bundle.seal), generation)
        entries = list(self._entries(generation, head, 0, generation.seq, generation.after))
        began = View(
            kb, generation.labels, replace(head, seq=generation.seq, length=0, after=generation.after), generation
        )
        if not entries:
            return began
        return self._applied(began, EditedKnowledgeBase(kb, generation.labels), entries, head)

    def _refresh(self) -> None:
        head = self._head.read()
        view = self.view
        if head is None or head == view.head:
            return
        if head.generation != view.generation.number or head.length < view.head.length:
            self.view = self._open()
            return
        try:
            entries = list(self._entries(view.generation, head, view.head.length, view.head.seq, view.head.after))
        except (FileNotFoundError, BundleIntegrityError):
            if self._head.read() == head:
                raise
            self.view = self._open()
            return
        self.view = self._applied(view, self.edited(), entries, head)

    def _applied(self, view: View, kb: EditedKnowledgeBase, entries: list[Entry], head: Head) -> View:
        for entry in entries:
            try:
                kb = kb.apply(entry.change)
            except UsageError as error:
                raise damaged(view.generation.journal, f"edit {entry.seq}: {error}") from error
        return View(kb, kb.labels, head, view.generation)

    def edited(self) -> EditedKnowledgeBase:
        """The knowledge base of the last `current`, as one that edits can be made to."""
        kb = self.view.kb
        return kb if isinstance(kb, EditedKnowledgeBase) else EditedKnowledgeBase(kb, self.view.labels)

    def _entries(self, generation: Generation, head: Head, start: int, seq: int, after: str) -> Iterator[Entry]:
        """Those of the journal from a byte up to where HEAD says that it ends."""
        path, config = generation.journal, generation.kb
        data = b"" if head.length == start == 0 and not path.exists() else _read(path, head.length)[start:]
        for entry in read_journal(data, path, config.dtype, config.ndim, seq, after):
            seq, after = entry.seq, entry.after
            self._check_signature(entry, path)
            yield entry
        if (seq, after) != (head.seq, head.after):
            raise damaged(path, f"edit {seq} last, where HEAD says {head.seq}")


def _refuse_others(generation: Generation) -> None:
    """A file that nobody listed would be read where it has the name of one that may be there."""
    known = {*generation.files, GENERATION_FILE, JOURNAL_FILE}
    for path in generation.folder.iterdir():
        if path.name not in known:
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


def _read(path: Path, size: int | None) -> bytes:
    """The first bytes of a file of edits, all of them for None."""
    if path.is_symlink():
        raise damaged(path, "a link")
    try:
        found = path.stat().st_size
        wanted = found if size is None else size
        if wanted > MOST_BYTES or found < wanted:
            raise damaged(path, f"{found} bytes where HEAD says {wanted}")
        with path.open("rb") as file:
            return file.read(wanted)
    except FileNotFoundError as error:
        raise BundleIntegrityError("the file is missing", path=path, remedy="Restore it from a copy.") from error
