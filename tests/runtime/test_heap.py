from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from reaugkd.runtime.heap import give_back

FREED = """
import sys
from reaugkd.runtime.heap import give_back
from reaugkd.runtime.probe import memory
blocks = [bytearray(50_000) for _ in range(1000)]  # below the size that glibc maps by itself
del blocks[:-1]  # the last one keeps the heap's end where it is
before = memory()["rss_bytes"]
give_back()
print(before - memory()["rss_bytes"])
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not the C library for it"
)
def test_freed_memory_goes_back() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", FREED], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 30_000_000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    give_back()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", None)
    give_back()
