"""The files of a bundle's folder: plain ones, and the links that may lead to them.

Threats: a link leads out of the folder, whatever the hash of its target; a pipe never ends; a device has no size. So a
link is followed only if every step of its way stays inside the bundle's folder, as in a volume of Kubernetes
(``kb -> ..data/kb``, ``..data -> ..2026_11_29``), or if the caller asks for it, as for a snapshot in the cache of
Hugging Face's hub (``kb/rows.npy -> ../../../blobs/HASH``).
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from ...errors import BundleError, BundleIntegrityError
from ...kb.storage.atomic import sha256_file
from .manifest import FileRecord

Links = Literal["refused", "inside", "followed"]
"""Which links may lead to a file: none, those that stay inside the bundle's folder, or all."""

Identity = tuple[int, int, int, int]
"""Device, inode, size and time of the last change of a file."""

OPEN_FILES = Path("/proc/self/fd")
"""The open files of this process (Linux). A path below it stays with an open folder that is renamed or replaced."""

AGAIN = "Copy the bundle again, or export it again."
_VOLUME = "..data"  # the link that Kubernetes replaces when the content of a volume changes
_MOST_LINKS = 40  # on the way to one file, as in Linux


class Found(NamedTuple):
    """A plain file below a folder: its size, its identity, and whether a link leads to it."""

    size: int
    identity: Identity
    linked: bool


def check_file(folder: Path, name: str, record: FileRecord, verify: bool, links: Links = "refused") -> Found:
    """Check that a file is a plain file that matches its record.

    Args:
        folder: the folder that contains it.
        name: its path below the folder, with ``/``.
        record: its expected size and hash.
        verify: check the SHA-256 too.
        links: which links may lead to it.

    Raises:
        BundleIntegrityError: it is missing, truncated or altered.
        BundleError: it is a pipe or device, or a link leads to it that is not allowed.
    """
    path = folder / name
    found = find_file(folder, name, f"{record.bytes} bytes", links)
    if found.size != record.bytes:
        raise BundleIntegrityError(
            "the file was truncated or extended",
            path=path,
            found=f"{found.size} bytes",
            expected=f"{record.bytes} bytes",
            remedy=AGAIN,
        )
    if not verify:
        return found
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
            remedy=AGAIN,
        )
    return found


def find_file(folder: Path, name: str, expected: str, links: Links = "refused") -> Found:
    """Find a plain file below a folder.

    Args:
        folder: the folder.
        name: the file's path below the folder, with ``/``.
        expected: what it is, for the message if it is missing.
        links: which links may lead to it.

    Raises:
        BundleIntegrityError: it is missing.
        BundleError: it is a pipe or device, or a link leads to it that is not allowed.
    """  # noqa: DOC501
    link = None
    try:
        link = _first_link(folder, name)
        if link is not None:
            if links == "refused":
                raise BundleError(
                    "edits must not be behind links",
                    path=link,
                    found=f"a symbolic link to {link.readlink()}",
                    expected="the file itself",
                    remedy=f"Copy the bundle: `{copy_command(folder)}`.",
                )
            if links == "inside":
                _check_inside(folder, name)
        status = (folder / name).stat()
        _check_kind(folder / name, status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError
    except (OSError, ValueError) as error:  # ValueError: an invalid file name
        raise BundleIntegrityError(
            "the file is missing" if link is None else "a link leads to no file",
            path=folder / name if link is None else link,
            found="a folder" if isinstance(error, IsADirectoryError) else None,
            expected=expected,
            remedy=AGAIN,
        ) from error
    return Found(status.st_size, identity_of(status), link is not None)


def identity_of(status: os.stat_result) -> Identity:
    """The identity of a file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def copy_command(folder: Path) -> str:
    """The command that copies a bundle with files in place of its links."""
    volume = folder / _VOLUME
    whole = (volume / "manifest.json").is_file()  # a bundle may keep only some of its files there
    return shlex.join(["cp", "-rL", str(volume if whole else folder), f"{folder.name}-copy"])


def _first_link(folder: Path, name: str) -> Path | None:
    """The first link on the way to a file; None if there is none.

    Raises:
        OSError: the file is missing.
        BundleError: it is a pipe, socket or device.
    """
    path = folder
    for part in PurePosixPath(name).parts:
        path /= part
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return path
        _check_kind(path, mode)
    return None


def _check_kind(path: Path, mode: int) -> None:
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BundleError("this is not a file", path=path, found="a pipe, socket or device", expected="a plain file")


def _check_inside(folder: Path, name: str) -> None:
    """Check that every step of the way to a file stays inside the folder, in the way that the system goes.

    Raises:
        OSError: the file is missing, or the links have no end.
        BundleError: a link leads out of the folder.
    """  # noqa: DOC501
    here, todo = folder, list(reversed(PurePosixPath(name).parts))
    link, links = folder, 0
    while todo:
        part = todo.pop()
        if part == "..":
            if here == folder:
                raise _refused(folder, link)
            here = here.parent
            continue
        path = here / part
        if not stat.S_ISLNK(path.lstat().st_mode):
            here = path
            continue
        link, links, target = path, links + 1, path.readlink()
        if target.is_absolute():
            raise _refused(folder, link)
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        todo += reversed(target.parts)


def _refused(folder: Path, link: Path) -> BundleError:
    return BundleError(
        "a link leads out of the bundle",
        path=link,
        found=f"a symbolic link to {link.readlink()}",
        expected="the file itself, or a relative link that stays in the bundle's folder",
        remedy=f"Copy the bundle: `{copy_command(folder)}`. To read it in place, if you trust what its links lead to: "
        "--follow-links, or Runtime.open(..., follow_links=True).",
    )
