"""Verification of a bundle's edits: the chain of hashes, and a repetition of the edits on a copy of the export."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from ...errors import BundleIntegrityError, UsageError
from ...kb.edits.journal import Entry, damaged
from ...kb.edits.merge import add_lists, merge_edits
from ...kb.storage.atomic import sha256_file
from ..bundle.bundle import Bundle
from .snapshot import CLASSIFIER, SNAPSHOT_FILE
from .store import KnowledgeStore
from .writer import heldout_queries


@dataclass(frozen=True)
class Verified:
    """The result of a verification.

    Attributes:
        edits: number of edits in the chain of hashes from the export's seal to HEAD.
        snapshot: number of the current snapshot, whose files match its table.
        rows: number of rows that are not removed.
        removed: number of removed rows that no compaction has erased.
        replayed: number of edits that were repeated on the export and gave the same files; None without an export.
            The classifier of new labels is not compared.
    """

    edits: int
    snapshot: int
    rows: int
    removed: int
    replayed: int | None = None


def verify_history(store: KnowledgeStore, export: Path | None = None) -> Verified:
    """Check the chain of edits; with a copy of the export, repeat them and compare the files.

    Args:
        store: the store of a bundle that was opened with verification.
        export: a copy of the bundle from before the first edit. Default: no comparison.

    Raises:
        BundleIntegrityError: the journal or a file is damaged, or the edits give other files.
        UsageError: the export is another bundle, or has edits.
    """
    entries = store.log()
    view, kb = store.current(), store.edited()
    replayed = None if export is None else _replay(store, export, entries)
    return Verified(len(entries), view.snapshot.number, len(kb), kb.removed, replayed)


def _replay(store: KnowledgeStore, export: Path, entries: list[Entry]) -> int:
    original = KnowledgeStore(Bundle.open(export))
    if original.bundle.seal != store.bundle.seal:
        raise UsageError("the export is another bundle", path=export, expected=f"the seal {store.bundle.seal}")
    if original.current().head.seq:  # also where all were undone: the edits are repeated on rows without a journal
        raise UsageError("the export has edits", path=export, expected="a copy from before the first edit")
    compactions = [number for number, entry in enumerate(entries) if entry.op == "compact"]
    if not compactions:
        return 0  # only the journal differs from the export, and its chain begins with the export's seal
    last = entries[compactions[-1]]
    kb = original.edited()
    try:
        kb = kb.applied([entry.change for entry in entries[: compactions[-1]]])
    except UsageError as error:
        raise damaged(store.current().snapshot.folder, str(error)) from error
    with tempfile.TemporaryDirectory() as folder:
        add_lists(merge_edits(kb), heldout_queries(original), original.bundle.manifest.blend.k).save(Path(folder))
        found = {file.name: sha256_file(file) for file in Path(folder).iterdir()}
    # A fit is not repeated: it begins with the one before, and other processors and libraries round otherwise.
    skipped = (SNAPSHOT_FILE, CLASSIFIER)
    expected = {name: digest for name, digest in (last.files or {}).items() if not name.startswith(skipped)}
    if found != expected:
        other = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise BundleIntegrityError(
            "the repeated edits give other files",
            path=store.bundle.path,
            found=", ".join(other),
            expected=f"the files of snapshot {last.snapshot}",
            remedy="Another family of processors may build another graph: compare on the one that compacted.",
        )
    return compactions[-1]
