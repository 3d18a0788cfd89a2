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

from ..errors import BundleIntegrityError, StorageError, UsageError
from .files import refusals

if sys.platform != "win32":
    import fcntl

GENERATIONS = "generations"
HEAD_FILE = "HEAD"
HEAD_BYTES = 256

_TORN_READS = 20  # a reader may see a line that is just being written
_POLL = 0.01  # seconds between two tries for the lock


@dataclass(frozen=True)
class Head:
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
    def parse(cls, line: bytes) -> Head:
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
    """The HEAD of a bundle, open for looking at it often: a look costs a microsecond.

    Args:
        bundle: the bundle's folder.
    """

    def __init__(self, bundle: Path) -> None:
        self.path = bundle / GENERATIONS / HEAD_FILE
        self._file: int | None = None
        self._seen: bytes | None = None

    def changed(self) -> bool:
        """Whether HEAD says something else than when it was `read` last."""
        if self._file is None:
            return os.access(self.path, os.F_OK)
        return os.pread(self._file, HEAD_BYTES + 1, 0) != self._seen

    def read(self) -> Head | None:
        """What it says; None where nothing was ever edited.

        Raises:
            BundleIntegrityError: it is damaged, or missing beside its folder.
        """
        if self._file is None and not self._open():
            return None
        assert self._file is not None
        for _ in range(_TORN_READS):
            line = os.pread(self._file, HEAD_BYTES + 1, 0)
            with suppress(ValueError):
                head = Head.parse(line)
                self._seen = line
                return head
        raise self._damaged(f"{len(line)} bytes")

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()

    def _open(self) -> bool:
        if not self.path.parent.is_dir():
            return False
        if self.path.is_symlink() or not self.path.is_file():
            raise self._damaged("a link" if self.path.is_symlink() else "no such file")
        try:
            self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise self._damaged(str(error.strerror)) from error
        return True

    def _damaged(self, found: str) -> BundleIntegrityError:
        return BundleIntegrityError(
            "the state of the edits cannot be read",
            path=self.path,
            found=found,
            expected=f"a line of {HEAD_BYTES} bytes with its checksum",
            remedy="Restore it from a copy of the bundle.",
        )


def write_head(bundle: Path, head: Head) -> None:
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
        os.close(lock)


def _overwrite(file: int, line: bytes) -> None:
    if os.pwrite(file, line, 0) != len(line):
        raise OSError("a short write")
    sync(file)


def _crc(fields: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
