"""The state of a bundle's edits: the file `generations/HEAD`, and the lock of the writer.

HEAD is one line of 256 bytes. It is overwritten in place after the journal is safe on the disk; this commits an edit.
The kernel and disks write a line of one sector whole or not at all.

    {"after":H,"crc":C,"generation":G,"length":B,"seq":S}

The journal of snapshot G has B bytes, and its last line is edit S with the hash H. Bytes beyond B belong to an edit
that was interrupted before its commit.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import BundleIntegrityError, StorageError, UsageError
from ..storage.atomic import refusals

if sys.platform != "win32":
    import fcntl

# Names on the disk are those of format 1: it calls a snapshot a generation.
SNAPSHOTS = "generations"
HEAD_FILE = "HEAD"
HEAD_BYTES = 256

# Refuse links, and do not block on a pipe.
_PLAIN = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_TORN_READS = 20  # a reader may see a line while it is written
_POLL = 0.01  # seconds between two tries for the lock


@dataclass(frozen=True)
class JournalHead:
    """The current state of the edits.

    Attributes:
        snapshot: number of the snapshot; 0 is the sealed export.
        seq: number of the last edit, 0 before the first.
        length: bytes of that snapshot's journal.
        after: the last edit's hash; the manifest's seal before the first edit.
    """

    snapshot: int
    seq: int
    length: int
    after: str

    def line(self) -> bytes:
        """The line in the file."""
        fields = {"after": self.after, "generation": self.snapshot, "length": self.length, "seq": self.seq}
        text = json.dumps({**fields, "crc": _crc(fields)}, sort_keys=True, separators=(",", ":"))
        return text.encode().ljust(HEAD_BYTES - 1) + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> JournalHead:
        """Read a line.

        Raises:
            ValueError: it is damaged.
        """
        try:
            obj = json.loads(line)
            head = cls(obj["generation"], obj["seq"], obj["length"], obj["after"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError("not a line of HEAD") from error
        numbers = (head.snapshot, head.seq, head.length)
        if any(not isinstance(number, int) or isinstance(number, bool) or number < 0 for number in numbers):
            raise ValueError("not a line of HEAD")
        if not isinstance(head.after, str) or head.line() != line:
            raise ValueError("a wrong checksum")
        return head


class HeadFile:
    """The HEAD of a bundle; reading it takes 4 us, once for every text.

    Each read opens the file again, so that a replaced file or bundle is noticed.

    Args:
        bundle: the bundle's folder.
    """

    def __init__(self, bundle: Path) -> None:
        self.path = bundle / SNAPSHOTS / HEAD_FILE
        self._name = str(self.path)

    def read_line(self) -> bytes:
        """The current line, unchecked; empty for a bundle without edits.

        Raises:
            BundleIntegrityError: it cannot be read.
        """
        if not os.access(self._name, os.F_OK):  # cheaper than an exception
            return b""
        try:
            file = os.open(self._name, _PLAIN)
        except FileNotFoundError:
            return b""
        except OSError as error:  # ELOOP: it is a link
            raise self._damaged(str(error.strerror)) from error
        try:
            return os.read(file, HEAD_BYTES + 1)
        except OSError as error:
            raise self._damaged(str(error.strerror)) from error
        finally:
            os.close(file)

    def read(self) -> tuple[bytes, JournalHead | None]:
        """The line and its content; None for a bundle without edits.

        Raises:
            BundleIntegrityError: it is damaged, or the folder of the edits exists without it.
        """
        line = b""
        for _ in range(_TORN_READS):
            line = self.read_line()
            if not line:
                break
            with suppress(ValueError):
                return line, JournalHead.parse(line)
        if not line and not os.path.lexists(self.path.parent):
            return line, None
        raise self._damaged(f"{len(line)} bytes")

    def _damaged(self, found: str) -> BundleIntegrityError:
        return BundleIntegrityError(
            "the state of the edits cannot be read",
            path=self.path,
            found=found,
            expected=f"a line of {HEAD_BYTES} bytes with its checksum",
            remedy="Restore it from a copy of the bundle.",
        )


def write_head(bundle: Path, head: JournalHead) -> None:
    """Commit a state; it is safe on the disk when this returns.

    Raises:
        StorageError: the file cannot be written; the former state is restored.
    """
    path = bundle / SNAPSHOTS / HEAD_FILE
    with refusals(path):
        file = os.open(path, os.O_RDWR)
        try:
            former = os.pread(file, HEAD_BYTES, 0)
            try:
                _overwrite(file, head.line())
            except BaseException:
                with suppress(OSError):
                    _overwrite(file, former)
                raise
        finally:
            os.close(file)


def sync(file: int) -> None:
    """Flush what was written to a descriptor to the disk."""
    getattr(os, "fdatasync", os.fsync)(file)


@contextmanager
def write_lock(bundle: Path, wait: float) -> Iterator[None]:
    """Hold the lock of the one writer among all threads and processes; readers do not wait.

    Args:
        bundle: the bundle's folder.
        wait: seconds to wait for the lock; 0 tries once.

    Raises:
        UsageError: another edit is running.
        StorageError: the folder cannot be opened.
    """
    if sys.platform == "win32":
        raise UsageError("a bundle cannot be edited on Windows", remedy="Edit it on Linux or macOS, and copy it.")
    with refusals(bundle):
        lock = os.open(bundle, os.O_RDONLY)
    try:
        end = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= end:
                    raise UsageError(
                        "another edit of the knowledge base is running",
                        path=bundle,
                        found=f"its lock held for more than {wait:g} s",
                        remedy="Try again when the other edit has ended.",
                    ) from error
                time.sleep(_POLL)
            except OSError as error:
                raise StorageError("the bundle cannot be locked", path=bundle, found=error.strerror) from error
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)  # a child forked meanwhile shares the lock and would keep it
        os.close(lock)


def _overwrite(file: int, line: bytes) -> None:
    if os.pwrite(file, line, 0) != len(line):
        raise OSError("a short write")
    sync(file)


def _crc(fields: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
