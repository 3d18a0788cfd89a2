"""A bundle on disk: found, checked file by file, and only then used."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BundleError, BundleIntegrityError, UsageError
from ..kb.files import sha256_file
from ..kb.head import HeadFile
from ..kb.knowledge_base import INDEX_FILE, ROWS_FILE, SOFT_LABELS_FILE
from ..kb.signature import PublicKey
from ..kb.text_digests import DIGESTS_FILE
from .heldout import HELDOUT_FILE
from .manifest import MANIFEST_FILE, FileRecord, Manifest, seal_of, sealed
from .signing import check_signature

MODEL_FILE = "student/model.onnx"
TOKENIZER_FILE = "student/tokenizer.json"
KB_FOLDER = "kb"
REQUIRED_FILES = (
    MODEL_FILE,
    TOKENIZER_FILE,
    *(f"{KB_FOLDER}/{name}" for name in (INDEX_FILE, SOFT_LABELS_FILE, ROWS_FILE)),
)
READ_WHERE_THERE = (f"{KB_FOLDER}/{DIGESTS_FILE}", HELDOUT_FILE)
_AGAIN = "Copy the bundle again, or export it again."


@dataclass(frozen=True)
class Bundle:
    """A checked bundle.

    Attributes:
        path: the bundle's folder, absolute.
        manifest: what it said about itself when it was exported; of edits since, `store.KnowledgeStore` knows.
        content: the bytes of the manifest's file that ``manifest`` was read from.
    """

    path: Path
    manifest: Manifest
    content: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def open(cls, path: Path | str, verify: bool = True, require_signature: PublicKey | None = None) -> Bundle:
        """Read the manifest and check every file it names; files that it does not name are ignored, or refused where
        they would be read.

        Args:
            path: the bundle's folder.
            verify: compare SHA-256 sums as well; without it only existence and sizes are looked at.
            require_signature: whose signature the manifest must have.

        Raises:
            BundleIntegrityError: a file is missing, truncated or altered, or the signature that is asked for is.
            UsageError: a signature is asked for, but no check of the files that it vouches for.
            BundleVersionError: the bundle was written by a newer reaugkd.
            BundleError: this is no bundle.
        """
        folder = Path(path).absolute()
        if require_signature is not None and not verify:
            raise UsageError(
                "a signature is asked for without a check of the files",
                path=folder,
                found="verify=False",
                remedy="Leave verify as it is: the signature vouches for the hashes, and they for the files.",
            )
        manifest, content = _read_manifest(folder, verify, require_signature)
        for name in REQUIRED_FILES:
            if name not in manifest.files:
                raise BundleError("the manifest does not list a file", path=folder / MANIFEST_FILE, expected=name)
        for name in READ_WHERE_THERE:
            if name not in manifest.files and (folder / name).exists():
                raise BundleIntegrityError(
                    "the manifest does not list the file",
                    path=folder / name,
                    found="a file that was put there after the export",
                    remedy=f"Remove it. {_AGAIN}",
                )
        head = HeadFile(folder)
        for name, record in manifest.files.items():
            try:
                if not (name.startswith(f"{KB_FOLDER}/") and _replaced(head)):
                    check_file(folder / name, record, verify)
            except BundleIntegrityError:
                # Somebody may just have folded edits in, and removed what they replaced.
                if not (name.startswith(f"{KB_FOLDER}/") and _replaced(head)):
                    raise
        return cls(folder, manifest, content)

    def refuse_edits(self, what: str) -> None:
        """Raise UsageError where the knowledge base was edited, for what works on exports only.

        Args:
            what: is asked for, in words.
        """
        head = HeadFile(self.path).read()
        if head is not None and head.seq:
            raise UsageError(
                f"{what} takes a bundle as it was exported",
                path=self.path,
                found=f"{head.seq} edits of its knowledge base",
                remedy="Take a copy from before the first edit.",
            )

    @property
    def seal(self) -> str:
        """The manifest's own hash, 64 hexadecimal digits."""
        return seal_of(self.content)

    @property
    def model_path(self) -> Path:
        """The student."""
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
    """Whether another generation has taken the place of the exported knowledge base."""
    now = head.read()
    return now is not None and now.generation > 0


def _read_manifest(folder: Path, verify: bool, signer: PublicKey | None) -> tuple[Manifest, bytes]:
    path = folder / MANIFEST_FILE
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise BundleError("there is no bundle here", path=folder, found=found, expected="a folder")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BundleIntegrityError(
            "the manifest cannot be read",
            path=path,
            found=error.strerror,
            expected="a bundle's manifest",
            remedy="Give the folder that `reaugkd export` wrote.",
        ) from error
    if signer is not None:
        check_signature(folder, raw, signer)  # before anything is made of it
    try:
        obj = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleIntegrityError("the manifest is no JSON", path=path, found=str(error), remedy=_AGAIN) from error
    manifest = Manifest.from_json(obj, path)
    if verify and not sealed(raw):
        raise BundleIntegrityError(
            "the manifest was altered after export",
            path=path,
            found="other content than its seal stands for",
            expected="the manifest as it was exported",
            remedy=f"{_AGAIN} To use an edited manifest nevertheless, open the bundle without verification.",
        )
    return manifest, raw


def check_file(path: Path, record: FileRecord, verify: bool) -> None:
    """Whether a file is as its record says.

    Args:
        path: the file.
        record: what it has to be.
        verify: compare SHA-256 sums as well.

    Raises:
        BundleIntegrityError: it is missing, truncated or altered.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise IsADirectoryError
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise BundleIntegrityError(
            "the file is missing", path=path, expected=f"{record.bytes} bytes", remedy=_AGAIN
        ) from error
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
