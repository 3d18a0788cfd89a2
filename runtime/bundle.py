"""A bundle on disk: found, checked file by file, and only then used."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import BundleError, BundleIntegrityError
from ..kb.files import sha256_file
from ..kb.knowledge_base import INDEX_FILE, ROWS_FILE, SOFT_LABELS_FILE, TEXTS_FILE
from .heldout import HELDOUT_FILE
from .manifest import MANIFEST_FILE, FileRecord, Manifest, seal_entry
from .strict_json import read_json

MODEL_FILE = "student/model.onnx"
TOKENIZER_FILE = "student/tokenizer.json"
KB_FOLDER = "kb"
REQUIRED_FILES = (
    MODEL_FILE,
    TOKENIZER_FILE,
    *(f"{KB_FOLDER}/{name}" for name in (INDEX_FILE, SOFT_LABELS_FILE, ROWS_FILE)),
)
OPTIONAL_FILES = (f"{KB_FOLDER}/{TEXTS_FILE}", HELDOUT_FILE)
MOST_MANIFEST_BYTES = 8 * 2**20
"""Of a manifest; with a thousand labels it takes 100 kB."""

_AGAIN = "Copy the bundle again, or export it again."
_SEAL_BYTES = len(seal_entry(b""))


@dataclass(frozen=True)
class Bundle:
    """A checked bundle.

    Attributes:
        path: the bundle's folder, absolute.
        manifest: what it says about itself.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> Bundle:
        """Read the manifest and check every file it names; others are ignored, but for those that would be read.

        The folder itself may be a link. Nothing in it may, and all files are plain ones: a link leads out of the
        folder, whatever its hash, and a pipe never ends.

        Args:
            path: the bundle's folder.
            verify: compare SHA-256 sums as well; without it only existence and sizes are looked at.

        Raises:
            BundleIntegrityError: a file is missing, truncated or altered, or one that would be read is not listed.
            BundleVersionError: the bundle was written by a newer reaugkd.
            BundleError: this is no bundle, or one with links, pipes or absurd numbers in it.
        """
        folder = Path(path).absolute()
        manifest = _read_manifest(folder, verify)
        for name in REQUIRED_FILES:
            if name not in manifest.files:
                raise BundleError("the manifest does not list a file", path=folder / MANIFEST_FILE, expected=name)
        for name in OPTIONAL_FILES:
            # Read where it is: unlisted, it would be read unchecked.
            if name not in manifest.files and os.path.lexists(folder / name):
                raise BundleIntegrityError(
                    "the manifest does not list a file that is there",
                    path=folder / name,
                    expected="no such file, or its size and hash in the manifest",
                    remedy=_AGAIN,
                )
        for name, record in manifest.files.items():
            _check_file(folder, name, record, verify)
        return cls(folder, manifest)

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


def _read_manifest(folder: Path, verify: bool) -> Manifest:
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
            remedy="Give the folder that `reaugkd export` wrote.",
        ) from error
    try:
        obj = read_json(raw)
    except ValueError as error:
        raise BundleIntegrityError("the manifest is no JSON", path=path, found=str(error), remedy=_AGAIN) from error
    manifest = Manifest.from_json(obj, path)
    if verify and raw[-_SEAL_BYTES:] != seal_entry(raw[:-_SEAL_BYTES]):
        raise BundleIntegrityError(
            "the manifest was altered after export",
            path=path,
            found="other content than its seal stands for",
            expected="the manifest as it was exported",
            remedy=f"{_AGAIN} To use an edited manifest nevertheless, open the bundle without verification.",
        )
    return manifest


def _check_file(folder: Path, name: str, record: FileRecord, verify: bool) -> None:
    path = folder
    try:
        for part in PurePosixPath(name).parts:
            path /= part
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                _refuse_unusual(path, status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            raise IsADirectoryError
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise BundleIntegrityError(
            "the file is missing", path=folder / name, expected=f"{record.bytes} bytes", remedy=_AGAIN
        ) from error
    size = status.st_size
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


def _refuse_unusual(path: Path, mode: int) -> None:
    """Refuse a link, pipe, socket or device; of a folder in a file's place the caller knows what to say."""
    if stat.S_ISLNK(mode):
        raise BundleError(
            "a link is no part of a bundle",
            path=path,
            found="a symbolic link",
            expected="the file itself",
            remedy="Copy the bundle with what its links lead to, as `cp -RL` does.",
        )
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BundleError("this is no file", path=path, found="a pipe, socket or device", expected="a plain file")
