"""Proof that a bundle's knowledge base is what its journal says: the chain of hashes, and the edits made once more."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from ...errors import BundleIntegrityError, UsageError
from ...kb.edits.journal import Entry, damaged
from ...kb.edits.merge import fold
from ...kb.storage.atomic import sha256_file
from ..bundle.bundle import Bundle
from .snapshot import GENERATION_FILE
from .store import KnowledgeStore


@dataclass(frozen=True)
class Verified:
    """What was proved.

    Attributes:
        edits: edits whose hashes follow one from the other, from the export's seal to HEAD.
        generation: the generation in force, whose files are as its table says.
        rows: rows that are not removed.
        removed: rows that are removed, and not folded away.
        replayed: edits that were made once more on the export, with the same files as the result; None for not asked.
    """

    edits: int
    generation: int
    rows: int
    removed: int
    replayed: int | None = None


def verify(store: KnowledgeStore, export: Path | None = None) -> Verified:
    """Check the chain of edits; with a copy of the export, make them again and compare the files.

    Args:
        store: of a bundle that was opened with verification.
        export: the bundle as it was exported; None leaves the comparison out.

    Raises:
        BundleIntegrityError: the journal or a file is damaged, or the edits lead to other files.
        UsageError: the export is another bundle, or was edited itself.
    """
    entries = store.log()
    view, kb = store.current(), store.edited()
    replayed = None if export is None else _replay(store, export, entries)
    return Verified(len(entries), view.generation.number, len(kb), kb.removed, replayed)


def _replay(store: KnowledgeStore, export: Path, entries: list[Entry]) -> int:
    original = KnowledgeStore(Bundle.open(export))
    if original.bundle.seal != store.bundle.seal:
        raise UsageError("the export is another bundle", path=export, expected=f"the seal {store.bundle.seal}")
    if original.current().edited:
        raise UsageError("the export was edited", path=export, expected="a copy from before the first edit")
    folds = [number for number, entry in enumerate(entries) if entry.op == "compact"]
    if not folds:
        return 0  # nothing but the journal differs from the export, and its chain begins with the export's seal
    last = entries[folds[-1]]
    kb = original.edited()
    try:
        kb = kb.applied([entry.change for entry in entries[: folds[-1]]])
    except UsageError as error:
        raise damaged(store.current().generation.folder, str(error)) from error
    with tempfile.TemporaryDirectory() as folder:
        fold(kb).save(Path(folder))
        found = {file.name: sha256_file(file) for file in Path(folder).iterdir()}
    expected = {name: digest for name, digest in (last.files or {}).items() if name != GENERATION_FILE}
    if found != expected:
        other = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise BundleIntegrityError(
            "the edits, made once more, lead to other files",
            path=store.bundle.path,
            found=", ".join(other),
            expected=f"the files of generation {last.generation}",
            remedy="Processors of another family may build another graph: compare on the one that folded.",
        )
    return folds[-1]
