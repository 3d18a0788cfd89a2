"""A copy of a bundle in its current state, edits included."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

from ...kb.edits.head import HEAD_FILE, SNAPSHOTS, write_lock
from ...kb.storage.atomic import atomic_directory, refuse_existing
from ..bundle.bundle import KB_FOLDER, STUDENT_FOLDER, Bundle
from ..bundle.files import Links, find_file
from ..bundle.heldout_rows import HELDOUT_FILE
from ..bundle.manifest import MANIFEST_FILE, SIGNATURE_FILE, UNSEALED_FILES
from ..editing.snapshot import SNAPSHOT_FILE
from ..editing.store import KnowledgeStore

BUNDLE_FILES = (
    *(MANIFEST_FILE, SIGNATURE_FILE, HELDOUT_FILE),
    *(f"{folder}/*" for folder in (STUDENT_FOLDER, KB_FOLDER, SNAPSHOTS)),
    *UNSEALED_FILES,
)
"""Patterns of the files of a bundle in a repository; everything else there is left alone."""

_WAIT = 10.0  # seconds for an edit that is running


def copy_bundle(path: Path, out: Path, follow_links: bool = False) -> KnowledgeStore:
    """Check a bundle and copy its current state, with the edits since the export and their log.

    No edit takes place meanwhile. Files that are not of the bundle, and those of replaced snapshots, are not copied.

    Args:
        path: the bundle.
        out: folder of the copy; must not exist.
        follow_links: same as `Bundle.open`; the copy has no links.

    Returns:
        The bundle at ``path``, as it was copied.

    Raises:
        BundleError: the bundle cannot be used.
        OutputExistsError: ``out`` exists.
        UsageError: an edit of the bundle takes longer than ten seconds.
        StorageError: the files cannot be written.
    """
    refuse_existing(out)
    bundle = Bundle.open(path, verify=False, follow_links=follow_links)
    # On Windows a bundle cannot be edited.
    with nullcontext() if sys.platform == "win32" else write_lock(bundle.path, _WAIT):
        store = KnowledgeStore(Bundle.open(path, follow_links=follow_links))
        with atomic_directory(out) as folder:
            for name in dict.fromkeys(_files(store, "followed" if follow_links else "inside")):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(store.bundle.path / name, folder / name)
    return store


def _files(store: KnowledgeStore, links: Links) -> list[str]:
    """The files of the current state, by their paths in the bundle.

    Raises:
        BundleError: one that the manifest does not list is no plain file: it could be any file of this machine.
    """
    root, view, listed = store.bundle.path, store.view, list(store.bundle.manifest.files)
    snapshot, names = view.snapshot, [MANIFEST_FILE]
    for name in (SIGNATURE_FILE, *UNSEALED_FILES):
        if os.path.lexists(root / name):
            find_file(root, name, "a file", links)
            names.append(name)
    if snapshot.number:
        listed = [name for name in listed if not name.startswith(f"{KB_FOLDER}/")]
        names += [f"{SNAPSHOTS}/{snapshot.number}/{name}" for name in (SNAPSHOT_FILE, *snapshot.files)]
    if view.line:
        names.append(f"{SNAPSHOTS}/{HEAD_FILE}")
    if snapshot.journal.is_file():
        names.append(snapshot.journal.relative_to(root).as_posix())
    if view.fitted is not None:
        names.append((snapshot.journal.parent / view.fitted.name).relative_to(root).as_posix())
    return names + listed
