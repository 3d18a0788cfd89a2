"""Helpers of the targets: a temporary folder, replaced files, and mutated seeds."""

from __future__ import annotations

import atexit
import random
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_NUMBERS = [0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
_WORDS = [b"null", b"-1", b"1e999", b"NaN", b"[", b"{", b'"', b"\\ud800", b"9" * 30, b"\0", b"\xff", b"true", b","]


def mutants(seeds: Sequence[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """Return the seeds, then ``count`` mutated ones, the same in every run."""
    yield from seeds
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            _change(data, rng, seeds)
        yield bytes(data)


def scratch() -> Path:
    """Return a new folder, which is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def rewrite(file: Path, data: bytes) -> None:
    """Replace a file by a new one: a map of the old file must not change, and truncation waits for the disk."""
    file.unlink(missing_ok=True)
    file.write_bytes(data)


def _change(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(6)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = rng.randrange(256)
    elif kind == 2:
        number = struct.pack("<Q", rng.choice(_NUMBERS))[: rng.choice((1, 2, 4, 8))]
        data[at : at + len(number)] = number
    elif kind == 3:
        del data[at : at + rng.choice((1, 2, 4, 16, 256))]
    elif kind == 4:
        data[at : at + rng.choice((0, 1, 4))] = rng.choice(_WORDS)
    else:
        other = rng.choice(seeds)
        begin = rng.randrange(len(other) + 1)
        data[at:at] = other[begin : begin + rng.randrange(64)]
