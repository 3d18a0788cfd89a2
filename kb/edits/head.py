"""Where a bundle's knowledge base stands: `generations/HEAD`, and the lock of the one who edits.

HEAD is one line of 256 bytes that is written over in place, after the journal it speaks of is safe on the disk: an edit
is made when HEAD says so. A line that short is written whole or not at all, by the kernel as by disks (one sector).

    {"after":H,"crc":C,"generation":G,"length":B,"seq":S}

The journal of generation G has B bytes, and its last line is edit S with the hash H. What is beyond B bytes is an edit
that was interrupted before it was made.
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

GENERATIONS = "generations"
HEAD_FILE = "HEAD"
HEAD_BYTES = 256

# Links are refused, and a pipe does not keep anybody waiting.
_PLAIN = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_TORN_READS = 20  # a reader may see a line that is just being written
_POLL = 0.01  # seconds between two tries for the lock


@dataclass(frozen=True)
class JournalHead:
    """The state that is in force.

    Attributes:
        generation: 0 is the sealed export.
        seq: the number of the last edit, 0 before the first.
        length: of that generation's journal, in bytes.
        after: the last edit's hash; the manifest's seal before the first.
    """

    generation: int
    seq: int
    length: int
    after: str

    def line(self) -> bytes:
        """As it is in the file."""
        fields = {name: getattr(self, name) for name in ("after", "generation", "length", "seq")}
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
            fields = {name: obj[name] for name in ("after", "generation", "length", "seq")}
            head = cls(**fields)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError("no line of HEAD") from error
        numbers = (head.generation, head.seq, head.length)
        if any(not isinstance(number, int) or isinstance(number, bool) or number < 0 for number in numbers):
            raise ValueError("no line of HEAD")
        if not isinstance(head.after, str) or head.line() != line:
            raise ValueError("another checksum")
        return head


class HeadFile:
    """The HEAD of a bundle, looked at with every text: four microseconds.

    It is opened anew at each look, so that one that was replaced, with its bundle or by a copy, is seen too.

    Args:
        bundle: the bundle's folder.
    """

    def __init__(self, bundle: Path) -> None:
        self.path = bundle / GENERATIONS / HEAD_FILE
        self._name = str(self.path)

    def look(self) -> bytes:
        """The line as it is now, unchecked; empty where nothing was ever edited.

        Raises:
            BundleIntegrityError: it cannot be read.
        """
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
        """The line and what it says; None where nothing was ever edited.

        Raises:
            BundleIntegrityError: it is damaged, or missing beside its folder.
        """
        line = b""
        for _ in range(_TORN_READS):
            line = self.look()
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
    """Put another state in force; it is safe on the disk when this returns.

    Raises:
        StorageError: the disk refused; what was in force before is again.
    """
    path = bundle / GENERATIONS / HEAD_FILE
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
    """What was written to the descriptor is on the disk when this returns."""
    getattr(os, "fdatasync", os.fsync)(file)


@contextmanager
def writing(bundle: Path, wait: float) -> Iterator[None]:
    """Be the one who edits, among all threads and processes; readers are not kept waiting.

    Args:
        bundle: the bundle's folder.
        wait: seconds to wait for another to end; 0 tries once.

    Raises:
        UsageError: another one is still at it.
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
                        "somebody else is editing the knowledge base",
                        path=bundle,
                        found=f"its lock taken for more than {wait:g} s",
                        remedy="Try again when the other edit has ended.",
                    ) from error
                time.sleep(_POLL)
            except OSError as error:
                raise StorageError("the bundle cannot be locked", path=bundle, found=error.strerror) from error
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)  # a child that was forked meanwhile has the lock too, and would keep it
        os.close(lock)


def _overwrite(file: int, line: bytes) -> None:
    if os.pwrite(file, line, 0) != len(line):
        raise OSError("a short write")
    sync(file)


def _crc(fields: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
