"""A bundle on disk: its file names, and the checks of every file before it is used."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ...errors import BundleError, BundleIntegrityError, UsageError
from ...kb.edits.head import HeadFile
from ...kb.knowledge_base import INDEX_FILE, ROWS_FILE, SOFT_LABELS_FILE, TEXTS_FILE
from ...kb.storage.atomic import sha256_file
from ...kb.storage.ed25519 import PublicKey
from ...kb.storage.strict_json import parse_json
from ...kb.texts import DIGESTS_FILE
from .heldout_rows import HELDOUT_FILE
from .manifest import MANIFEST_FILE, FileRecord, Manifest, seal_of, sealed
from .signature import check_signature

STUDENT_FOLDER, KB_FOLDER = "student", "kb"
MODEL_FILE = f"{STUDENT_FOLDER}/model.onnx"
TOKENIZER_FILE = f"{STUDENT_FOLDER}/tokenizer.json"

# Every file that the runtime reads, beside MANIFEST_FILE and SIGNATURE_FILE (manifest.py) and the edits (editing/).
REQUIRED_FILES = (
    MODEL_FILE,
    TOKENIZER_FILE,
    *(f"{KB_FOLDER}/{name}" for name in (INDEX_FILE, SOFT_LABELS_FILE, ROWS_FILE)),
)
OPTIONAL_FILES = (f"{KB_FOLDER}/{TEXTS_FILE}", f"{KB_FOLDER}/{DIGESTS_FILE}", HELDOUT_FILE)
MOST_MANIFEST_BYTES = 8 * 2**20
"""The largest manifest; one with a thousand labels has 100 kB."""

_AGAIN = "Copy the bundle again, or export it again."


@dataclass(frozen=True)
class Bundle:
    """A checked bundle.

    Attributes:
        path: the bundle's folder, absolute.
        manifest: the manifest as it was exported; `store.KnowledgeStore` has the edits since then.
        content: the bytes of the manifest file.
    """

    path: Path
    manifest: Manifest
    content: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def open(cls, path: Path | str, verify: bool = True, require_signature: PublicKey | None = None) -> Bundle:
        """Read the manifest and check every file that it lists; unlisted files that the runtime reads are refused.

        The folder itself may be a link; the files in it must be plain files. A link leads out of the folder, whatever
        its hash, and a pipe never ends.

        Args:
            path: the bundle's folder.
            verify: check the SHA-256 of every file; without it, only existence and sizes are checked.
            require_signature: the key that the manifest must be signed with.

        Raises:
            BundleIntegrityError: a file is missing, truncated or altered; the runtime would read an unlisted file; or
                the required signature is missing or made with another key.
            UsageError: a signature is required without a check of the files.
            BundleVersionError: a newer reaugkd wrote the bundle.
            BundleError: this is not a bundle, or it has links, pipes or unusable values.
        """
        folder = Path(path).absolute()
        if require_signature is not None and not verify:
            raise UsageError(
                "a signature is required without a check of the files",
                path=folder,
                found="verify=False",
                remedy="Do not set verify=False: the signature covers the hashes, and the hashes cover the files.",
            )
        manifest, content = _read_manifest(folder, verify, require_signature)
        for name in REQUIRED_FILES:
            if name not in manifest.files:
                raise BundleError("the manifest does not list a file", path=folder / MANIFEST_FILE, expected=name)
        for name in OPTIONAL_FILES:
            # The runtime reads it if it exists; an unlisted file would be read unchecked.
            if name not in manifest.files and os.path.lexists(folder / name):
                raise BundleIntegrityError(
                    "the manifest does not list a file of the bundle",
                    path=folder / name,
                    expected="no such file, or its size and hash in the manifest",
                    remedy=_AGAIN,
                )
        head = HeadFile(folder)
        for name, record in manifest.files.items():
            try:
                if not (name.startswith(f"{KB_FOLDER}/") and _replaced(head)):
                    check_file(folder, name, record, verify)
            except BundleIntegrityError:
                # Another process may have compacted the edits just now, and removed the replaced files.
                if not (name.startswith(f"{KB_FOLDER}/") and _replaced(head)):
                    raise
        return cls(folder, manifest, content)

    def refuse_edits(self, what: str) -> None:
        """Check that the knowledge base has no edits.

        Args:
            what: the operation that needs an unedited bundle, for the message.

        Raises:
            UsageError: the knowledge base was edited.
        """
        _, head = HeadFile(self.path).read()
        if head is not None and head.seq:
            raise UsageError(
                f"{what} needs a bundle without edits",
                path=self.path,
                found=f"{head.seq} edits of its knowledge base",
                remedy="Use a copy from before the first edit.",
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


def _replaced(head: HeadFile) -> bool:
    """Whether a compaction has replaced the exported knowledge base."""
    _, now = head.read()
    return now is not None and now.snapshot > 0


def _read_manifest(folder: Path, verify: bool, signer: PublicKey | None) -> tuple[Manifest, bytes]:
    path = folder / MANIFEST_FILE
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise BundleError("there is no bundle here", path=folder, found=found, expected="a folder")
    try:
        status = path.lstat()
        _refuse_unusual(path, status.st_mode)
        if status.st_size > MOST_MANIFEST_BYTES:
            raise BundleError(
                "the manifest is too large",
                path=path,
                found=f"{status.st_size:,} bytes",
                expected=f"at most {MOST_MANIFEST_BYTES:,}",
                remedy=_AGAIN,
            )
        raw = path.read_bytes()
    except OSError as error:
        raise BundleIntegrityError(
            "the manifest cannot be read",
            path=path,
            found=error.strerror,
            expected="a bundle's manifest",
            remedy="Pass the folder that `reaugkd export` wrote.",
        ) from error
    if signer is not None:
        check_signature(folder, raw, signer)  # before it is parsed
    try:
        obj = parse_json(raw)
    except ValueError as error:
        message = "the manifest is not valid JSON"
        raise BundleIntegrityError(message, path=path, found=str(error), remedy=_AGAIN) from error
    manifest = Manifest.from_json(obj, path)
    if verify and not sealed(raw):
        raise BundleIntegrityError(
            "the manifest was altered after export",
            path=path,
            found="content that does not match its seal",
            expected="the manifest as it was exported",
            remedy=f"{_AGAIN} To use an edited manifest, open the bundle with verify=False.",
        )
    return manifest, raw


def check_file(folder: Path, name: str, record: FileRecord, verify: bool) -> None:
    """Check that a file is a plain file that matches its record.

    Args:
        folder: the folder that contains it.
        name: its path below the folder, with ``/``; no part of it may be a link.
        record: its expected size and hash.
        verify: check the SHA-256 too.

    Raises:
        BundleIntegrityError: it is missing, truncated or altered.
        BundleError: it is a link, pipe or device.
    """
    path = folder / name
    size = plain_size(folder, name, f"{record.bytes} bytes")
    if size != record.bytes:
        raise BundleIntegrityError(
            "the file was truncated or extended",
            path=path,
            found=f"{size} bytes",
            expected=f"{record.bytes} bytes",
            remedy=_AGAIN,
        )
    if not verify:
        return
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise BundleIntegrityError("the file cannot be read", path=path, found=error.strerror) from error
    if digest != record.sha256:
        raise BundleIntegrityError(
            "the file was altered",
            path=path,
            found=f"sha256 {digest}",
            expected=f"sha256 {record.sha256}",
            remedy=_AGAIN,
        )


def plain_size(folder: Path, name: str, expected: str) -> int:
    """The size of a plain file below a folder; no part of its path may be a link.

    Raises:
        BundleIntegrityError: it is missing.
        BundleError: it is a link, pipe or device.
    """  # noqa: DOC501
    path = folder
    try:
        for part in PurePosixPath(name).parts:
            path /= part
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                _refuse_unusual(path, status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            raise IsADirectoryError
    except (OSError, ValueError) as error:  # ValueError: an invalid file name
        raise BundleIntegrityError(
            "the file is missing", path=folder / name, expected=expected, remedy=_AGAIN
        ) from error
    return status.st_size


def _refuse_unusual(path: Path, mode: int) -> None:
    """Check that a path is no link, pipe, socket or device; the caller refuses a folder.

    Raises:
        BundleError: it is one of these.
    """
    if stat.S_ISLNK(mode):
        raise BundleError(
            "a bundle must not contain links",
            path=path,
            found="a symbolic link",
            expected="the file itself",
            remedy="Copy the bundle with `cp -RL`, which replaces links by files.",
        )
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BundleError("this is not a file", path=path, found="a pipe, socket or device", expected="a plain file")
