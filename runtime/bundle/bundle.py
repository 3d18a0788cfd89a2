"""A bundle on disk: its file names, and the checks of every file before it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import BundleError, BundleIntegrityError, UsageError
from ...kb.edits.head import HEAD_FILE, SNAPSHOTS, HeadFile
from ...kb.index.lists import LISTS_FILE
from ...kb.index.shards import INDEX_FILE, SHARDS_FILE, SHARDS_FOLDER
from ...kb.knowledge_base import ROWS_FILE, SOFT_LABELS_FILE, TEXTS_FILE
from ...kb.storage.ed25519 import PublicKey
from ...kb.storage.strict_json import parse_json
from ...kb.texts import DIGESTS_FILE
from .files import AGAIN, Identity, Links, check_file, copy_command, find_file, identity_of
from .heldout_rows import HELDOUT_FILE
from .manifest import MANIFEST_FILE, Manifest, seal_of, sealed
from .signature import check_signature

STUDENT_FOLDER, KB_FOLDER = "student", "kb"
MODEL_FILE = f"{STUDENT_FOLDER}/model.onnx"
TOKENIZER_FILE = f"{STUDENT_FOLDER}/tokenizer.json"

# Every file that the runtime reads, beside MANIFEST_FILE and SIGNATURE_FILE (manifest.py) and the edits (editing/).
REQUIRED_FILES = (
    MODEL_FILE,
    TOKENIZER_FILE,
    *(f"{KB_FOLDER}/{name}" for name in (SOFT_LABELS_FILE, ROWS_FILE)),
)
INDEX_FILES = (f"{KB_FOLDER}/{INDEX_FILE}", f"{KB_FOLDER}/{SHARDS_FILE}")
"""One of them is required: the index is one file, or in shards."""

OPTIONAL_FILES = (
    *INDEX_FILES,
    *(f"{KB_FOLDER}/{name}" for name in (TEXTS_FILE, DIGESTS_FILE, LISTS_FILE)),
    HELDOUT_FILE,
)
MOST_MANIFEST_BYTES = 8 * 2**20
"""The largest manifest; one with a thousand labels has 100 kB."""


@dataclass(frozen=True)
class Bundle:
    """A checked bundle.

    Attributes:
        path: the bundle's folder, absolute.
        manifest: the manifest as it was exported; `store.KnowledgeStore` has the edits since then.
        content: the bytes of the manifest file.
        links: the files that links lead to, by their paths in the bundle, as they were checked.
    """

    path: Path
    manifest: Manifest
    content: bytes = field(default=b"", repr=False, compare=False)
    links: Mapping[str, Identity] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(
        cls,
        path: Path | str,
        verify: bool = True,
        require_signature: PublicKey | None = None,
        follow_links: bool = False,
    ) -> Bundle:
        """Read the manifest and check every file that it lists; unlisted files that the runtime reads are refused.

        The folder itself may be a link. The files in it must be plain files, or links that stay inside the folder
        (`files`). Call `check_links` after they were read.

        Args:
            path: the bundle's folder.
            verify: check the SHA-256 of every file; without it, only existence and sizes are checked.
            require_signature: the key that the manifest must be signed with.
            follow_links: follow links that lead out of the folder too.

        Raises:
            BundleIntegrityError: a file is missing, truncated or altered; the runtime would read an unlisted file; or
                the required signature is missing or made with another key.
            UsageError: a signature is required without a check of the files.
            BundleVersionError: a newer reaugkd wrote the bundle.
            BundleError: this is not a bundle, or it has pipes, links that lead out of it, or unusable values.
        """
        folder = Path(path).absolute()
        if require_signature is not None and not verify:
            raise UsageError(
                "a signature is required without a check of the files",
                path=folder,
                found="verify=False",
                remedy="Do not set verify=False: the signature covers the hashes, and the hashes cover the files.",
            )
        links: Links = "followed" if follow_links else "inside"
        _refuse_linked_edits(folder, MANIFEST_FILE)
        manifest, content, linked = _read_manifest(folder, verify, require_signature, links)
        for name in (*REQUIRED_FILES, INDEX_FILES[bool(manifest.kb.probes)]):
            if name not in manifest.files:
                raise BundleError("the manifest does not list a file", path=folder / MANIFEST_FILE, expected=name)
        for name in (*OPTIONAL_FILES, *_shard_files(folder)):
            # The runtime reads it if it exists; an unlisted file would be read unchecked.
            if name not in manifest.files and os.path.lexists(folder / name):
                raise BundleIntegrityError(
                    "the manifest does not list a file of the bundle",
                    path=folder / name,
                    expected="no such file, or its size and hash in the manifest",
                    remedy=AGAIN,
                )
        linked |= _check_files(folder, manifest, verify, links)
        if linked:
            _refuse_linked_edits(folder, next(iter(linked)))
        return cls(folder, manifest, content, linked)

    def check_links(self) -> None:
        """Check that the links lead to the same files as when these were checked; call it after they were read.

        Raises:
            BundleError: they lead to other files, or a file has changed.
        """
        for name, checked in self.links.items():
            try:
                same = identity_of((self.path / name).stat()) == checked
            except OSError:
                same = False
            if not same:
                raise BundleError(
                    "a link leads to another file than when the bundle was checked",
                    path=self.path / name,
                    remedy="Open the bundle again.",
                )

    def replaced(self) -> bool:
        """Whether the folder is gone, or has another manifest now."""
        try:
            return (self.path / MANIFEST_FILE).read_bytes() != self.content
        except OSError:
            return True

    def refuse_links(self, what: str) -> None:
        """Check that the bundle has no links.

        Args:
            what: the operation that needs plain files, for the message.

        Raises:
            UsageError: links lead to some of its files.
        """
        if self.links:
            raise UsageError(
                f"{what} needs a bundle without links",
                path=self.path,
                found=f"{next(iter(self.links))} behind a link",
                remedy=f"Copy the bundle, and use the copy: `{copy_command(self.path)}`.",
            )

    @property
    def seal(self) -> str:
        """The hash of the manifest, 64 hexadecimal digits."""
        return seal_of(self.content)

    @property
    def model_path(self) -> Path:
        """The student's ONNX file."""
        return self.path / MODEL_FILE

    @property
    def tokenizer_path(self) -> Path:
        """The student's tokenizer."""
        return self.path / TOKENIZER_FILE

    @property
    def kb_folder(self) -> Path:
        """The knowledge base's folder."""
        return self.path / KB_FOLDER


def _shard_files(folder: Path) -> list[str]:
    """What is in the folder of the shards, by its path in the bundle."""
    try:
        return sorted(path.relative_to(folder).as_posix() for path in (folder / KB_FOLDER / SHARDS_FOLDER).iterdir())
    except OSError:  # most bundles have none
        return []


def _replaced(head: HeadFile) -> bool:
    """Whether a compaction has replaced the exported knowledge base."""
    _, now = head.read()
    return now is not None and now.snapshot > 0


def _check_files(folder: Path, manifest: Manifest, verify: bool, links: Links) -> dict[str, Identity]:
    """Check every file that the manifest lists; returns the identity of each one behind a link.

    Raises:
        BundleIntegrityError: a file is missing, truncated or altered.
    """
    head, linked = HeadFile(folder), {}
    for name, record in manifest.files.items():
        try:
            if not (name.startswith(f"{KB_FOLDER}/") and _replaced(head)):
                found = check_file(folder, name, record, verify, links)
                linked.update({name: found.identity} if found.linked else {})
        except BundleIntegrityError:
            # Another process may have compacted the edits just now, and removed the replaced files.
            if not (name.startswith(f"{KB_FOLDER}/") and _replaced(head)):
                raise
    return linked


def _refuse_linked_edits(folder: Path, name: str) -> None:
    """Refuse edits of a bundle of links: they could be those of another bundle.

    Args:
        folder: the bundle's folder.
        name: a file of the bundle.

    Raises:
        BundleError: the edits are links, or this file is one and there are edits.
    """
    edits = folder / SNAPSHOTS
    linked = edits.is_symlink() or (edits / HEAD_FILE).is_symlink()
    if linked or (os.path.lexists(edits) and find_file(folder, name, "a file of the bundle", "followed").linked):
        raise BundleError(
            "a bundle with edits must not have links",
            path=edits / HEAD_FILE,
            remedy=f"Copy the bundle, and use the copy: `{copy_command(folder)}`.",
        )


def _read_manifest(
    folder: Path, verify: bool, signer: PublicKey | None, links: Links
) -> tuple[Manifest, bytes, dict[str, Identity]]:
    """The manifest, its bytes, and the identity of each of its files that is behind a link.

    Raises:
        BundleIntegrityError: the manifest is missing or damaged.
        BundleError: there is no bundle, or the manifest is too large.
    """
    path = folder / MANIFEST_FILE
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise BundleError("there is no bundle here", path=folder, found=found, expected="a folder")
    try:
        file = find_file(folder, MANIFEST_FILE, "a bundle's manifest", links)
    except BundleIntegrityError as error:
        raise error.at(remedy="Pass the folder that `reaugkd export` wrote.") from error
    if file.size > MOST_MANIFEST_BYTES:
        raise BundleError(
            "the manifest is too large",
            path=path,
            found=f"{file.size:,} bytes",
            expected=f"at most {MOST_MANIFEST_BYTES:,}",
            remedy=AGAIN,
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BundleIntegrityError("the manifest cannot be read", path=path, found=error.strerror) from error
    if signer is not None:
        check_signature(folder, raw, signer, links)  # before it is parsed
    try:
        obj = parse_json(raw)
    except ValueError as error:
        message = "the manifest is not valid JSON"
        raise BundleIntegrityError(message, path=path, found=str(error), remedy=AGAIN) from error
    manifest = Manifest.from_json(obj, path)
    if verify and not sealed(raw):
        raise BundleIntegrityError(
            "the manifest was altered after export",
            path=path,
            found="content that does not match its seal",
            expected="the manifest as it was exported",
            remedy=f"{AGAIN} To use an edited manifest, open the bundle with verify=False.",
        )
    return manifest, raw, {MANIFEST_FILE: file.identity} if file.linked else {}
