"""Atomic writes of files and folders: temporary name, fsync, rename.

A killed process leaves a temporary ``.NAME.xxxxxxxx.tmp``, which the next write of the same name removes. A lock marks
the temporaries of living processes; it ends with its process.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, overload

from ...errors import OutputExistsError, ReaugkdError, StorageError

if sys.platform != "win32":
    import fcntl

# Errors of the disk; any other OSError inside a block belongs to the caller and passes through.
_STORAGE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENOTDIR}
)
# The messages of the same errors from libraries without an errno: Rust, numpy, torch.
_RUST_ERROR = re.compile(r"([^:]*) \(os error (\d+)\)")
_SHORT_WRITE = re.compile(r"requested and \d+ written|PytorchStreamWriter failed|inline_container.*unexpected pos")


@overload
def atomic_write(path: Path, mode: Literal["w"] = "w") -> AbstractContextManager[IO[str]]: ...
@overload
def atomic_write(path: Path, mode: Literal["wb"]) -> AbstractContextManager[IO[bytes]]: ...
@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that replaces ``path`` only if the block ends without an error.

    Args:
        path: the file to write; its folder is created if needed.
        mode: ``"w"`` (UTF-8, newlines as given) or ``"wb"``.

    Raises:
        StorageError: the disk is full, read-only or not permitted; ``path`` is unchanged.
    """
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "")
    with _claimed(path, Path.touch) as temporary:
        with storage_errors(path, temporary), temporary.open(mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with refusals(path):
            temporary.replace(path)
            _sync_folder(path.parent)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``path`` only if the block ends without an error.

    Its new files get the umask's mode: some libraries (safetensors) make files that only their owner can read.

    Args:
        path: the folder to create; must not exist.

    Raises:
        OutputExistsError: ``path`` exists already.
        StorageError: the disk is full, read-only or not permitted; nothing is left at ``path``.
    """
    refuse_existing(path)
    with _claimed(path, Path.mkdir) as temporary:
        with storage_errors(path, temporary):
            yield temporary
        with refusals(path):
            # What the umask leaves to others of a new folder, it leaves of a new file too.
            mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    _sync_file(file, mode)
            refuse_existing(path)
            temporary.rename(path)
            _sync_folder(path.parent)


def refuse_existing(path: Path) -> None:
    """Check that ``path`` does not exist, not even as a broken link.

    Raises:
        OutputExistsError: ``path`` exists.
    """
    if path.exists() or path.is_symlink():
        raise OutputExistsError(
            "the output exists already",
            path=path,
            remedy="Choose another place, or remove it first: nothing is overwritten.",
        )


def sha256_file(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _claimed(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Create and lock a temporary beside ``path``; it is removed at the end unless it was renamed."""
    with refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        temporary, lock = _make_locked(path, make)
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            _remove_tree(temporary)
        else:
            temporary.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def _make_locked(path: Path, make: Callable[[Path], object]) -> tuple[Path, int | None]:
    while True:
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
        make(temporary)
        lock = _lock(temporary)
        # Another process may have removed it before the lock.
        if temporary.exists():
            return temporary, lock
        if lock is not None:
            os.close(lock)


def _lock(temporary: Path, wait: bool = True) -> int | None:
    """A descriptor that locks the temporary until it is closed; None if it cannot be locked."""
    if sys.platform == "win32":  # leftovers are not removed
        return None
    try:
        descriptor = os.open(temporary, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def remove_leftovers(path: Path) -> None:
    """Remove the temporaries of ``path`` whose writers have ended."""
    leftover = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")
    for name in os.listdir(path.parent):  # noqa: PTH208  (twice as fast, and folders can be large)
        lock = _lock(path.parent / name, wait=False) if leftover.fullmatch(name) else None
        if lock is not None:
            _remove_tree(path.parent / name)
            with suppress(OSError):
                (path.parent / name).unlink(missing_ok=True)
            os.close(lock)


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn every OSError of the block into a StorageError.

    Raises:
        StorageError: an OSError occurred.
    """  # noqa: DOC501
    try:
        yield
    except OSError as error:
        # Name another file than ``path`` in the message, but not a temporary of ``path``.
        place = "" if error.filename is None or path.name in str(error.filename) else f" ({error.filename})"
        raise _refused(path, f"{error.strerror or error}{place}") from error


@contextmanager
def storage_errors(path: Path, temporary: Path) -> Iterator[None]:
    """Turn errors of the disk in the caller's block into StorageError; other errors pass through.

    Args:
        path: the file or folder for the message.
        temporary: where the block writes.

    Raises:
        StorageError: the disk is full, read-only or not permitted.
    """  # noqa: DOC501
    try:
        yield
    except Exception as error:
        reason = None if isinstance(error, ReaugkdError) else _refusal(error, temporary)
        if reason is None:
            raise
        raise _refused(path, reason) from error


def _refusal(error: Exception, temporary: Path) -> str | None:
    """The disk's message where the error is one of the disk and concerns the temporary, otherwise None."""
    if isinstance(error, OSError) and error.errno is not None:
        files = [str(name) for name in (error.filename, error.filename2) if name is not None]  # a copy has two names
        elsewhere = bool(files) and not any(name.startswith(str(temporary)) for name in files)
        return error.strerror if error.errno in _STORAGE_ERRNOS and not elsewhere else None
    text = str(error)
    rust = _RUST_ERROR.search(text)
    if rust is not None:
        return rust[1].strip() if int(rust[2]) in _STORAGE_ERRNOS else None
    return f"a short write ({text})" if _SHORT_WRITE.search(text) else None


def _refused(path: Path, reason: str) -> StorageError:
    return StorageError(
        "writing failed, no part of the output was left",
        path=path,
        found=reason,
        remedy="Free some space, or choose a folder that can be written to.",
    )


def _sync_file(path: Path, mode: int) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        status = os.fstat(file.fileno())
    if status.st_nlink == 1 and not path.is_symlink() and status.st_mode & mode != mode:  # not another folder's file
        path.chmod(stat.S_IMODE(status.st_mode) | mode)


def _sync_folder(path: Path) -> None:
    if sys.platform == "win32":  # folders cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_tree(folder: Path) -> None:
    import shutil  # not at the top: the import takes 4 ms, and the runtime only reads

    shutil.rmtree(folder, ignore_errors=True)
